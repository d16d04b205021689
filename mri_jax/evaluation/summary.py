"""Every metric of a table with its intervals.

Pure: a predictions table in, tidy frames out. What cannot be computed is NaN with the reason in
``note``; a wrong number is never written.
"""

import numpy as np
import pandas as pd
from scipy.special import expit

from mri_jax.evaluation import reasons
from mri_jax.evaluation.cells import MethodScores, entries
from mri_jax.evaluation.delong import auc_interval
from mri_jax.evaluation.families import SOURCE, Family, Method
from mri_jax.evaluation.intervals import (
    decisions,
    interval_a,
    interval_b,
    percentile_interval,
    resample,
    wilson,
)
from mri_jax.evaluation.metrics import METRICS
from mri_jax.evaluation.operating import ARGMAX
from mri_jax.evaluation.scores import Estimates, Scores, estimate

SUMMARY_COLUMNS = (
    "family", "run", "stage", "method", "cohort", "split", "point", "metric", "networks",
    "n_positive", "n_negative", "mean", "sd", "a_low", "a_high", "b_low", "b_high", "ensemble",
    "ensemble_low", "ensemble_high", "a_note", "b_note", "ensemble_note", "note",
)  # fmt: skip
NAN = float("nan")


def summarise(
    predictions: pd.DataFrame, family: Family, seed: int, found: list[MethodScores] | None = None
) -> pd.DataFrame:
    """Returns every method, cohort and metric of a family at argmax, with intervals A and B.

    Args:
      predictions: A predictions table.
      family: From `families.declare`.
      seed: Seed of the bootstrap.
      found: What `entries` gave, to share it.

    Returns:
      `SUMMARY_COLUMNS`; fractions. ``mean`` and ``sd`` are over networks (n - 1), as the paper
      prints; ``a_*`` and ``b_*`` are the intervals of the mean; ``ensemble`` is the mean
      probability over the folds with its own interval (DeLong, Wilson; bootstrap for BAC). Where
      an interval is missing its ``*_note`` says why.
    """
    rows: list[dict[str, object]] = []
    for entry in entries(predictions, family) if found is None else found:
        rows += metric_rows(family, entry, ARGMAX, None, seed)
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def metric_rows(
    family: Family, entry: MethodScores, point: str, threshold: np.ndarray | None, seed: int
) -> list[dict[str, object]]:
    """Returns rows of `SUMMARY_COLUMNS` for one cell at (J,) thresholds; argmax where None."""
    base: dict[str, object] = {
        "family": family.key,
        "run": entry.method.run,
        "stage": entry.method.stage,
        "method": entry.method.name,
        "cohort": entry.cohort,
        "split": entry.split,
        "point": point,
        "note": entry.note,
    }
    scores = entry.scores
    if scores is None:
        return [base | {"metric": metric, "networks": 0} for metric in METRICS]
    base |= {"networks": len(np.unique(scores.fold))}
    if entry.method.stage != SOURCE:
        base |= {"networks": len(scores.score)}
    base |= dict(zip(("n_positive", "n_negative"), scores.counts, strict=True))
    drawn = resample(scores, decisions(scores, threshold), seed)
    together = _ensemble(scores, seed) if entry.split == "test" and threshold is None else {}
    rows = []
    for metric in METRICS:
        value = estimate(metric, scores, threshold)
        a = interval_a(metric, scores, threshold, seed, drawn=drawn)
        b = interval_b(value, scores.fold, scores.label)
        ensemble = together.get(metric, (NAN, NAN, NAN))
        rows.append(
            base
            | {
                "metric": metric,
                "mean": a.estimate,
                "sd": _spread(entry.method, value, scores),
                "a_low": a.low,
                "a_high": a.high,
                "b_low": b.low,
                "b_high": b.high,
                "ensemble": ensemble[0],
                "ensemble_low": ensemble[1],
                "ensemble_high": ensemble[2],
                **_reasons(metric, scores, (a.low, b.low, ensemble[1]), a.estimate, ensemble[0]),
                "note": _note(scores, a.estimate),
            }
        )
    return rows


def _spread(method: Method, value: Estimates, scores: Scores) -> float:
    """SD (n - 1) over networks; a source network tested on several fifths counts once."""
    each = value.by_fold(scores.fold) if method.stage == SOURCE else value
    return float(np.std(each.value, ddof=1)) if len(each.value) > 1 else NAN


def _reasons(
    metric: str, scores: Scores, lows: tuple[float, float, float], mean: float, together: float
) -> dict[str, str]:
    """Returns why intervals A, B and that of the ensemble are missing, where they are."""
    a, b, ensemble = lows
    of_b = reasons.without_interval(metric, mean, b, scores.counts)
    if of_b and not np.isnan(mean) and len(np.unique(scores.fold)) < 2:
        of_b = reasons.SINGLE
    return {
        "a_note": reasons.without_interval(metric, mean, a, scores.counts),
        "b_note": of_b,
        "ensemble_note": ""
        if np.isnan(together)
        else reasons.without_interval(metric, together, ensemble, scores.counts),
    }


def _note(scores: Scores, value: float) -> str:
    if np.isnan(value):
        return reasons.undefined(*scores.counts)
    if len(scores.score) > 1 and np.ptp(scores.score, axis=0).max() == 0.0:
        return "all networks give identical scores: B has no between-network part"
    return ""


def ensemble_probability(scores: Scores) -> np.ndarray | None:
    """Returns (N,) the mean probability; None unless J > 1 networks each saw every subject."""
    if len(scores.score) < 2 or not scores.tested.all():
        return None
    return expit(scores.score).mean(axis=0)


def _ensemble(scores: Scores, seed: int) -> dict[str, tuple[float, float, float]]:
    probability = ensemble_probability(scores)
    if probability is None:
        return {}
    positive, decided = scores.label == 1, probability > 0.5
    m, n = scores.counts
    found = {}
    if m and n:
        area = auc_interval(scores.label, probability)
        found["auc"] = (area.estimate, area.low, area.high)
    one = Scores(
        scores.label,
        probability[None] - 0.5,
        np.ones((1, len(positive)), bool),
        scores.fold[:1],
        scores.repeat[:1],
        scores.scan,
    )
    draws = resample(one, decided[None], seed).metric("bac")[:, 0]
    right = decided == positive
    for metric, members in (("acc", positive | True), ("sen", positive), ("spe", ~positive)):
        share = wilson(int(right[members].sum()), int(members.sum()))
        found[metric] = (share.estimate, share.low, share.high)
    if m and n:
        centre = (found["sen"][0] + found["spe"][0]) / 2
        bac = percentile_interval(centre, draws, min(m, n))
        found["bac"] = (bac.estimate, bac.low, bac.high)
    return found
