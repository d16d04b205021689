"""Which field of a search its objective depends on, and how well so few trials can tell.

A field's importance is the share of the objective's variance that the field alone explains: the
groups of its values, or a parabola through its numbers (of their logarithm where they were drawn
so). It is adjusted for the number of groups or coefficients (Wherry 1931), so that a field that
does not matter has 0 in the mean, and may have less. The interval comes from half-samples (the
delete-half jackknife, Shao and Wu 1989, doi:10.1214/aos/1176347263), the p-value from permuting the
objective.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HALVES, PERMUTATIONS = 400, 2000
LEAST = 8
"""With fewer trials nothing is said of a field."""


@dataclass(frozen=True)
class Importance:
    """How much of an objective a field explains.

    Attributes:
      field: Its name.
      trials: In how many trials it was drawn.
      share: Adjusted share of the variance; NaN where trials are too few.
      low: Lower limit of the 95% interval.
      high: Upper limit.
      p: Of no dependence, by permutation.
    """

    field: str
    trials: int
    share: float
    low: float
    high: float
    p: float


def importance(
    field: str,
    values: Sequence[str] | np.ndarray,
    objective: np.ndarray,
    numeric: bool,
    rng: np.random.Generator,
) -> Importance:
    """Returns the importance of a field.

    Args:
      field: Its name.
      values: (N,) numbers, or texts of a choice, of the trials in which it was drawn.
      objective: (N,) of these trials.
      numeric: Whether the values are numbers.
      rng: Draws half-samples and permutations.
    """
    y, n = np.asarray(objective, float), len(objective)
    nothing = Importance(field, n, *(float("nan"),) * 4)
    if n < LEAST:
        return nothing
    design = _numbers(np.asarray(values, float)) if numeric else _groups(list(map(str, values)))
    if design.shape[1] < 2 or np.ptp(y) == 0:
        return nothing
    (share,) = _adjusted(design, y[None])
    halves = [_adjusted(design[rows], y[None, rows])[0] for rows in _halves(n, rng)]
    spread = 1.96 * float(np.nanstd(halves))
    permuted = _adjusted(design, rng.permuted(np.tile(y, (PERMUTATIONS, 1)), axis=1))
    p = float((1 + (permuted >= share - 1e-12).sum()) / (1 + PERMUTATIONS))
    return Importance(field, n, share, share - spread, min(1.0, share + spread), p)


def _halves(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.permutation(n)[: n // 2] for _ in range(HALVES)]


def _numbers(values: np.ndarray) -> np.ndarray:
    """Returns (N, 3) of a parabola; fewer columns of fewer values."""
    spread = np.ptp(values)
    scaled = (values - values.mean()) / (spread if spread else 1.0)
    return np.stack([scaled**k for k in range(min(3, len(set(values.tolist()))))], axis=1)


def _groups(values: Sequence[str]) -> np.ndarray:
    """Returns (N, G) of which group each value is in."""
    names = sorted(set(values))
    return np.array([[value == name for name in names] for value in values], float)


def _adjusted(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the adjusted share of the variance of each row of ``y`` that a design explains.

    Args:
      design: (N, K) a column a coefficient, which together span the constant.
      y: (P, N).

    Returns:
      (P,) shares; NaN where nothing varies or nothing is left.
    """
    left, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, sizes > 1e-9 * sizes[0]]
    n, rank = basis.shape
    centred = y - y.mean(axis=1, keepdims=True)
    total = (centred**2).sum(axis=1)
    rest = total - ((centred @ basis) ** 2).sum(axis=1)
    if n <= rank:
        return np.full(len(y), np.nan)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, 1 - (rest / (n - rank)) / (total / (n - 1)), np.nan)


def on_front(values: np.ndarray, signs: Sequence[int]) -> np.ndarray:
    """Returns which of some points no other one is at least as good as in all, and better in one.

    Args:
      values: (N, K) a row a point.
      signs: 1 where more is better, else -1.

    >>> on_front(np.array([[0.9, 5], [0.8, 2], [0.7, 3], [0.9, 5]]), (1, -1)).tolist()
    [True, True, False, True]
    """
    better = np.asarray(values, float) * np.asarray(signs, float)
    at_least = (better[:, None] >= better[None]).all(axis=2)
    more = (better[:, None] > better[None]).any(axis=2)
    return ~(at_least & more).any(axis=0)
