"""Where a network decides: argmax, a threshold of the source fold or of the adaptation part.

Nothing here is fitted on scores of subjects that a network trained on, nor on test subjects.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from mri_jax import adaptation
from mri_jax.errors import UserError
from mri_jax.evaluation.calibration import temperature
from mri_jax.evaluation.metrics import score_of
from mri_jax.evaluation.scores import Scores, gather
from mri_jax.problems import counted

ARGMAX = "argmax"
SOURCE_FOLD = "source fold"
REFITTED = "refitted on the adaptation part"
INNER = "cross-validated in the adaptation part"


def best_threshold(label: np.ndarray, score: np.ndarray) -> float:
    """Returns the cut of highest balanced accuracy; among equals the one nearest to argmax (0).

    Args:
      label: (N,) 0 or 1.
      score: (N,) difference of the logits.

    Returns:
      A value midway between two neighbouring scores (or one below the least, above the greatest);
      a score above it is decided positive. NaN where a class is absent or a score is NaN.
    """
    label, score = np.asarray(label), np.asarray(score, float)
    positive = label == 1
    if not positive.any() or positive.all() or np.isnan(score).any():
        return float("nan")
    order = np.sort(np.unique(score))
    cuts = np.concatenate([[order[0] - 1.0], (order[1:] + order[:-1]) / 2, [order[-1] + 1.0]])
    above = np.sort(score[positive]), np.sort(score[~positive])
    sen = 1.0 - np.searchsorted(above[0], cuts, side="right") / positive.sum()
    spe = np.searchsorted(above[1], cuts, side="right") / (~positive).sum()
    balanced = sen + spe
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best]))]])


def of_folds(predictions: pd.DataFrame, run: str) -> pd.DataFrame:
    """Threshold and temperature of each source network, from its own held-out source fold.

    Args:
      predictions: A predictions table with the ``validation`` rows of the run.
      run: The network variant.

    Returns:
      Indexed by fold: ``threshold`` (logit difference) and ``temperature``; NaN where a fold holds
      one class. Empty without validation rows.
    """
    chosen = predictions["stage"].eq("source") & predictions["split"].eq("validation")
    rows = predictions[chosen & (predictions["run"] == run)]
    return _fitted(rows, "fold")


def unlearnt_split(stage: str) -> str:
    """Returns the split whose labelled scans no network of a stage was trained on with labels.

    Thresholds and temperatures are fitted on it: the held-out fold of a source network; the
    adaptation part of one that saw it without labels; its cross-validation of a tuned one.

    >>> unlearnt_split("source"), unlearnt_split("tuned-all"), unlearnt_split("adapted-adabn")
    ('validation', 'inner', 'adaptation')
    """
    method = adaptation.of_stage(stage)
    if method and method.label_free:
        return "adaptation"
    return "validation" if stage == "source" else "inner"


def of_adapted(predictions: pd.DataFrame, run: str, stage: str) -> pd.DataFrame:
    """Threshold and temperature of each tuned or adapted network, from its `unlearnt_split`.

    Returns:
      Indexed by (repeat, fold); empty where the study wrote no rows of that split.
    """
    chosen = predictions["stage"].eq(stage) & predictions["split"].eq(unlearnt_split(stage))
    return _fitted(predictions[chosen & (predictions["run"] == run)], ["repeat", "fold"])


def _fitted(rows: pd.DataFrame, key: str | list[str]) -> pd.DataFrame:
    found = {}
    for name, group in rows.groupby(key):
        label, score = group["label"].to_numpy(), score_of(group)
        found[name] = {
            "threshold": best_threshold(label, score),
            "temperature": temperature(label, score),
        }
    return pd.DataFrame.from_dict(found, orient="index", columns=["threshold", "temperature"])


def never_trained(predictions: pd.DataFrame, run: str, cohort: str) -> Scores:
    """Returns scores of a source network on every target scan: it saw none of them in training.

    Its ``test`` and ``adaptation`` rows are taken together, one network a fold.

    Raises:
      UserError: As `gather`.
    """
    rows = predictions[
        (predictions["run"] == run)
        & (predictions["stage"] == "source")
        & (predictions["cohort"] == cohort)
        & predictions["split"].isin(("test", "adaptation"))
    ]
    rows = rows.assign(repeat=0, split="test")
    return gather(rows.drop_duplicates(["fold", "subject_id", "session_id"]))


def like(source: Scores, tuned: Scores) -> Scores:
    """Returns the source networks tested exactly as the tuned ones were, fold by fold.

    Args:
      source: From `never_trained`: one network a fold, all target scans.
      tuned: Networks of every (repeat, fold).

    Raises:
      UserError: A source fold is absent, or did not score a scan on which a tuned one was tested.
    """
    place = {scan: index for index, scan in enumerate(source.scan)}
    absent = [scan for scan in tuned.scan if scan not in place]
    if absent:
        raise UserError(
            f"not comparable: {counted(len(absent), 'scan was', 'scans were')} tested by the tuned "
            "networks and not by the source networks"
        )
    columns = np.array([place[scan] for scan in tuned.scan])
    rows = []
    for fold in tuned.fold:
        found = np.flatnonzero(source.fold == fold)
        if not len(found):
            raise UserError(f"not comparable: fold {fold} has no source network")
        rows.append(found[0])
    picked = np.ix_(np.array(rows), columns)
    if (tuned.tested & ~source.tested[picked]).any():
        raise UserError(
            "not comparable: a source network did not score a scan of its fold's test set"
        )
    return replace(tuned, score=source.score[picked])


Shown = Mapping[tuple[int, int], np.ndarray]
"""The scans that the networks of each (repeat, fold) adapted to."""


def shown_to(predictions: pd.DataFrame, run: str, stage: str, cohort: str) -> Shown:
    """Returns the scans that networks adapted to, where not all outside the test set are these."""
    chosen = predictions["stage"].eq(stage) & predictions["split"].eq("adaptation")
    rows = predictions[chosen & predictions["run"].eq(run) & predictions["cohort"].eq(cohort)]
    return {
        (int(repeat), int(fold)): (group["subject_id"] + "/" + group["session_id"]).to_numpy(str)
        for (repeat, fold), group in rows.groupby(["repeat", "fold"])
    }


def refitted(source: Scores, tuned: Scores, shown: Shown | None = None) -> np.ndarray | None:
    """Returns (J,) thresholds of source networks, refitted on what each tuned one adapted to.

    The adaptation part of a repeat is the target scans outside that repeat's test set; the source
    networks trained on none of them.

    Args:
      source: From `never_trained`.
      tuned: Networks of every (repeat, fold).
      shown: What they adapted to, where it is less than the whole part.

    Returns:
      NaN where the adaptation part holds one class; None where a network has none (a cohort that
      was not fine-tuned on).
    """
    found = []
    for repeat, fold, tested in zip(tuned.repeat, tuned.fold, tuned.tested, strict=True):
        network = int(np.flatnonzero(source.fold == fold)[0])
        inside = ~np.isin(source.scan, tuned.scan[tested]) & source.tested[network]
        if shown:
            inside &= np.isin(source.scan, shown.get((int(repeat), int(fold)), np.array([], str)))
        if not inside.any():
            return None
        found.append(best_threshold(source.label[inside], source.score[network, inside]))
    return np.array(found)
