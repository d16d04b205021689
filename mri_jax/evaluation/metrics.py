"""The five scores of the paper: AUC, ACC, BAC, SEN, SPE, and their mean and SD over networks.

Everything here is a fraction; tables multiply by 100. The positive class (label 1) is AD or pMCI.
"""

from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mri_jax.errors import UserError
from mri_jax.evaluation import variants
from mri_jax.problems import counted

METRICS = ("auc", "acc", "bac", "sen", "spe")
ENSEMBLE = -1
"""The value of ``fold`` that names the mean probability over the folds."""
GROUP = ["run", "stage", "repeat", "fold", "cohort", "split"]
ARGMAX_THRESHOLD = 0.5
"""Probability above which the positive class is decided, as argmax does."""


@dataclass(frozen=True)
class FiveMetrics:
    """Fractions in [0, 1]; NaN where a class is absent and the score is undefined.

    Attributes:
      auc: Area under the ROC curve; a tie counts one half.
      acc: Accuracy.
      bac: Balanced accuracy, the mean of sensitivity and specificity.
      sen: Sensitivity: share of positives that are decided positive.
      spe: Specificity: share of negatives that are decided negative.
    """

    auc: float
    acc: float
    bac: float
    sen: float
    spe: float


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Returns the area under the ROC curve of (N,) scores for (N,) labels 0/1, by midranks.

    Returns:
      The probability that a positive outscores a negative, ties counting one half; NaN where one
      class is absent.
    """
    positive = np.asarray(label) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - m * (m + 1) / 2) / (m * n))


def rates(label: np.ndarray, decision: np.ndarray) -> tuple[float, float, float, float]:
    """ACC, BAC, SEN, SPE of (N,) bool decisions for (N,) labels 0/1; NaN where undefined."""
    positive = np.asarray(label) == 1
    decision = np.asarray(decision, bool)
    sen = float(decision[positive].mean()) if positive.any() else float("nan")
    spe = float((~decision[~positive]).mean()) if (~positive).any() else float("nan")
    acc = float((decision == positive).mean()) if len(positive) else float("nan")
    return acc, (sen + spe) / 2, sen, spe


def five_metrics(
    label: np.ndarray, probability: np.ndarray, threshold: float = ARGMAX_THRESHOLD
) -> FiveMetrics:
    """Returns the paper's five scores of one network on one test set.

    Args:
      label: (N,) 0 or 1.
      probability: (N,) of the positive class; any increasing score will do, with its threshold.
      threshold: A scan is decided positive when its probability exceeds this; at 0.5 that is the
        argmax of the paper (a tie goes to the negative class, as argmax does).

    Raises:
      UserError: Lengths differ, a label is not 0 or 1, or a probability is NaN.

    Example:
      >>> scores = five_metrics(np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.3, 0.1]))
      >>> float(scores.auc), float(scores.sen), float(scores.spe)
      (1.0, 0.5, 1.0)
    """
    label, probability = np.asarray(label), np.asarray(probability, float)
    if label.shape != probability.shape or label.ndim != 1:
        raise UserError(
            f"probability: shape {probability.shape} does not match the labels' {label.shape}"
        )
    if not np.isin(label, (0, 1)).all():
        raise UserError("label: must be 0 or 1")
    if np.isnan(probability).any():
        absent = int(np.isnan(probability).sum())
        raise UserError(f"probability: {counted(absent, 'value is', 'values are')} NaN")
    return FiveMetrics(auc(label, probability), *rates(label, probability > threshold))


def score_of(predictions: pd.DataFrame) -> np.ndarray:
    """Returns the (N,) difference of logits: it orders as the probability does, without saturating.

    NaN where a logit is not finite.
    """
    logits = predictions[["logit_0", "logit_1"]].to_numpy(float)
    return np.where(np.isfinite(logits).all(axis=1), logits[:, 1] - logits[:, 0], np.nan)


def metrics_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns the five scores of every network on every test set, at argmax.

    Args:
      predictions: A predictions table (see `mri_jax.evaluation.predictions`).

    Returns:
      One row per (run, stage, repeat, fold, cohort, split) with ``n_positive``, ``n_negative``,
      ``n_nan`` (scores whose logits are not finite), the fractions `METRICS` (NaN where a class
      is absent or any score is NaN), and what the run is (`variants.COLUMNS`).

    Example:
      >>> from mri_jax.runs import results
      >>> run = results.load("runs/finetune_high-smoke")
      >>> networks = run.predictions.query("run == 'cnn2-w1' and stage == 'source'")
      >>> metrics_table(networks).query("split == 'test'")["fold"].tolist()
      [0, 1, 2]
    """
    rows = []
    for key, group in predictions.groupby(GROUP, sort=True, observed=True):
        label, score = group["label"].to_numpy(), score_of(group)
        bad = int(np.isnan(score).sum())
        values = (np.nan,) * 5 if bad else astuple(five_metrics(label, score, threshold=0.0))
        counts = (int((label == 1).sum()), int((label == 0).sum()), bad)
        rows.append((*key, *counts, *values))
    found = pd.DataFrame(rows, columns=[*GROUP, "n_positive", "n_negative", "n_nan", *METRICS])
    return variants.described(found, variants.of_rows(predictions))


