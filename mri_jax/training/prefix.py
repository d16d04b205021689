"""Features of a frozen prefix, computed once a volume: tuning then trains on them.

A prefix that keeps its parameters and its statistics gives the same features every time a volume is
seen, unless volumes are augmented. The result is that of training on the volumes, up to the order
of additions.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from jax import Array

from mri_jax.models import CNN, CNNSpec
from mri_jax.training.feed import Feed, PerFold
from mri_jax.training.folds import EVALUATION, Wave, mapped
from mri_jax.training.freezing import frozen_prefix, trainable_mask
from mri_jax.training.loop import FitSettings, Job, Progressed, padded_rows, with_step


def frozen_layers(settings: FitSettings, params: Any) -> int:
    """How many conv layers at the input can be computed once and for all."""
    if settings.step.frozen_statistics != "keep" or not settings.augment.off:
        return 0
    return frozen_prefix(trainable_mask(settings.step.rules, params), settings.step.spec)


def on_features(
    settings: FitSettings,
    jobs: Sequence[Job],
    states: Sequence[Progressed],
    feed: Feed,
    wave: Wave,
) -> tuple[FitSettings, list[Job], Feed]:
    """The same training on the features of the frozen prefix, where there is one.

    Args:
      settings: Of the training.
      jobs: One a fold of the wave.
      states: Their states; the prefix is the same in all states of a job.
      feed: The volumes.
      wave: The devices.

    Returns:
      Settings, jobs and feed to train with; those given where no prefix is frozen.
    """
    last = frozen_layers(settings, jobs[0].variables["params"])
    if not last:
        return settings, list(jobs), feed
    used = sorted({int(r) for job in jobs for r in (*job.train, *job.validation)})
    program = feature_program(settings.step.spec, last, wave)
    variables = wave.stack([state.state.variables for state in states])
    parts = []
    rows = padded_rows([np.array(used)] * len(jobs), wave.whole(settings.evaluation_batch))
    for volumes, batch in feed.batches(rows, wave):
        parts.append(np.asarray(program(variables, volumes, batch)))
    features = np.concatenate(parts, axis=1)[:, : len(used)]
    place = np.zeros(max(used) + 1, int)
    place[used] = np.arange(len(used))
    moved = [
        replace(
            job,
            train=place[job.train],
            validation=place[job.validation],
            labels=job.labels[used],
            weights=job.weights[used],
        )
        for job in jobs
    ]
    return with_step(settings, first=last + 1), moved, PerFold(list(features))


@cache
def feature_program(spec: CNNSpec, last: int, wave: Wave) -> Any:
    """The mapped program ``(variables, volumes, rows) -> output of conv layer last``."""

    def run(variables: Any, volumes: Array, rows: Array) -> Array:
        return CNN(spec).apply(variables, volumes[rows], train=False, last=last, method="trunk")

    return mapped(run, wave, EVALUATION)
