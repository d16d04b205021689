"""Intervals: what is estimated, and how sure it is.

A: these very networks, on new subjects. B: new subjects and retrained networks. The SD over
networks that share a test set estimates neither.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mri_jax import seeding
from mri_jax.evaluation.delong import ROUNDING, Interval, logit_interval
from mri_jax.evaluation.scores import Estimates, Scores, estimate

LEVEL = 0.95
RESAMPLES = 2000


def wilson(successes: int, total: int) -> Interval:
    """Wilson's interval of a single network's proportion (ACC, SEN or SPE); NaN when n is 0."""
    if total == 0:
        return Interval(float("nan"), float("nan"), float("nan"), LEVEL)
    found = stats.binomtest(successes, total).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / total, float(found.low), float(found.high), LEVEL)


@dataclass(frozen=True)
class Resampled:
    """Class-stratified bootstrap distributions of the rates of J networks.

    Attributes:
      sen: (B, J).
      spe: (B, J).
      counts: Positives and negatives.
    """

    sen: np.ndarray
    spe: np.ndarray
    counts: tuple[int, int]

    def metric(self, name: str) -> np.ndarray:
        """Returns (B, J) draws of ``acc``, ``bac``, ``sen`` or ``spe``."""
        m, n = self.counts
        # The share of a class of nobody is NaN, and has no part in the accuracy.
        right = sum(count * share for count, share in ((m, self.sen), (n, self.spe)) if count)
        return {
            "sen": self.sen,
            "spe": self.spe,
            "bac": (self.sen + self.spe) / 2,
            "acc": np.asarray(right) / (m + n),
        }[name]

    def size(self, name: str) -> int:
        """Returns how many subjects a metric rests on; for BAC those of the smaller class."""
        m, n = self.counts
        return {"sen": m, "spe": n, "bac": min(m, n), "acc": m + n}[name]


def resample(
    scores: Scores,
    decision: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Draw subjects with replacement within their class; a subject takes all networks along.

    Where networks have different test sets (held-out folds, fine-tuning fifths), subjects are also
    drawn within the set of networks that were tested on them, so every test set keeps its size.
    Subjects on whom all networks decide alike are exchangeable, so the counts of distinct decision
    patterns are drawn (multinomial) instead of subjects: the same distribution, at a cost that
    does not grow with N.

    Args:
      scores: Scores of J networks; gives labels and who was tested.
      decision: (J, N) bool, positive decided.
      seed: Seed of the draws.
      resamples: B.
    """
    draws = []
    for name, value in (("positive", 1), ("negative", 0)):
        members = scores.label == value
        right = (decision == bool(value))[:, members]
        random = seeding.generator(seed, "bootstrap", name)
        draws.append(_drawn_shares(right, scores.tested[:, members], random, resamples))
    return Resampled(draws[0], draws[1], scores.counts)


def _drawn_shares(
    right: np.ndarray, tested: np.ndarray, random: np.random.Generator, resamples: int
) -> np.ndarray:
    """Returns (B, J) shares of right decisions in one class; NaN for a network without it."""
    hits = np.zeros((resamples, len(right)))
    sets, member = np.unique(tested, axis=1, return_inverse=True)
    for index in range(sets.shape[1]):
        inside = right[:, member.reshape(-1) == index] & sets[:, index : index + 1]
        patterns, counts = np.unique(inside, axis=1, return_counts=True)
        weights = random.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
        hits += weights @ patterns.T
    total = tested.sum(axis=1).astype(float)
    total[total == 0] = np.nan
    return hits / total


def percentile_interval(centre: float, draws: np.ndarray, size: int) -> Interval:
    """Percentile interval, widened for few subjects.

    The plain percentiles of n subjects are too narrow by sqrt((n - 1) / n) and by using the normal
    where t belongs; the expanded percentiles mend both (Hesterberg 2015, section 5.3,
    doi:10.1080/00031305.2015.1089789).

    Args:
      centre: The estimate.
      draws: (B,) bootstrap values.
      size: Subjects behind the estimate.

    Returns:
      NaN limits where the draws do not vary, where one is NaN, or with fewer than two subjects.
    """
    if size < 2 or np.isnan(draws).any() or np.ptp(draws) ** 2 < ROUNDING:
        return Interval(centre, float("nan"), float("nan"), LEVEL)
    reach = np.sqrt(size / (size - 1)) * stats.t.ppf(0.5 + LEVEL / 2, size - 1)
    tail = float(stats.norm.cdf(-reach))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(centre, float(low), float(high), LEVEL)