def ensemble(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean probability over the folds, scan by scan, as a predictions table of its own.

    Args:
      predictions: A predictions table; only ``split == "test"`` is used (each validation fold was
        seen by four of the five networks, so it has no ensemble).

    Returns:
      A predictions table with ``fold == ENSEMBLE`` (-1). Its logits are the logarithms of the mean
      probabilities of the two classes, NaN where those of a fold are. A (run, stage, repeat,
      cohort) with a single fold is left out; so is a scan that not every fold of the group was
      tested on.
    """
    test = predictions[(predictions["split"] == "test") & (predictions["fold"] != ENSEMBLE)]
    group = ["run", "stage", "repeat", "cohort"]
    folds = test.groupby(group, observed=True)["fold"].transform("nunique")
    test = test[folds > 1].assign(folds=folds[folds > 1])
    scan = [*group, "split", "subject_id", "session_id"]
    difference = score_of(test)
    with np.errstate(invalid="ignore"):
        logs = -np.logaddexp(0.0, np.stack([difference, -difference]))
    test = test.assign(log_0=logs[0], log_1=logs[1]).sort_values([*scan, "fold"], kind="stable")
    complete = test.groupby(scan, observed=True)["fold"].transform("size") == test["folds"]
    test = test[complete]
    grouped = test.groupby(scan, observed=True, sort=True)
    rows = grouped[["label", "folds"]].first().reset_index()
    if not len(rows):
        return predictions.iloc[:0].copy()
    pairs = test[["log_0", "log_1"]].to_numpy()
    starts = np.flatnonzero(~test.duplicated(scan).to_numpy())
    with np.errstate(invalid="ignore"):
        sums = np.logaddexp.reduceat(pairs, starts, axis=0)
    means = sums - np.log(rows["folds"].to_numpy(float))[:, None]
    rows = rows.assign(
        fold=ENSEMBLE, logit_0=means[:, 0], logit_1=means[:, 1], probability=np.exp(means[:, 1])
    )
    told = variants.described(rows, variants.of_rows(predictions))
    return told[list(predictions.columns)]


def mean_and_sd(metrics: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean and SD (n - 1) over the networks, as the paper prints them.

    Args:
      metrics: What `metrics_table` returns. Rows of the ensemble are left out.

    Returns:
      One row per (run, stage, cohort, split): ``networks`` (how many folds and repeats), the mean
      of ``n_positive`` and ``n_negative``, and ``METRIC_mean``, ``METRIC_sd`` as fractions. The SD
      is NaN for a single network, and the mean is NaN where any network's score is: a mean over
      fewer networks is another quantity.

    Example:
      >>> from mri_jax.runs import results
      >>> run = results.load("runs/finetune_high-smoke")
      >>> scores = mean_and_sd(metrics_table(run.predictions))
      >>> sorted(set(scores["stage"])), int(scores["networks"].max())
      (['source', 'tuned-high'], 3)
    """
    single = metrics[metrics["fold"] != ENSEMBLE]
    rows = []
    for key, group in single.groupby(["run", "stage", "cohort", "split"], sort=True):
        values = group[list(METRICS)].to_numpy(float)
        row = dict(zip(["run", "stage", "cohort", "split"], key, strict=True))
        row |= {"networks": len(group)}
        row |= {name: group[name].mean() for name in ("n_positive", "n_negative")}
        row |= {f"{m}_mean": v for m, v in zip(METRICS, values.mean(axis=0), strict=True)}
        sd = values.std(axis=0, ddof=1) if len(group) > 1 else np.full(len(METRICS), np.nan)
        row |= {f"{m}_sd": v for m, v in zip(METRICS, sd, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)
