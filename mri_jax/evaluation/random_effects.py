"""One number from several sites: a random-effects model of estimates with known variances.

Site i has the estimate y_i = mu + u_i + e_i, with u_i of variance tau^2 between sites and e_i of
its known variance v_i. tau^2 is the restricted maximum likelihood's (REML), with an interval by the
Q profile (Viechtbauer 2007, doi:10.1002/sim.2514); mu has Hartung and Knapp's t interval (2001,
doi:10.1002/sim.1009), never narrower than the usual one (Jackson et al. 2017,
doi:10.1002/sim.7411); a new site is predicted by a t interval with k - 2 degrees of freedom
(Higgins, Thompson and Spiegelhalter 2009, doi:10.1111/j.1467-985X.2008.00552.x).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

LEVEL = 0.95
LEAST = 3
"""Sites without which nothing is said of a new one."""
NAN = float("nan")


@dataclass(frozen=True)
class RandomEffects:
    """What k estimates say together, on their own scale; NaN where it cannot be said.

    Attributes:
      mean: The mean over sites.
      low: Lower limit of its 95% interval.
      high: Upper limit.
      new_low: Lower limit of the 95% prediction interval of a new site's true value.
      new_high: Upper limit.
      tau: SD between sites.
      tau_low: Lower limit of its 95% interval.
      tau_high: Upper limit.
      i_squared: Share of the variance of an estimate that is between sites.
      q: Cochran's statistic of homogeneity.
      p: Its p, chi-squared with k - 1 degrees of freedom.
      weights: (k,) the share of each site in the mean.
    """

    mean: float
    low: float
    high: float
    new_low: float
    new_high: float
    tau: float
    tau_low: float
    tau_high: float
    i_squared: float
    q: float
    p: float
    weights: np.ndarray

    def carried(self, scale: Callable[[float], float]) -> "RandomEffects":
        """Returns the mean and its limits on another scale; what is between sites stays."""
        mean, low, high = scale(self.mean), scale(self.low), scale(self.high)
        return replace(
            self, mean=mean, low=low, high=high,
            new_low=scale(self.new_low), new_high=scale(self.new_high),
        )  # fmt: skip


def combine(value: np.ndarray, variance: np.ndarray) -> RandomEffects:
    """Returns the random-effects summary of independent estimates.

    Args:
      value: (k,) estimates.
      variance: (k,) their variances, above 0.

    Returns:
      The summary; of one estimate that estimate alone, without limits; of two no limits for a new
      site (k - 2 is 0).
    """
    value, variance = np.asarray(value, float), np.asarray(variance, float)
    count = len(value)
    if count < 2:
        mean = float(value[0]) if count else NAN
        return RandomEffects(mean, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, np.ones(count))
    tau2 = reml(value, variance)
    weights = 1 / (variance + tau2)
    mean = float(weights @ value / weights.sum())
    spread = float(weights @ (value - mean) ** 2) / (count - 1)
    error = float(np.sqrt(max(1.0, spread) / weights.sum()))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, count - 1)) * error
    beyond = NAN
    if count >= LEAST:
        quantile = float(stats.t.ppf(0.5 + LEVEL / 2, count - 2))
        beyond = quantile * float(np.sqrt(tau2 + error**2))
    q = heterogeneity(value, variance, 0.0)
    low, high = profile(value, variance)
    fixed = 1 / variance
    typical = (count - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    return RandomEffects(
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        new_low=mean - beyond,
        new_high=mean + beyond,
        tau=float(np.sqrt(tau2)),
        tau_low=float(np.sqrt(low)),
        tau_high=float(np.sqrt(high)),
        i_squared=float(tau2 / (tau2 + typical)),
        q=q,
        p=float(stats.chi2.sf(q, count - 1)),
        weights=weights / weights.sum(),
    )


def reml(value: np.ndarray, variance: np.ndarray) -> float:
    """Returns the variance between sites that maximises the restricted likelihood, at least 0."""

    def loss(tau2: float) -> float:
        weights = 1 / (variance + tau2)
        mean = weights @ value / weights.sum()
        parts = np.log(variance + tau2).sum() + np.log(weights.sum())
        return float(parts + weights @ (value - mean) ** 2) / 2

    most = 10 * float(np.var(value)) + 10 * float(variance.max())
    # The likelihood may have a second maximum: the best of a grid is refined.
    grid = np.concatenate([[0.0], np.geomspace(1e-6 * most, most, 200)])
    best = int(np.argmin([loss(t) for t in grid]))
    ends = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-12})
    return float(found.x) if found.fun < loss(0.0) else 0.0


def heterogeneity(value: np.ndarray, variance: np.ndarray, tau2: float) -> float:
    """Returns the generalised statistic Q: the weighted squares around the mean at a tau^2."""
    weights = 1 / (variance + tau2)
    mean = weights @ value / weights.sum()
    return float(weights @ (value - mean) ** 2)


def profile(value: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Returns the 95% interval of tau^2 whose Q is as large as a chi-squared variable may be."""
    freedom = len(value) - 1
    high, low = stats.chi2.ppf([0.5 + LEVEL / 2, 0.5 - LEVEL / 2], freedom)
    return (
        _root(lambda tau2: heterogeneity(value, variance, tau2) - high),
        _root(lambda tau2: heterogeneity(value, variance, tau2) - low),
    )


def _root(falling: Callable[[float], float]) -> float:
    """Returns where a falling function is 0, or 0 where it never is above."""
    if falling(0.0) <= 0:
        return 0.0
    high = 1.0
    while falling(high) > 0:
        high *= 4
    return float(optimize.brentq(falling, 0.0, high, xtol=1e-12))
