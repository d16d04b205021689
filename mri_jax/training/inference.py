"""Logits of the networks of a wave, and their cross-entropy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_jax.training.feed import Feed
from mri_jax.training.folds import EVALUATION_BATCH, Programs
from mri_jax.training.step import StepSettings
from mri_jax.training.wave import Wave


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
    """Returns the mean cross-entropy in float64; NaN where a logit is not finite.

    Args:
      logits: (N, classes).
      label: (N,) from 0.
    """
    if not np.isfinite(logits).all():
        return float("nan")
    wide = logits.astype(float)
    above = wide - np.take_along_axis(wide, np.asarray(label)[:, None], axis=1)
    return float(np.logaddexp.reduce(above, axis=1).mean())


def predict(
    step: StepSettings, variables: Any, rows: Sequence[np.ndarray], feed: Feed, programs: Programs
) -> list[np.ndarray]:
    """Returns the logits of each network for its scans.

    Args:
      step: Says which network, and from which layer.
      variables: Stacked, as from `Wave.stack`.
      rows: (N_i,) scans for each network, as rows of the catalogue.
      feed: The volumes.
      programs: Programs of the wave.

    Returns:
      (N_i, classes) float32 for each network.
    """
    return _of_scans(programs.evaluate(step.spec, step.first), variables, rows, feed, programs)


def features(
    step: StepSettings, variables: Any, rows: Sequence[np.ndarray], feed: Feed, programs: Programs
) -> list[np.ndarray]:
    """Returns the penultimate features of each network for its scans, (N_i, F) float32 each.

    Arguments are those of `predict`.
    """
    return _of_scans(programs.penultimate(step.spec), variables, rows, feed, programs)


def _of_scans(
    program: Any, variables: Any, rows: Sequence[np.ndarray], feed: Feed, programs: Programs
) -> list[np.ndarray]:
    """Returns what a program makes of each network's scans, batch by batch."""
    found = []
    for volumes, places in feed.batches(padded_rows(rows, programs.wave), programs.wave):
        found.append(program(variables, volumes, places))
        if len(found) > 1:
            found[-2].block_until_ready()
    whole = np.concatenate([programs.wave.on_every_host(part) for part in found], axis=1)
    return [whole[i, : len(r)] for i, r in enumerate(rows)]


def padded_rows(rows: Sequence[np.ndarray], wave: Wave) -> np.ndarray:
    """Returns the scans of each fold in batches, the last filled up with the fold's first scan.

    Evaluation treats volumes one by one, so what fills a batch changes nothing.

    Returns:
      (fold, batches, size) int32.
    """
    size = wave.whole(EVALUATION_BATCH)
    longest = -(-max(len(r) for r in rows) // size) * size
    filled = [np.concatenate([r, np.full(longest - len(r), r[0])]) for r in rows]
    return np.stack(filled).reshape(len(rows), -1, size).astype(np.int32)
