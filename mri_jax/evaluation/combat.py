"""ComBat: features of one site brought to the location and scale of another.

Johnson, Li and Rabinovic 2007, "Adjusting batch effects in microarray expression data using
empirical Bayes methods", with the other site as reference batch, whose features stay as they are.
The diagnosis is never a covariate: it would be told to what is to be classified.
"""

from dataclasses import dataclass

import numpy as np

from mri_jax.errors import UserError
from mri_jax.problems import counted

_CONVERGED, _MOST_STEPS, _RELATIVE = 1e-4, 10_000, 1e-9


@dataclass(frozen=True)
class Combat:
    """A fitted harmonisation of one site; P features, Q covariates.

    Attributes:
      mean: (P,) of the reference site where covariates are at `centre`.
      slopes: (Q, P) of the features against the covariates.
      centre: (Q,) mean of the covariates at the reference site; stands for those that are NaN.
      scale: (P,) SD of the reference site's residuals; 0 where a feature is left as it is.
      shift: (P,) of the site's standardised residuals.
      factor: (P,) SD of the site's standardised residuals.
    """

    mean: np.ndarray
    slopes: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    factor: np.ndarray

    def apply(self, features: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Returns (N, P) features of the site as they would be at the reference site.

        A feature that was constant at either site stays as it is, and so does NaN.

        Args:
          features: (N, P).
          covariates: (N, Q), as `fit` has them.
        """
        expected = self.mean + _known(covariates, self.centre) @ self.slopes
        scale = np.where(self.scale > 0, self.scale, 1.0)
        standard = ((features - expected) / scale - self.shift) / self.factor
        return np.where(self.scale > 0, standard * scale + expected, features)


def fit(reference: tuple[np.ndarray, np.ndarray], site: tuple[np.ndarray, np.ndarray]) -> Combat:
    """Returns the harmonisation of a site to a reference site.

    Location and scale of many features are drawn towards what they have in common (empirical
    Bayes); those of a single feature are its own.

    Args:
      reference: (N, P) features and (N, Q) covariates of the reference site; a covariate may be
        NaN, a scan with a NaN feature is left out.
      site: The same of the other site.

    Raises:
      UserError: A site has fewer than two scans with all features.
    """
    (ours, their_covariates), (theirs, site_covariates) = map(_complete, (reference, site))
    for which, found in (("the source", ours), ("the adaptation part", theirs)):
        if len(found) < 2:
            raise UserError(
                f"combat: {which} has {counted(len(found), 'scan')} with every feature; two are "
                "needed to estimate a scale"
            )
    known = ~np.isnan(their_covariates).all(axis=0)
    centre = np.array([np.nanmean(c) if k else 0.0 for c, k in zip(their_covariates.T, known,
                                                                   strict=True)])  # fmt: skip
    inside, outside = (_known(c, centre) for c in (their_covariates, site_covariates))
    # One model for both: an intercept, the site's offset, and the covariates.
    second = np.r_[np.zeros(len(ours)), np.ones(len(theirs))]
    design = np.column_stack([np.ones_like(second), second, np.r_[inside, outside]])
    weights = np.linalg.lstsq(design, np.r_[ours, theirs].astype(float), rcond=None)[0]
    mean, slopes = weights[0], weights[2:]
    scale = np.sqrt(((ours - mean - inside @ slopes) ** 2).mean(axis=0))
    # Rounding leaves of a constant feature, or of one that the covariates determine, a residual.
    usable = (np.ptp(ours, axis=0) > 0) & (scale > _RELATIVE * ours.std(axis=0))
    standard = (theirs - mean - outside @ slopes) / np.where(usable, scale, 1.0)
    shift, variance = standard.mean(axis=0), standard.var(axis=0, ddof=1)
    usable &= (np.ptp(theirs, axis=0) > 0) & (variance > 0)
    if usable.sum() > 1:
        shift[usable], variance[usable] = _shrunk(standard[:, usable])
    factor = np.sqrt(np.where(usable, variance, 1.0))
    return Combat(mean, slopes, centre, np.where(usable, scale, 0.0), shift, factor)


def _known(covariates: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Returns covariates about their mean at the reference site, 0 where they are unknown."""
    return np.where(np.isnan(covariates), 0.0, covariates - centre)


def _complete(site: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    features, covariates = (np.asarray(each, float) for each in site)
    whole = ~np.isnan(features).any(axis=1)
    return features[whole], covariates[whole]


def _shrunk(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the posterior shift and variance of (N, P) standardised residuals, (P,) each."""
    number, shift, variance = len(standard), standard.mean(axis=0), standard.var(axis=0, ddof=1)
    prior, spread = shift.mean(), shift.var(ddof=1)
    middle, wide = variance.mean(), variance.var(ddof=1)
    if not (spread > 0 and wide > 0):
        return shift, variance
    shape, rate = (2 * wide + middle**2) / wide, (middle * wide + middle**3) / wide
    found, width = shift, variance
    for _ in range(_MOST_STEPS):
        moved = (number * spread * shift + width * prior) / (number * spread + width)
        residual = ((standard - moved) ** 2).sum(axis=0)
        widened = (0.5 * residual + rate) / (number / 2 + shape - 1)
        change = max(np.abs((moved - found) / found).max(), np.abs((widened - width) / width).max())
        found, width = moved, widened
        if change < _CONVERGED:
            return found, width
    raise UserError("combat: the empirical Bayes estimates do not converge")
