"""Attribution by region: a row a volume, then intervals and tests over subjects."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from mri_jax.evaluation.intervals import RESAMPLES, percentile_interval
from mri_jax.explanation.regions import Regions
from mri_jax.seeding import generator

MEASURES = ("signed", "absolute", "share", "density")


def region_rows(values: np.ndarray, regions: Regions, brain: np.ndarray) -> pd.DataFrame:
    """Returns what each region holds of one map.

    Args:
      values: (X, Y, Z) attributions.
      regions: On the same grid.
      brain: (X, Y, Z) bool.

    Returns:
      ``region``, ``voxels``, ``signed`` (sum), ``absolute`` (sum of absolute values), ``share``
      (absolute, as a share of the whole map's) and ``density`` (that share over the region's share
      of the brain's voxels: 1 is what chance gives).
    """
    flat, size = regions.labels.ravel(), max(regions.names) + 1
    counts = np.bincount(flat, minlength=size)
    signed = np.bincount(flat, values.ravel(), size)
    absolute = np.bincount(flat, np.abs(values).ravel(), size)
    total, room = float(np.abs(values).sum(dtype=np.float64)), int(np.count_nonzero(brain))
    labels = list(regions.names)
    voxels = counts[labels]
    share = absolute[labels] / total if total > 0 else np.full(len(labels), np.nan)
    return pd.DataFrame(
        {
            "region": list(regions.names.values()),
            "voxels": voxels,
            "signed": signed[labels],
            "absolute": absolute[labels],
            "share": share,
            "density": share / (voxels / room),
        }
    )


def region_summary(table: pd.DataFrame, classes: tuple[str, str], seed: int) -> pd.DataFrame:
    """Means, intervals and tests over subjects for each (stage, method, region).

    Intervals: percentile bootstrap over subjects within their class (expanded percentiles, see
    `mri_jax.evaluation.intervals`). Tests: `p_difference`, signed attribution of the two classes
    (Mann-Whitney); `p_density`, density against 1 over all subjects (Wilcoxon's signed ranks of
    the log). ``q_...`` control the false-discovery rate over the regions of one stage and method
    (Benjamini and Hochberg 1995).

    Args:
      table: Rows of `region_rows` with ``stage``, ``method``, ``subject_id`` and ``diagnosis``.
      classes: Negative and positive diagnosis.
      seed: Seed of the bootstrap.
    """
    keys = ["stage", "method", "region"]
    subjects = (
        table.groupby([*keys, "subject_id", "diagnosis"], sort=False)[list(MEASURES)]
        .mean()
        .reset_index()
    )
    rows = []
    for (stage, method, region), group in subjects.groupby(keys, sort=False):
        negative, positive = (group[group["diagnosis"] == name] for name in classes)
        named = {"stage": stage, "method": method, "region": region}
        rows.append({**named, **_region(negative, positive, classes, seed)})
    summary = pd.DataFrame(rows)
    for name in ("difference", "density"):
        families = summary.groupby(["stage", "method"], sort=False)[f"p_{name}"]
        summary[f"q_{name}"] = families.transform(lambda p: false_discovery(p.to_numpy()))
    return summary


def _region(
    negative: pd.DataFrame, positive: pd.DataFrame, classes: tuple[str, str], seed: int
) -> dict[str, object]:
    row: dict[str, object] = {}
    drawn = {}
    for name, group in zip(classes, (negative, positive), strict=True):
        row[f"n_{name}"] = len(group)
        for measure in ("signed", "absolute", "density"):
            values = group[measure].to_numpy(float)
            draws = bootstrap_means(values, seed, name)
            drawn[name, measure] = draws
            low, high = interval(values, draws)
            mean = float(values.mean()) if len(values) else float("nan")
            row |= {f"{measure}_{name}": mean, f"{measure}_{name}_low": low}
            row[f"{measure}_{name}_high"] = high
    below, above = negative["signed"].to_numpy(float), positive["signed"].to_numpy(float)
    change = above.mean() - below.mean() if len(above) and len(below) else float("nan")
    draws = drawn[classes[1], "signed"] - drawn[classes[0], "signed"]
    found = percentile_interval(change, draws, min(len(above), len(below)))
    row |= {"difference": change, "difference_low": found.low, "difference_high": found.high}
    row["p_difference"] = mann_whitney(above, below)
    row["p_density"] = signed_ranks(pd.concat([negative, positive])["density"].to_numpy(float))
    return row


def bootstrap_means(values: np.ndarray, seed: int, name: str) -> np.ndarray:
    """Returns (B,) means of resampled subjects; the same subjects are drawn for every region."""
    if not len(values):
        return np.full(RESAMPLES, np.nan)
    random = generator(seed, "explain", "bootstrap", name)
    weights = random.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    return weights @ values / len(values)


def interval(values: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Returns the 95% limits of a mean, NaN where there are none."""
    centre = float(values.mean()) if len(values) else float("nan")
    found = percentile_interval(centre, draws, len(values))
    return found.low, found.high


def mann_whitney(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p; NaN with fewer than two on a side."""
    if min(len(first), len(second)) < 2:
        return float("nan")
    return float(stats.mannwhitneyu(first, second).pvalue)


def signed_ranks(density: np.ndarray) -> float:
    """Two-sided p of log density against 0; NaN with fewer than six subjects."""
    usable = density[np.isfinite(density) & (density > 0)]
    if len(usable) < 6:
        return float("nan")
    return float(stats.wilcoxon(np.log(usable)).pvalue)


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p values; NaN stays NaN and is no part of the family."""
    adjusted = np.full(len(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted


def subject_interval(values: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Returns the mean of one value a subject, and its bootstrap limits."""
    array = np.asarray(values, float)
    low, high = interval(array, bootstrap_means(array, seed, "all"))
    return float(array.mean()) if len(array) else float("nan"), low, high
