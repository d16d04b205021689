"""The scores of several networks on the same test set, and what each subject adds to a metric.

Every variance of this room comes from one object: the influence of each subject on each network's
metric. Summed squares over subjects are the variance over new subjects, summed products the
covariance between networks. For the AUC that is DeLong's estimator exactly; for the rates it is
the class-stratified variance of a proportion. Networks of different fine-tuning fifths are tested
on different, overlapping subjects; there the influence of a subject not tested is zero.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.evaluation.delong import placements
from mri_jax.evaluation.metrics import ENSEMBLE, METRICS, score_of


@dataclass(frozen=True)
class Scores:
    """Scores of J networks for the N subjects that at least one of them was tested on.

    Attributes:
      label: (N,) 0 or 1.
      score: (J, N) difference of the logits; anything where not tested.
      tested: (J, N) bool.
      fold: (J,) the source fold of each network.
      repeat: (J,) its fine-tuning fifth.
      scan: (N,) subject and session, sorted, one string each.
    """

    label: np.ndarray
    score: np.ndarray
    tested: np.ndarray
    fold: np.ndarray
    repeat: np.ndarray
    scan: np.ndarray

    @property
    def counts(self) -> tuple[int, int]:
        """Positives and negatives among the N subjects."""
        return int((self.label == 1).sum()), int((self.label == 0).sum())

    def only(self, scans: np.ndarray) -> "Scores":
        """Returns the same networks on these scans alone."""
        kept = np.isin(self.scan, scans)
        return replace(
            self,
            label=self.label[kept],
            score=self.score[:, kept],
            tested=self.tested[:, kept],
            scan=self.scan[kept],
        )


def gather(predictions: pd.DataFrame) -> Scores:
    """Arrange the predictions of one method on one cohort.

    Args:
      predictions: Rows of one (run, stage, cohort) of a predictions table. The ensemble's rows are
        left out; a scan that stands under two splits of one network counts once.

    Raises:
      UserError: No rows; a score is NaN; a scan has two labels; a subject has two scans (the
        intervals take subjects as independent).
    """
    rows = predictions[predictions["fold"] != ENSEMBLE]
    if rows.empty:
        raise UserError("predictions: no rows to compare")
    where = " ".join(map(str, rows.iloc[0][["run", "stage", "cohort"]]))
    score = score_of(rows)
    bad = np.isnan(score)
    if bad.any():
        folds = ", ".join(map(str, sorted(set(rows["fold"].to_numpy()[bad]))))
        raise UserError(f"{where}: {bad.sum()} of {len(score)} scores are NaN (fold {folds})")
    scan, scans = pd.factorize(rows["subject_id"] + "/" + rows["session_id"], sort=True)
    pairs = pd.MultiIndex.from_frame(rows[["repeat", "fold"]])
    network, networks = pd.factorize(pairs, sort=True)
    label = np.full(len(scans), -1)
    label[scan] = rows["label"].to_numpy()
    if (label[scan] != rows["label"].to_numpy()).any():
        raise UserError(f"{where}: a scan has two different labels")
    if rows[["subject_id", "session_id"]].drop_duplicates()["subject_id"].duplicated().any():
        raise UserError(
            f"{where}: a subject has several scans; intervals and tests take one scan a subject"
        )
    matrix = np.zeros((len(networks), len(scans)))
    tested = np.zeros(matrix.shape, bool)
    matrix[network, scan], tested[network, scan] = score, True
    return Scores(
        label=label,
        score=matrix,
        tested=tested,
        fold=np.array([pair[1] for pair in networks]),
        repeat=np.array([pair[0] for pair in networks]),
        scan=np.asarray(scans, str),
    )


@dataclass(frozen=True)
class Estimates:
    """One metric of J networks.

    Attributes:
      value: (J,) fractions; NaN where a class is absent.
      influence: (J, N): ``influence @ influence.T`` is the covariance over new subjects.
    """

    value: np.ndarray
    influence: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """(J, J) covariance of the networks' metrics over new subjects."""
        return self.influence @ self.influence.T

    def by_fold(self, fold: np.ndarray) -> "Estimates":
        """Average the repeats of each source fold; (K, N)."""
        groups = [fold == k for k in np.unique(fold)]
        return Estimates(
            np.array([self.value[g].mean() for g in groups]),
            np.stack([self.influence[g].mean(axis=0) for g in groups]),
        )


def estimate(metric: str, scores: Scores, threshold: np.ndarray | None = None) -> Estimates:
    """Returns one of `METRICS` of every network, with the influence of every subject.

    Args:
      metric: ``auc``, ``acc``, ``bac``, ``sen`` or ``spe``.
      scores: Scores of J networks.
      threshold: (J,) on the logit difference; 0 (argmax) by default. Not used by the AUC.

    Returns:
      NaN values and influences where a network's test set lacks a class that the metric needs, or
      (influences only) has a single subject of it.
    """
    if metric not in METRICS:
        raise UserError(f"metric: {metric!r} must be one of {', '.join(METRICS)}")
    limit = np.zeros(len(scores.score)) if threshold is None else np.asarray(threshold, float)
    values, rows = [], []
    for score, tested, cut in zip(scores.score, scores.tested, limit, strict=True):
        value, influence = _one(metric, scores.label[tested], score[tested], cut)
        row = np.zeros(len(tested))
        row[tested] = influence
        values.append(value)
        rows.append(row)
    return Estimates(np.array(values), np.stack(rows))


def _one(metric: str, label: np.ndarray, score: np.ndarray, cut: float) -> tuple[float, np.ndarray]:
    positive = label == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if metric == "auc":
        if not (m and n):
            return np.nan, np.full(len(label), np.nan)
        of_positive, of_negative = placements(label, score)
        area = float(of_positive.mean())
        influence = np.empty(len(label))
        influence[positive] = _scaled(of_positive[0])
        influence[~positive] = _scaled(of_negative[0])
        return area, influence
    right = np.where(positive, score > cut, score <= cut).astype(float)
    weight_positive, weight_negative = {
        "sen": (1.0, 0.0),
        "spe": (0.0, 1.0),
        "bac": (0.5, 0.5),
        "acc": (m / (m + n), n / (m + n)),
    }[metric]
    value, influence = 0.0, np.zeros(len(label))
    for weight, members in ((weight_positive, positive), (weight_negative, ~positive)):
        if weight == 0.0:
            continue
        if not members.any():
            return np.nan, np.full(len(label), np.nan)
        value += weight * float(right[members].mean())
        influence[members] = weight * _scaled(right[members])
    return value, influence


def _scaled(values: np.ndarray) -> np.ndarray:
    """Deviations whose summed squares are the variance of the mean; NaN for a single value."""
    count = len(values)
    if count < 2:
        return np.full(count, np.nan)
    return (values - values.mean()) / np.sqrt(count * (count - 1))
