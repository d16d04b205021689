"""BatchNorm's statistics of a network, estimated anew on scans of another site.

Li et al. 2016, "Revisiting batch normalization for practical domain adaptation" (AdaBN): the
parameters stay, and mean and variance of every feature map become those of the other site.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mri_jax.training.feed import Feed
from mri_jax.training.folds import EVALUATION_BATCH, Programs
from mri_jax.training.step import StepSettings


def reestimated(
    step: StepSettings, variables: Any, rows: Sequence[np.ndarray], feed: Feed, programs: Programs
) -> list[dict[str, Any]]:
    """Returns the statistics of each network on scans, in one pass over them.

    Scans go through in batches of nearly one size, each scan once. In a batch every layer sees
    what the layers before it make of that batch with its own statistics, as in training; the
    moments of the batches are pooled, the spread of their means included.

    Args:
      step: Says which network.
      variables: Stacked, as from `Wave.stack`.
      rows: (N,) scans for each network, as rows of the catalogue; as many for each.
      feed: The volumes.
      programs: Programs of a wave that does not split batches.

    Returns:
      ``{"bn1": {"mean", "var", "count"}, ...}`` of NumPy for each network.
    """
    program = programs.moments(step.spec)
    found: list[tuple[int, Any]] = []
    for part in _batches(np.stack(rows)):
        for volumes, places in feed.batches(part, programs.wave):
            found.append((part.shape[2], programs.wave.fetch(program(variables, volumes, places))))
    sizes = np.array([size for size, _ in found])
    return [
        {
            norm: {
                **_pooled([made[fold][norm] for _, made in found], sizes),
                "count": np.asarray(len(found), np.int32),
            }
            for norm in found[0][1][fold]
        }
        for fold in range(len(rows))
    ]


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields (fold, batches, size) of (fold, N) scans: first the larger batches, by one scan."""
    folds, scans = rows.shape
    number = -(-scans // EVALUATION_BATCH)
    size, larger = divmod(scans, number)
    cut = larger * (size + 1)
    for part, width in ((rows[:, :cut], size + 1), (rows[:, cut:], size)):
        if part.size:
            yield part.reshape(folds, -1, width).astype(np.int32)


def _pooled(moments: Sequence[dict[str, np.ndarray]], sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Returns mean and variance of all scans, from those of batches of some sizes."""
    means, variances = (
        np.stack([each[name] for each in moments]).astype(float) for name in ("mean", "var")
    )
    mean = np.average(means, axis=0, weights=sizes)
    variance = np.average(variances + (means - mean) ** 2, axis=0, weights=sizes)
    dtype = moments[0]["mean"].dtype
    return {"mean": mean.astype(dtype), "var": variance.astype(dtype)}
