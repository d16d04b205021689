"""Why an interval is missing, in words: nothing that a reader sees is ever "nan"."""

import numpy as np

SINGLE = "a single network"


def undefined(positive: int, negative: int) -> str:
    """Returns why a score has no value."""
    return f"undefined: {positive} positive and {negative} negative subjects"


def without_interval(metric: str, estimate: float, low: float, counts: tuple[int, int]) -> str:
    """Returns why an estimate over these subjects has no interval; empty where it has one.

    Args:
      metric: One of `mri_jax.evaluation.metrics.METRICS`.
      estimate: A fraction; NaN where undefined.
      low: Lower limit; NaN where missing.
      counts: Positive and negative subjects.
    """
    if not np.isnan(low):
        return ""
    positive, negative = counts
    if np.isnan(estimate):
        return undefined(positive, negative)
    needed = {"sen": (positive,), "spe": (negative,), "acc": (positive + negative,)}
    if min(needed.get(metric, counts)) < 2:
        return "a class has a single subject"
    if metric == "auc" and estimate in (0.0, 1.0):
        return "perfect separation" if estimate == 1.0 else "perfect separation, reversed"
    if estimate in (0.0, 1.0):
        return "all decided right" if estimate == 1.0 else "all decided wrong"
    return "no variance"
