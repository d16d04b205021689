"""Tables at other operating points than argmax, and of calibration."""

import numpy as np
import pandas as pd

from mri_jax.adaptation import parted
from mri_jax.evaluation import calibration, operating
from mri_jax.evaluation.cells import MethodScores, entries
from mri_jax.evaluation.families import SOURCE, Family, Method
from mri_jax.evaluation.scores import Scores
from mri_jax.evaluation.summary import SUMMARY_COLUMNS, metric_rows

NAN = float("nan")


def operating_points(
    predictions: pd.DataFrame, family: Family, seed: int, found: list[MethodScores] | None = None
) -> pd.DataFrame:
    """ACC, BAC, SEN, SPE of every method at every threshold that may be fitted.

    Source networks: argmax, the threshold of their own held-out source fold, and beside every
    fine-tuning the threshold refitted on the same adaptation part. Tuned networks: argmax, and the
    threshold cross-validated inside the adaptation part where the study wrote ``inner`` scores, or
    refitted on that part where they saw it without labels; a note says where neither can be had.

    Returns:
      `SUMMARY_COLUMNS`, with ``point``.
    """
    table = entries(predictions, family) if found is None else found
    rows: list[dict[str, object]] = []
    for entry in table:
        if entry.split != "test" or entry.scores is None:
            continue
        for point, threshold, note in points_of(predictions, family, entry):
            if note:
                entry_ = MethodScores(entry.method, entry.cohort, entry.split, None, note)
                rows += metric_rows(family, entry_, point, None, seed)
            else:
                rows += metric_rows(family, entry, point, threshold, seed)
    frame = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    return frame[frame["metric"] != "auc"].reset_index(drop=True)


def points_of(
    predictions: pd.DataFrame, family: Family, entry: MethodScores
) -> list[tuple[str, np.ndarray | None, str]]:
    """Returns each operating point of a tested method: its name, the thresholds, and a note.

    Thresholds are (J,), one a network, on the logit difference; None at argmax, and where the note
    says why there is none.
    """
    scores, method = entry.scores, entry.method
    assert scores is not None
    points: list[tuple[str, np.ndarray | None, str]] = [(operating.ARGMAX, None, "")]
    if method.stage != SOURCE:
        fitted = operating.of_adapted(predictions, method.run, method.stage)
        keys = list(zip(scores.repeat, scores.fold, strict=True))
        inside = operating.unlearnt_split(method.stage) == "inner"
        point = operating.INNER if inside else operating.REFITTED
        points.append(_looked_up(point, fitted, keys, "inner scores of the adaptation part"))
        return points
    fitted = operating.of_folds(predictions, method.run)
    points.append(
        _looked_up(operating.SOURCE_FOLD, fitted, list(scores.fold), "held-out source scores")
    )
    if any(m.stage != SOURCE and parted(m.stage)[1].labels is None for m in family.methods):
        source = operating.never_trained(predictions, method.run, entry.cohort)
        cuts = operating.refitted(source, scores)
        if cuts is not None:
            one_class = np.isnan(cuts).any()
            note = "not shown: the adaptation part holds one class only" if one_class else ""
            points.append((operating.REFITTED, None if note else cuts, note))
    return points


def _looked_up(
    point: str, fitted: pd.DataFrame, keys: list, what: str
) -> tuple[str, np.ndarray | None, str]:
    cuts = fitted["threshold"].reindex(keys).to_numpy(float) if len(fitted) else np.array([NAN])
    if np.isnan(cuts).any():
        return point, None, f"not shown: the run holds no {what} of both classes"
    return point, cuts, ""


def calibration_table(
    predictions: pd.DataFrame, family: Family, found: list[MethodScores] | None = None
) -> pd.DataFrame:
    """ECE and Brier score of every method per cohort, before and after temperature scaling.

    Temperatures of source networks come from their held-out source fold, of tuned networks from
    ``inner`` scores; without these the scaled columns are NaN and ``note`` says so.
    """
    rows = []
    for entry in entries(predictions, family) if found is None else found:
        scores, method = entry.scores, entry.method
        if scores is None or entry.split != "test":
            continue
        fixed = np.ones(len(scores.score))
        before = calibration.of_networks(scores.label, scores.score, scores.tested, fixed)
        factors = temperatures(predictions, method, scores)
        row = {
            "family": family.key,
            "method": method.name,
            "cohort": entry.cohort,
            "ece": before.ece,
            "brier": before.brier,
            "temperature": NAN,
            "ece_scaled": NAN,
            "brier_scaled": NAN,
            "note": "no temperature: no scores outside training and test to fit it on",
        }
        if factors is not None:
            after = calibration.of_networks(scores.label, scores.score, scores.tested, factors)
            row |= {
                "temperature": after.temperature,
                "ece_scaled": after.ece,
                "brier_scaled": after.brier,
                "note": "",
            }
        rows.append(row)
    return pd.DataFrame(rows)


def temperatures(predictions: pd.DataFrame, method: Method, scores: Scores) -> np.ndarray | None:
    """Returns (J,) temperatures, fitted outside each network's training and test; None without."""
    if method.stage == SOURCE:
        fitted = operating.of_folds(predictions, method.run)
        keys: list = list(scores.fold)
    else:
        fitted = operating.of_adapted(predictions, method.run, method.stage)
        keys = list(zip(scores.repeat, scores.fold, strict=True))
    if fitted.empty:
        return None
    factors = fitted["temperature"].reindex(keys).to_numpy(float)
    return None if np.isnan(factors).any() else factors
