"""Features of a frozen prefix, computed once a volume: tuning then trains on them.

A prefix that keeps its parameters and its statistics gives the same features every time a volume is
seen, unless volumes are augmented. The result is that of training on the volumes, up to the order
of additions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_jax.training.feed import Feed, PerFold
from mri_jax.training.folds import Programs
from mri_jax.training.freezing import frozen_prefix, trainable_mask
from mri_jax.training.inference import padded_rows
from mri_jax.training.loop import FitSettings, Training, with_step


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
      settings: Of the trainings.
      trainings: One a fold; the prefix is the same in all states of a training.
      feed: The volumes.
      programs: Of the wave.

    Returns:
      Settings and feed with which the trainings give the same; those given where no prefix is
      frozen.
    """
    last = frozen_layers(settings, trainings[0].job.variables["params"])
    if not last:
        return settings, feed
    wave = programs.wave
    used = np.unique([r for t in trainings for r in (*t.job.train, *t.job.validation)])
    program = programs.features(settings.step.spec, last)
    variables = wave.stack([training.state.state.variables for training in trainings])
    rows = padded_rows([used] * len(trainings), wave)
    parts = [
        np.asarray(program(variables, volumes, places))
        for volumes, places in feed.batches(rows, wave)
    ]
    features = np.concatenate(parts, axis=1)[:, : len(used)]
    return with_step(settings, first=last + 1), PerFold(list(features), used)