def interval_a(
    metric: str,
    scores: Scores,
    threshold: np.ndarray | None = None,
    seed: int = 0,
    drawn: Resampled | None = None,
) -> Interval:
    """These networks on new subjects: DeLong for the AUC, stratified bootstrap for the rates.

    A single network's ACC, SEN and SPE are plain proportions and get Wilson's interval.

    Args:
      metric: One of `mri_jax.evaluation.metrics.METRICS`; its mean over the networks is estimated.
      scores: Scores of J networks.
      threshold: (J,) on the logit difference; argmax by default.
      seed: Seed of the bootstrap.
      drawn: What `resample` gave for these decisions, to share it between the four rates.
    """
    found = estimate(metric, scores, threshold)
    centre = float(found.value.mean())
    if metric == "auc":
        quantile = float(stats.norm.ppf(0.5 + LEVEL / 2))
        return logit_interval(centre, float(found.covariance.mean()), quantile, LEVEL)
    if metric != "bac" and len(scores.score) == 1 and not np.isnan(centre):
        right = decisions(scores, threshold)[0] == (scores.label == 1)
        wanted = {"acc": (0, 1), "sen": (1,), "spe": (0,)}[metric]
        members = scores.tested[0] & np.isin(scores.label, wanted)
        return wilson(int(right[members].sum()), int(members.sum()))
    if drawn is None:
        drawn = resample(scores, decisions(scores, threshold), seed)
    return percentile_interval(centre, drawn.metric(metric).mean(axis=1), drawn.size(metric))


def decisions(scores: Scores, threshold: np.ndarray | None = None) -> np.ndarray:
    """Returns (J, N) bool, decided positive, at (J,) thresholds on the logit difference or at 0."""
    limit = np.zeros(len(scores.score)) if threshold is None else np.asarray(threshold, float)
    return scores.score > limit[:, None]


def between_variance(value: np.ndarray, covariance: np.ndarray) -> float:
    """Variance between networks that is not their separate error on the finite test set.

    The observed variance of K values contains what each network errs on its own on these subjects;
    the mean variance less the mean covariance is taken off. Never below zero.

    Args:
      value: (K,).
      covariance: (K, K) over new subjects.
    """
    count = len(value)
    diagonal = float(np.trace(covariance)) / count
    off = (float(covariance.sum()) - count * diagonal) / (count * (count - 1))
    return max(0.0, float(np.var(value, ddof=1)) - (diagonal - off))


def variance_b(each: Estimates) -> tuple[float, float]:
    """Returns the variance of the mean of K fold networks over new subjects, and over retraining.

    Args:
      each: Estimates of one metric, a value a source fold; of one fold retraining adds 0, for
        nothing is known of it.
    """
    count = len(each.value)
    subjects = float((each.influence.mean(axis=0) ** 2).sum())
    if count < 2:
        return subjects, 0.0
    share = 1 / count
    correction = 1 / count + share / (1 - share)
    return subjects, between_variance(each.value, each.covariance) * correction


def interval_b(
    found: Estimates,
    fold: np.ndarray,
    label: np.ndarray,
) -> Interval:
    """New subjects and retrained networks.

    The variance over new subjects plus the `between_variance` of the K fold networks times
    ``1/K + 1/(K - 1)``: Nadeau and Bengio's correction for training sets that
    overlap (2003, doi:10.1023/A:1024068626366). On the logit scale, with Satterthwaite's degrees of
    freedom: K - 1 behind the variance between networks, and each class's subjects less one behind
    what that class adds to the variance over subjects.

    Args:
      found: Estimates of one metric; repeats of a fold are averaged first.
      fold: (J,) the source fold of each network.
      label: (N,) 0 or 1 of the subjects.

    Returns:
      NaN limits with a single fold, without variance, or where the metric is 0, 1 or NaN.
    """
    each = found.by_fold(fold)
    count = len(each.value)
    centre = float(found.value.mean())
    if count < 2 or np.isnan(each.value).any() or np.isnan(each.influence).any():
        return Interval(centre, float("nan"), float("nan"), LEVEL)
    influence = each.influence.mean(axis=0)
    by_class = [influence[np.asarray(label) == value] for value in (0, 1)]
    parts = [(float((part**2).sum()), len(part) - 1) for part in by_class if part.any()]
    subjects, networks = variance_b(each)
    total = subjects + networks
    if not total > ROUNDING:
        return Interval(centre, float("nan"), float("nan"), LEVEL)
    spread = sum(variance**2 / freedom for variance, freedom in [*parts, (networks, count - 1)])
    freedom = total**2 / spread
    return logit_interval(centre, total, float(stats.t.ppf(0.5 + LEVEL / 2, freedom)), LEVEL)
