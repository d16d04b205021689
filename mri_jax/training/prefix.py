"""Features of a frozen prefix, computed once a volume: tuning then trains on them.

A prefix that keeps its parameters and its statistics gives the same features every time a volume is
seen, unless volumes are augmented. The result is that of training on the volumes, up to the order
of additions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_jax.errors import UserError
from mri_jax.problems import counted
from mri_jax.training import hosts
from mri_jax.training.devices import available_memory, fold_budget
from mri_jax.training.feed import Feed, PerFold, StreamedPerFold
from mri_jax.training.folds import Programs
from mri_jax.training.freezing import frozen_prefix, trainable_mask
from mri_jax.training.inference import padded_rows
from mri_jax.training.job import FitSettings, with_step
from mri_jax.training.loop import Training
from mri_jax.volumes.stream import aligned


def frozen_layers(settings: FitSettings, params: Any) -> int:
    """Returns how many conv layers at the input can be computed once and for all."""
    if settings.step.frozen_statistics != "keep" or not settings.augment.off:
        return 0
    return frozen_prefix(trainable_mask(settings.step.rules, params), settings.step.spec)


def on_features(
    settings: FitSettings, trainings: Sequence[Training], feed: Feed, programs: Programs
) -> tuple[FitSettings, Feed]:
    """Computes the features of the frozen prefix, where there is one.

    Args:
      settings: Settings of the trainings.
      trainings: One a fold; the prefix is the same in all states of a training.
      feed: The volumes.
      programs: Programs of the wave.

    Returns:
      Settings and feed with which the trainings give the same; those given where no prefix is
      frozen. Features that the devices have no room for are kept by the host and streamed.

    Raises:
      UserError: The host has no memory for the features.
    """
    last = frozen_layers(settings, trainings[0].job.variables["params"])
    if not last:
        return settings, feed
    wave = programs.wave
    used = np.unique(
        [r for t in trainings for r in (*t.job.train, *t.job.unlabelled, *t.job.validation)]
    )
    program = programs.features(settings.step.spec, last)
    variables = wave.stack([training.state.state.variables for training in trainings])
    rows = padded_rows([used] * len(trainings), wave)
    features: list[np.ndarray] = []
    budget = hosts.agreed(lambda: fold_budget(wave, feed.held))
    for i, (volumes, places) in enumerate(feed.batches(rows, wave)):
        part = wave.on_every_host(program(variables, volumes, places))
        features = features or _room(part, len(used), last)
        first = i * part.shape[1]
        for own, found in zip(features, part, strict=True):
            own[first : first + len(found)] = found[: len(own) - first]
    seen = PerFold if features[0].nbytes <= budget else StreamedPerFold
    return with_step(settings, first=last + 1), seen(features, used)


def _room(batch: np.ndarray, scans: int, last: int) -> list[np.ndarray]:
    """Returns an empty array (scans, X, Y, Z, C) for each fold of a (fold, N, X, Y, Z, C) batch.

    Raises:
      UserError: The host has no memory for them.
    """
    folds, size = batch.shape[:2]
    needed, free = batch.nbytes // size * scans, available_memory()
    if needed > free:
        raise UserError(
            f"memory: the output of conv layer {last}, whose layers stay frozen, takes "
            f"{needed / 2**30:.1f} GiB for {counted(scans, 'scan')} in {counted(folds, 'fold')}; "
            f"this machine has {free / 2**30:.1f} GiB free"
        )
    return [aligned((scans, *batch.shape[2:]), batch.dtype) for _ in range(folds)]
