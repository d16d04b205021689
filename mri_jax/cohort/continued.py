"""The flow of subjects after the cohort table: preprocessing, quality control, analysis.

Scans are named by (subject_id, session_id). A subject stays as long as one of its scans does.
"""

from collections.abc import Collection, Mapping

import pandas as pd

from mri_jax.cohort import flow as flows
from mri_jax.cohort.table import KEY

NOT_PREPROCESSED = "not preprocessed"
NOT_IN_STUDY = "cohort not in the study"
OTHER_CLASS = "class not asked for"
NOT_USED = "not used (a person of an earlier cohort, or a control that was not drawn)"

Key = tuple[str, str]


def after_preprocessing(
    flow: pd.DataFrame, table: pd.DataFrame, stored: Collection[Key], failed: Collection[Key]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the stage of preprocessing.

    Args:
      flow: The flow of the cohort table.
      table: The cohort table.
      stored: Scans in the store.
      failed: Scans that failed; others that are not stored were never preprocessed.

    Returns:
      The longer flow, and the rows of the table that are left.
    """
    reasons = dict.fromkeys(failed, flows.FAILED_PREPROCESSING)
    return _stage(flow, table, flows.PREPROCESSING, set(stored), reasons, NOT_PREPROCESSED)


def after_quality(
    flow: pd.DataFrame, table: pd.DataFrame, excluded: Collection[Key]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the stage of quality control: scans excluded by a decision or a stated threshold."""
    left = set(_keys(table)) - set(excluded)
    return _stage(flow, table, flows.QUALITY, left, {}, flows.EXCLUDED_BY_QUALITY)


def analysed(
    flow: pd.DataFrame, table: pd.DataFrame, used: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the last stage: what a study used.

    Args:
      flow: The flow so far.
      table: The rows that are left.
      used: The scans used: ``subject_id``, ``session_id``, ``cohort``, ``diagnosis``.
    """
    reasons = {}
    cohorts, classes = set(used["cohort"]), set(used["diagnosis"])
    for row in table.to_dict("records"):
        key = (row["subject_id"], row["session_id"])
        if row["cohort"] not in cohorts:
            reasons[key] = NOT_IN_STUDY
        elif row["diagnosis"] not in classes:
            reasons[key] = OTHER_CLASS
    return _stage(flow, table, flows.ANALYSED, set(_keys(used)), reasons, NOT_USED)


def _stage(
    flow: pd.DataFrame,
    table: pd.DataFrame,
    stage: str,
    left: set[Key],
    reasons: Mapping[Key, str],
    otherwise: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    stays = [key in left for key in _keys(table)]
    after = table[stays]
    index = pd.MultiIndex.from_frame(table[["cohort", "diagnosis", "subject_id"]])
    why = pd.Series([reasons.get(key, otherwise) for key in _keys(table)], index=index)
    gone = flows.lost_between(table, after, otherwise).index
    lost = why[~why.index.duplicated()].reindex(gone)
    return flows.extend(flow, stage, after, lost), after


def _keys(table: pd.DataFrame) -> list[Key]:
    return list(table[KEY].itertuples(index=False, name=None))
