"""Variance of the area under the ROC curve, and of means and differences of such areas.

DeLong, DeLong and Clarke-Pearson 1988 (doi:10.2307/2531595) in the fast form of Sun and Xu 2014
(doi:10.1109/LSP.2014.2337313): midranks instead of the m x n kernel, so that the cost is
O(N log N) for each network. The covariance between networks is kept: networks tested on the same
subjects err together, and their mean is less certain than five independent values would be.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mri_jax.errors import UserError
from mri_jax.problems import counted

ROUNDING = 1e-18
"""A variance below this is rounding error of equal values, not a measured spread."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits; NaN limits where they cannot be estimated.

    Attributes:
      estimate: The value.
      low: Lower limit.
      high: Upper limit.
      level: Nominal coverage.
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95


def placements(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's placement values of every network.

    Args:
      label: (N,) 0 or 1, with m positives and n negatives.
      score: (J, N), a row a network.

    Returns:
      (J, m): for each positive, the share of negatives below it (ties one half); and (J, n): for
      each negative, the share of positives above it. The mean of either is the AUC.

    Raises:
      UserError: A class is absent, or a score is NaN.
    """
    positive = np.asarray(label) == 1
    score = np.atleast_2d(np.asarray(score, float))
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        found = f"{counted(m, 'positive')} and {counted(n, 'negative')}"
        raise UserError(f"label: {found}; an AUC needs both classes")
    if np.isnan(score).any():
        raise UserError(
            f"score: {counted(int(np.isnan(score).sum()), 'value is', 'values are')} NaN"
        )
    overall = stats.rankdata(score, axis=1)
    within_positive = stats.rankdata(score[:, positive], axis=1)
    within_negative = stats.rankdata(score[:, ~positive], axis=1)
    return (
        (overall[:, positive] - within_positive) / n,
        1.0 - (overall[:, ~positive] - within_negative) / m,
    )


def auc_covariance(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC of every network and their covariance over new subjects.

    Args:
      label: (N,) 0 or 1.
      score: (J, N), a row a network.

    Returns:
      (J,) areas and (J, J) covariance. With fewer than two subjects in a class the covariance is
      NaN.

    Raises:
      UserError: A class is absent, or a score is NaN.
    """
    of_positive, of_negative = placements(label, score)
    areas = of_positive.mean(axis=1)
    if min(of_positive.shape[1], of_negative.shape[1]) < 2:
        return areas, np.full((len(areas), len(areas)), np.nan)
    covariance = sum(
        np.atleast_2d(np.cov(values)) / values.shape[1] for values in (of_positive, of_negative)
    )
    return areas, np.asarray(covariance)


def logit_interval(estimate: float, variance: float, quantile: float, level: float) -> Interval:
    """Returns a normal (or t) interval on the logit scale, carried back to [0, 1].

    At the paper's smallest classes (11 pMCI) the interval on the plain scale covers too little and
    leaves [0, 1]; the logit is the usual remedy (Pepe 2003, section 5.2.4).

    Args:
      estimate: In [0, 1].
      variance: Variance of the estimate.
      quantile: Quantile of the reference distribution, about 1.96.
      level: Nominal coverage, for the record.

    Returns:
      The interval; its limits are NaN where the estimate is 0 or 1 or the variance is NaN or zero
      (five identical scores have no measurable variance, which is not certainty).
    """
    if not (0.0 < estimate < 1.0) or not variance > ROUNDING:
        return Interval(estimate, float("nan"), float("nan"), level)
    centre = np.log(estimate / (1.0 - estimate))
    half = quantile * np.sqrt(variance) / (estimate * (1.0 - estimate))
    low, high = 1.0 / (1.0 + np.exp(-(centre + np.array([-half, half]))))
    return Interval(estimate, float(low), float(high), level)


def auc_interval(label: np.ndarray, score: np.ndarray, level: float = 0.95) -> Interval:
    """Interval A of an AUC, or of the mean AUC of several networks on the same subjects.

    What is estimated: these very networks, on new subjects of the same population.

    Args:
      label: (N,) 0 or 1.
      score: (N,) of one network, or (J, N) of J networks, whose mean AUC is then the estimate and
        whose covariance enters the variance.
      level: Nominal coverage.

    Raises:
      UserError: A class is absent, or a score is NaN.
    """
    areas, covariance = auc_covariance(label, score)
    quantile = stats.norm.ppf(0.5 + level / 2)
    return logit_interval(float(areas.mean()), float(covariance.mean()), quantile, level)
