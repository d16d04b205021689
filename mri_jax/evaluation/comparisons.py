"""Differences between methods: paired tests on the same subjects, and what the paper did."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from mri_jax import seeding
from mri_jax.errors import UserError
from mri_jax.evaluation import intervals
from mri_jax.evaluation.scores import Scores, estimate
from mri_jax.problems import counted

PERMUTATIONS = 2000
NAN = float("nan")
Thresholds = tuple[np.ndarray | None, np.ndarray | None]


@dataclass(frozen=True)
class Effect:
    """An effect with its interval and the p-value beside it; NaN where it cannot be had.

    Attributes:
      effect: What the test is about (see each function).
      low: Lower 95% limit.
      high: Upper 95% limit.
      statistic: Statistic of the test.
      p: Two-sided (one-sided for F).
    """

    effect: float
    low: float
    high: float
    statistic: float
    p: float


def aligned(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """Checks that both methods stand for the same subjects, labels and networks; returns both.

    Raises:
      UserError: The methods were tested on different subjects or labels, or have different
        networks (folds and repeats); the difference is named.
    """
    only_first = np.setdiff1d(first.scan, second.scan)
    only_second = np.setdiff1d(second.scan, first.scan)
    if len(only_first) or len(only_second):
        raise UserError(
            f"not comparable: {counted(len(only_first), 'scan was', 'scans were')} tested by the "
            f"first method only and {len(only_second)} by the second only"
        )
    if (first.label != second.label).any():
        raise UserError("not comparable: a scan is labelled differently in the two methods")
    if not np.array_equal(first.tested, second.tested):
        raise UserError("not comparable: the networks of the two methods were tested differently")
    return first, second


def permutation(
    metric: str,
    first: Scores,
    second: Scores,
    threshold: Thresholds = (None, None),
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Effect:
    """Paired permutation test of the mean over networks, with an interval of the difference.

    Under the null hypothesis the two methods are exchangeable within each subject; a subject swaps
    all its networks' results together. For the AUC ranks within each network are swapped, so that
    the methods need no common scale (Venkatraman and Begg 1996, doi:10.1093/biomet/83.4.835).

    Args:
      metric: One of `METRICS`.
      first: The first method.
      second: The second, on the same subjects and networks.
      threshold: (J,) of either method on the logit difference; argmax by default.
      seed: Seed of the permutations.
      permutations: How many are drawn; p is (hits + 1) / (permutations + 1).

    Returns:
      First minus second, interval A of the difference (DeLong's variance for the AUC, stratified
      bootstrap for the rates), and p. p is NaN where no subject differs.
    """
    first, second = aligned(first, second)
    one, two = estimate(metric, first, threshold[0]), estimate(metric, second, threshold[1])
    difference = float(one.value.mean() - two.value.mean())
    if np.isnan(difference):
        return Effect(NAN, NAN, NAN, NAN, NAN)
    influence = one.influence.mean(axis=0) - two.influence.mean(axis=0)
    low, high = _limits(metric, (first, second), threshold, influence, difference, seed)
    random = seeding.generator(seed, "permutation", metric)
    if metric == "auc":
        drawn = _permuted_auc(first, second, random, permutations)
    else:
        drawn = _permuted_rate(metric, first, second, threshold, random, permutations)
    if drawn is None:
        return Effect(difference, low, high, NAN, NAN)
    hits = int((np.abs(drawn) >= abs(difference) - 1e-12).sum())
    return Effect(difference, low, high, difference, (hits + 1) / (permutations + 1))


def _limits(
    metric: str,
    pair: tuple[Scores, Scores],
    threshold: Thresholds,
    influence: np.ndarray,
    difference: float,
    seed: int,
) -> tuple[float, float]:
    """Returns interval A of the difference of two methods whose per-subject influence is (N,)."""
    first, second = pair
    if metric == "auc":
        variance = float((influence**2).sum())
        if not variance > 1e-18:
            return NAN, NAN
        half = float(stats.norm.ppf(0.5 + intervals.LEVEL / 2) * np.sqrt(variance))
        return difference - half, difference + half
    decided = [intervals.decisions(s, t) for s, t in zip(pair, threshold, strict=True)]
    drawn = intervals.resample(_stacked(first, second), np.concatenate(decided), seed)
    values, count = drawn.metric(metric), len(first.score)
    change = values[:, :count].mean(axis=1) - values[:, count:].mean(axis=1)
    interval = intervals.percentile_interval(difference, change, drawn.size(metric))
    return interval.low, interval.high


def _stacked(first: Scores, second: Scores) -> Scores:
    return Scores(
        first.label,
        np.concatenate([first.score, second.score]),
        np.concatenate([first.tested, second.tested]),
        np.concatenate([first.fold, second.fold]),
        np.concatenate([first.repeat, second.repeat]),
        first.scan,
    )


def _permuted_rate(
    metric: str,
    first: Scores,
    second: Scores,
    threshold: Thresholds,
    random: np.random.Generator,
    permutations: int,
) -> np.ndarray | None:
    """Returns (P,) differences where random subjects swap their methods, as sign flips."""
    right = [
        (intervals.decisions(s, t) == (s.label == 1)).astype(float) * s.tested
        for s, t in zip((first, second), threshold, strict=True)
    ]
    part = np.zeros(len(first.label))
    m_of, n_of = ((first.tested & (first.label == value)).sum(axis=1)[:, None] for value in (1, 0))
    share = {"sen": (1, 0), "spe": (0, 1), "bac": (0.5, 0.5)}
    for place, (value, size) in enumerate(((1, m_of), (0, n_of))):
        weight = size / (m_of + n_of) if metric == "acc" else share[metric][place]
        change = weight * (right[0] - right[1]) / np.maximum(size, 1)
        part += np.where(first.label == value, change.mean(axis=0), 0.0)
    part = part[part != 0.0]
    if not len(part):
        return None
    drawn = np.empty(permutations)
    for start in range(0, permutations, 250):
        stop = min(start + 250, permutations)
        signs = 1.0 - 2.0 * random.integers(0, 2, (stop - start, len(part)), dtype=np.int8)
        drawn[start:stop] = signs @ part
    return drawn


def _permuted_auc(
    first: Scores, second: Scores, random: np.random.Generator, permutations: int
) -> np.ndarray | None:
    """Returns (P,) differences of the mean AUC with ranks swapped within subjects, by counting."""
    one, two = _double_ranks(first), _double_ranks(second)
    differs = (one != two).any(axis=0)
    if not differs.any():
        return None
    positive, tested = first.label == 1, first.tested
    pairs = (tested & positive).sum(axis=1) * (tested & ~positive).sum(axis=1)
    drawn = np.empty(permutations)
    batch = max(1, 500_000 // one.size)
    for start in range(0, permutations, batch):
        stop = min(start + batch, permutations)
        swap = random.integers(0, 2, (stop - start, 1, len(positive)), dtype=np.int8).astype(bool)
        left, right = np.where(swap, two, one), np.where(swap, one, two)
        wins = _wins(left, tested, positive) - _wins(right, tested, positive)
        drawn[start:stop] = (wins / pairs).mean(axis=1)
    return drawn


def _double_ranks(scores: Scores) -> np.ndarray:
    """Returns (J, N) twice the midrank among the tested, an integer from 2; 0 where not tested."""
    ranks = np.zeros(scores.score.shape, np.int64)
    for row, score, tested in zip(ranks, scores.score, scores.tested, strict=True):
        row[tested] = np.rint(2 * stats.rankdata(score[tested]))
    return ranks


def _wins(ranks: np.ndarray, tested: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Counts (P, J) pairs whose positive ranks higher, ties one half; ``ranks`` is (P, J, N)."""
    rows, width = ranks.shape[0] * ranks.shape[1], 2 * ranks.shape[2] + 1
    flat = ranks.reshape(rows, -1) + width * np.arange(rows)[:, None]
    of_negative = np.tile(tested & ~positive, (ranks.shape[0], 1))
    histogram = np.bincount(flat[of_negative], minlength=rows * width).reshape(rows, width)
    below = (np.cumsum(histogram, axis=1) - 0.5 * histogram).reshape(-1)
    won = np.where(np.tile(tested & positive, (ranks.shape[0], 1)), below[flat], 0.0)
    return won.sum(axis=1).reshape(ranks.shape[:2])


