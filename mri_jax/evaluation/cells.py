"""The cells of a table: a method on a cohort, on the same subjects as the others of its table."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.evaluation import operating
from mri_jax.evaluation.families import SOURCE, Family, Method
from mri_jax.evaluation.scores import Scores, gather
from mri_jax.problems import counted


@dataclass(frozen=True)
class MethodScores:
    """One cell of a family: a method on a cohort, or why it cannot be had."""

    method: Method
    cohort: str
    split: str
    scores: Scores | None
    note: str = ""


def entries(predictions: pd.DataFrame, family: Family) -> list[MethodScores]:
    """Returns the scores behind a family: every method on the same subjects of each cohort.

    In a fine-tuning family the source networks and the baselines are taken on exactly the
    subjects of the tuned networks' tests, fold by fold and fifth by fifth. In every other family
    they are taken on all scans of the target that they were given. Held-out source folds
    (``validation``) form entries of their own. In a family whose networks are tested apart there
    are no entries of a method on other cohorts than its own.
    """
    tuned = [m for m in family.methods if m.stage != SOURCE]
    cohorts = _cohorts(predictions, family, "test")
    found = []
    for cohort in cohorts:
        pattern = _pattern(predictions, tuned, cohort)
        members = None if tuned else _first_scans(predictions, family, cohort)
        for method in family.methods:
            if family.apart and not len(_select(predictions, method, cohort, ("test",))):
                continue
            try:
                scores = _scores(predictions, method, cohort, pattern, members)
                note = ""
            except UserError as error:
                scores, note = None, str(error)
            found.append(MethodScores(method, cohort, "test", scores, note))
    for cohort in _cohorts(predictions, family, "validation"):
        pattern = _pattern(predictions, tuned, cohort, "validation")
        for method in family.methods:
            rows = _select(predictions, method, cohort, ("validation",))
            if len(rows):
                found.append(_validation(method, cohort, rows, pattern))
    return found


def _validation(
    method: Method, cohort: str, rows: pd.DataFrame, pattern: Scores | None
) -> MethodScores:
    try:
        scores = gather(rows)
        if pattern is not None and method.stage == SOURCE:
            scores = operating.like(scores, pattern)
    except UserError as error:
        return MethodScores(method, cohort, "validation", None, str(error))
    return MethodScores(method, cohort, "validation", scores)


def _cohorts(predictions: pd.DataFrame, family: Family, split: str) -> list[str]:
    stages = {m.stage for m in family.networks}
    if split == "test" and stages != {SOURCE} and not family.apart:
        # Another run may have tested the source networks on cohorts where nothing was tuned.
        stages -= {SOURCE}
    chosen = (
        predictions["split"].eq(split)
        & predictions["run"].isin([m.run for m in family.networks])
        & predictions["stage"].isin(stages)
    )
    return list(dict.fromkeys(predictions.loc[chosen, "cohort"]))


def _select(
    predictions: pd.DataFrame, method: Method, cohort: str, splits: tuple[str, ...]
) -> pd.DataFrame:
    return predictions[
        (predictions["run"] == method.run)
        & (predictions["stage"] == method.stage)
        & (predictions["cohort"] == cohort)
        & predictions["split"].isin(splits)
    ]


def _pattern(
    predictions: pd.DataFrame, tuned: list[Method], cohort: str, split: str = "test"
) -> Scores | None:
    """Returns who was tested by whom, from the first tuned method that has this cohort."""
    for method in tuned:
        rows = _select(predictions, method, cohort, (split,))
        if len(rows):
            try:
                return gather(rows)
            except UserError:
                continue
    return None


def _first_scans(predictions: pd.DataFrame, family: Family, cohort: str) -> np.ndarray | None:
    """Returns the scans of the family's first network, to which baselines are restricted."""
    for method in family.networks:
        rows = _select(predictions, method, cohort, ("test", "adaptation"))
        if len(rows):
            return np.unique((rows["subject_id"] + "/" + rows["session_id"]).to_numpy(str))
    return None


def _scores(
    predictions: pd.DataFrame,
    method: Method,
    cohort: str,
    pattern: Scores | None,
    members: np.ndarray | None,
) -> Scores:
    if method.stage != SOURCE:
        return gather(_select(predictions, method, cohort, ("test",)))
    scores = operating.never_trained(predictions, method.run, cohort)
    if pattern is not None:
        return operating.like(scores, pattern)
    if method.variant.is_baseline and members is not None:
        scores = scores.only(members)
        if len(scores.scan) < len(members):
            raise UserError(
                f"{method.name}: was not tested on {len(members) - len(scores.scan)} of the "
                f"{counted(len(members), 'scan')} of {cohort}"
            )
    return scores
