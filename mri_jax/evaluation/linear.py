"""Linear classifiers: logistic regression on a few covariates, ridge regression on voxels.

Pure functions of arrays: training arrays in, (N, 2) logits of the test sets out. Nothing of a test
set enters a fit.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from mri_jax.errors import UserError
from mri_jax.evaluation.metrics import auc

PENALTIES = tuple(10.0**k for k in range(-4, 5))
"""Ridge penalties tried inside the training fold, relative to the mean squared norm of a volume."""


@dataclass(frozen=True)
class Linear:
    """A fitted linear model: ``logit = (features - centre) / scale @ weights + intercept``.

    Attributes:
      centre: (P,) mean of the training features.
      scale: (P,) SD of the training features; 1 where a feature is constant.
      weights: (P,).
      intercept: Intercept of the log odds.
    """

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Converts (N, P) features to (N, 2) logits: 0 and the log odds. NaN is ``centre``."""
        filled = np.where(np.isnan(features), self.centre, features)
        return _two((filled - self.centre) / self.scale @ self.weights + self.intercept)


def separates(covariate: np.ndarray, label: np.ndarray) -> bool:
    """Returns whether one covariate alone tells the two classes apart without an error.

    Args:
      covariate: (N,); NaN where unknown.
      label: (N,) 0 or 1.
    """
    covariate, label = np.asarray(covariate, float), np.asarray(label)
    known = ~np.isnan(covariate)
    return auc(label[known], covariate[known]) in (0.0, 1.0)


def fit_covariates(features: np.ndarray, label: np.ndarray) -> Linear:
    """Logistic regression on a few covariates, without penalty worth the name.

    Args:
      features: (N, P), e.g. age in years and sex as 0/1, or hippocampal over intracranial volume.
        NaN (a missing age) is replaced by the training mean.
      label: (N,) 0 or 1.

    Raises:
      UserError: A class is absent, or a covariate is missing for every subject.
    """
    features, label = np.asarray(features, float), _checked(label)
    if np.isnan(features).all(axis=0).any():
        raise UserError("baseline: a covariate is missing for every training subject")
    centre = np.nanmean(features, axis=0)
    scale = np.nanstd(features, axis=0)
    scale[scale == 0.0] = 1.0
    standard = (np.where(np.isnan(features), centre, features) - centre) / scale
    # C = 1e4 keeps a perfectly separating covariate finite and moves nothing else visibly.
    model = LogisticRegression(C=1e4, max_iter=1000).fit(standard, label)
    return Linear(centre, scale, model.coef_[0], float(model.intercept_[0]))


@dataclass(frozen=True)
class VoxelModel:
    """A voxel-wise linear model.

    Attributes:
      centre: (V,) mean of the training volumes.
      weights: (V,).
      intercept: Intercept of the log odds.
      penalty: The penalty chosen, one of `PENALTIES`.
      losses: Cross-validated log loss of each of `PENALTIES` inside the training fold.
    """

    centre: np.ndarray
    weights: np.ndarray
    intercept: float
    penalty: float
    losses: tuple[float, ...]

    def logits(self, volumes: np.ndarray) -> np.ndarray:
        """Returns the (N, 2) logits of (N, V) flattened volumes: 0 and the log odds."""
        shift = float(self.centre @ self.weights)
        return _two(np.asarray(volumes @ self.weights, float) - shift + self.intercept)


def fit_voxels(volumes: np.ndarray, label: np.ndarray, seed: int) -> VoxelModel:
    """Ridge-penalised logistic regression on every voxel.

    The penalty is chosen by the log loss of a stratified 5-fold cross-validation inside these
    training subjects. With N subjects and V voxels the solution lies in the span of the subjects,
    so the problem is rotated once into N dimensions by the Gram matrix; the fit is the same as on
    the voxels and costs O(N^2 V + N^3).

    Args:
      volumes: (N, V) normalised training volumes as `blocks.block_mean` gives them; not altered.
      label: (N,) 0 or 1.
      seed: Seed of the inner folds.

    Raises:
      UserError: A class is absent, a voxel is NaN, or all volumes are equal.
    """
    label = _checked(label)
    volumes = np.asarray(volumes, np.float32)
    if not np.isfinite(volumes).all():
        raise UserError("baseline-voxels: a voxel is NaN or infinite")
    centre = volumes.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = volumes - centre
    gram = (centred @ centred.T).astype(np.float64)
    size = float(np.trace(gram)) / len(gram)
    if not size > 0.0:
        raise UserError("baseline-voxels: all training volumes are equal")
    values, vectors = np.linalg.eigh(gram / size)
    kept = values > 1e-6 * values[-1]
    scores = vectors[:, kept] * np.sqrt(values[kept])
    losses = [_inner_loss(scores, label, penalty, seed) for penalty in PENALTIES]
    best = PENALTIES[int(np.argmin(losses))]
    model = _ridge(scores, label, best)
    # scores = centred / sqrt(size) @ basis, with basis = centred^T V diag(values^-1/2) / sqrt(size)
    dual = vectors[:, kept] @ (model.coef_[0] / np.sqrt(values[kept])) / size
    weights = centred.T @ dual.astype(np.float32)
    return VoxelModel(
        centre, weights, float(model.intercept_[0]), float(best), tuple(map(float, losses))
    )


def _ridge(scores: np.ndarray, label: np.ndarray, penalty: float) -> LogisticRegression:
    return LogisticRegression(C=1.0 / penalty, max_iter=2000).fit(scores, label)


def _inner_loss(scores: np.ndarray, label: np.ndarray, penalty: float, seed: int) -> float:
    folds = min(5, int(np.bincount(label.astype(int)).min()))
    if folds < 2:
        raise UserError("baseline-voxels: a class has a single training subject")
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    loss = 0.0
    for train, held_out in splits.split(scores, label):
        logit = _ridge(scores[train], label[train], penalty).decision_function(scores[held_out])
        loss += float(np.logaddexp(0.0, np.where(label[held_out] == 1, -logit, logit)).sum())
    return loss / len(label)


def _checked(label: np.ndarray) -> np.ndarray:
    label = np.asarray(label)
    if not np.isin(label, (0, 1)).all():
        raise UserError("baseline: label must be 0 or 1")
    if len(np.unique(label)) < 2:
        raise UserError("baseline: the training subjects are of one class only")
    return label.astype(int)


def _two(log_odds: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(log_odds, dtype=float), log_odds.astype(float)], axis=1)