def mcnemar(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> Effect:
    """McNemar's exact test of two classifiers' decisions on the same subjects.

    Args:
      label: (N,) 0 or 1.
      first: (N,) bool decisions, e.g. of the first method's ensemble.
      second: (N,) bool decisions of the second's.

    Returns:
      The odds ratio (first right and second wrong, over the reverse) with its exact interval, the
      smaller discordant count, and p. NaN where the two never differ.
    """
    right = [np.asarray(d, bool) == (np.asarray(label) == 1) for d in (first, second)]
    gained, lost = (int((a & ~b).sum()) for a, b in (right, right[::-1]))
    if gained + lost == 0:
        return Effect(NAN, NAN, NAN, 0.0, NAN)
    test = stats.binomtest(gained, gained + lost)
    limits = test.proportion_ci(0.95, method="exact")
    shares = (gained / (gained + lost), limits.low, limits.high)
    odds = [float(x / (1 - x)) if x < 1 else np.inf for x in shares]
    return Effect(odds[0], odds[1], odds[2], float(min(gained, lost)), float(test.pvalue))


def corrected_t(difference: np.ndarray) -> Effect:
    """Nadeau and Bengio's corrected resampled t-test on per-fold differences.

    For folds of the source, where each test set is another method's training data (2003,
    doi:10.1023/A:1024068626366).

    Args:
      difference: (K,) first minus second, a value a fold.

    Returns:
      The mean difference with its 95% interval, t and p on K - 1 degrees of freedom; NaN with one
      fold or without variance.
    """
    difference = np.asarray(difference, float)
    count, mean = len(difference), float(np.mean(difference))
    if count < 2 or np.isnan(difference).any() or np.var(difference) < 1e-24:
        return Effect(mean, NAN, NAN, NAN, NAN)
    share = 1 / count
    error = np.sqrt((1 / count + share / (1 - share)) * np.var(difference, ddof=1))
    half = stats.t.ppf(0.975, count - 1) * error
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Effect(mean, mean - half, mean + half, mean / error, p)


def anova(means: Sequence[float], sds: Sequence[float], counts: Sequence[int]) -> Effect:
    """One-way ANOVA from means and SDs: the paper's test, which takes folds as independent.

    Args:
      means: Mean of each method, e.g. of four depths.
      sds: SD (n - 1) of each method over its networks.
      counts: Networks of each method.

    Returns:
      Eta squared with its 95% interval (non-central F), F and p; NaN without variance.

    Example:
      >>> found = anova([85.1, 85.9], [1.3, 1.0], [5, 5])
      >>> round(found.statistic, 2), round(found.p, 2)
      (1.19, 0.31)
    """
    mean, sd, n = (np.asarray(v, float) for v in (means, sds, counts))
    if not len(mean) == len(sd) == len(n) >= 2:
        raise UserError("anova: means, SDs and counts must be equal in number, and at least two")
    total, groups = n.sum(), len(mean)
    grand = (n * mean).sum() / total
    between, within = (n * (mean - grand) ** 2).sum(), ((n - 1) * sd**2).sum()
    if not within > 1e-12 * between or within == 0.0 or np.isnan(between):
        return Effect(NAN, NAN, NAN, NAN, NAN)
    df1, df2 = groups - 1, total - groups
    f = (between / df1) / (within / df2)
    low, high = (
        _noncentral(f, df1, df2, tail) if f < 1e4 else NAN for tail in (0.975, 0.025)
    )  # beyond that SciPy's non-central F is not reliable, and eta squared is 1
    eta = [float(between / (between + within)), low / (low + total), high / (high + total)]
    return Effect(eta[0], eta[1], eta[2], float(f), float(stats.f.sf(f, df1, df2)))


def _noncentral(f: float, df1: float, df2: float, tail: float) -> float:
    """Returns the non-centrality at which F exceeds ``f`` with probability ``1 - tail``, or 0."""

    def gap(nc: float) -> float:
        return float(stats.ncf.cdf(f, df1, df2, nc) - tail)

    if stats.f.cdf(f, df1, df2) <= tail:
        return 0.0
    high = 10.0
    while gap(high) > 0:
        high *= 2
    return float(optimize.brentq(gap, 1e-9, high))


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjustment within one family; NaN stays NaN and does not count.

    statsmodels has it too, but takes seconds to import, and a third of a report's time to collect
    garbage at every call; the tests hold this one against it.
    """
    known = p.astype(float).dropna().sort_values(kind="stable")
    stepped = known * np.arange(len(known), 0, -1)
    return stepped.cummax().clip(upper=1.0).reindex(p.index)
