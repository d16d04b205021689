"""What the networks of a wave say of scans, and its cross-entropy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mri_jax.interruption import Interrupted
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
    program = programs.evaluate(step.spec, step.first)
    return [made for (made,) in _of_scans(program, variables, rows, feed, programs)]


def outputs(
    step: StepSettings,
    variables: Any,
    rows: Sequence[np.ndarray],
    feed: Feed,
    programs: Programs,
    stop: Callable[[], bool],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns logits and penultimate features of each network for its scans.

    Args:
      step: As for `predict`.
      variables: As there.
      rows: As there.
      feed: As there.
      programs: As there.
      stop: Whether to end before the next batch.

    Returns:
      (N_i, classes) and (N_i, F) float32 for each network.

    Raises:
      Interrupted: ``stop`` said so.
    """
    found = _of_scans(programs.outputs(step.spec), variables, rows, feed, programs, stop)
    return [(logits, features) for logits, features in found]


def _of_scans(
    program: Any,
    variables: Any,
    rows: Sequence[np.ndarray],
    feed: Feed,
    programs: Programs,
    stop: Callable[[], bool] = lambda: False,
) -> list[list[np.ndarray]]:
    """Returns the arrays that a program makes of each network's scans, batch by batch."""
    wave, found = programs.wave, list[Any]()
    for volumes, places in feed.batches(padded_rows(rows, wave), wave):
        if stop():
            raise Interrupted
        found.append(program(variables, volumes, places))
        if len(found) > 1:
            jax.block_until_ready(found[-2])
    parts = [jax.tree.leaves(wave.on_every_host(part)) for part in found]
    whole = [np.concatenate(each, axis=1) for each in zip(*parts, strict=True)]
    return [[each[i, : len(r)] for each in whole] for i, r in enumerate(rows)]


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
