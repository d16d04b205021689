"""The flow of subjects after the cohort table: preprocessing, quality control, analysis.

Scans are named by (subject_id, session_id). A subject stays as long as one of its scans does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mri_jax import files
from mri_jax.cohort import flow as flows
from mri_jax.cohort.table import KEY, read_table, write_table
from mri_jax.cohort.written import beside, flow_of
from mri_jax.errors import UserError
from mri_jax.problems import counted, listed

NOT_PREPROCESSED = "not preprocessed"
NOT_IN_STUDY = "cohort not in the study"
OTHER_CLASS = "class not asked for"
NOT_USED = "not used (a person of an earlier cohort, or a control that was not drawn)"

Key = tuple[str, str]


@dataclass(frozen=True)
class Outcomes:
    """What became of scans after the cohort table.

    Attributes:
      stored: Those in the store.
      failed: Those whose preprocessing failed.
      excluded: Those that quality control excluded; None: it excluded none yet.
    """

    stored: Collection[Key]
    failed: Collection[Key]
    excluded: Collection[Key] | None


def to_end(table: Path, became: Outcomes, used: pd.DataFrame | None) -> pd.DataFrame:
    """Returns the flow beside a cohort table, carried on.

    Args:
      table: The table's file.
      became: What became of its scans.
      used: The scans that a study analysed; None: it ends before that.

    Raises:
      UserError: The study analysed scans that are left out before, so that the flow of this table
        is not that of its results.
    """
    left, flow = read_table(table), flow_of(table)
    # `qc --cohort-out` has counted these two already, for the table that it wrote.
    done = set(flow["stage"])
    if flows.PREPROCESSING not in done:
        flow, left = after_preprocessing(flow, left, became.stored, became.failed)
    if flows.QUALITY not in done and became.excluded is not None:
        flow, left = after_quality(flow, left, became.excluded)
    if used is not None:
        _refuse_others(table, left, used, became)
        flow, _ = analysed(flow, left, used)
    return flow


def _refuse_others(table: Path, left: pd.DataFrame, used: pd.DataFrame, became: Outcomes) -> None:
    """Refuses a run that analysed scans which are not left, or in another cohort or class."""
    if excluded := sorted(set(_keys(used)) & set(became.excluded or ())):
        scans = counted(len(used), "scan")
        rule = counted(len(excluded), f"of its {scans} is", f"of its {scans} are")
        raise UserError(
            f"--run: {rule} excluded by quality control "
            f"(exclusions.csv of the store): {listed(map(' '.join, excluded))}; run the study "
            "again with the table of qc --cohort-out"
        )
    names = [*KEY, "cohort", "diagnosis"]
    here, there = (set(rows[names].itertuples(index=False, name=None)) for rows in (used, left))
    if others := sorted(here - there):
        scans = counted(len(used), "scan")
        rule = counted(len(others), f"of its {scans} is", f"of its {scans} are")
        raise UserError(
            f"--run: {rule} not in {table} and the store, or "
            f"in another cohort or class: {listed(' '.join(row[:2]) for row in others)}; give the "
            "table and the store of the run, which its config.json names"
        )


def scans_in(path: Path) -> list[Key]:
    """Returns the scans that a table of a store names; none where there is no such table."""
    return _keys(files.read_csv(path)) if path.exists() else []


def without_excluded(
    source: Path, out: Path, stored: Collection[Key], excluded: Collection[Key]
) -> str:
    """Writes a cohort table without the scans that have no volume or were excluded.

    The flow beside the table, where there is one, is continued beside the new table.

    Args:
      source: The cohort table.
      out: The table to write.
      stored: Scans in the store.
      excluded: Scans that quality control excluded.

    Returns:
      A line for the terminal.

    Raises:
      UserError: No scan is left.
    """
    cohort = read_table(source)
    there = _of(cohort, set(stored))
    kept = _of(there, set(_keys(there)) - set(excluded))
    if kept.empty:
        raise UserError(f"cohort: no scan of {source} is in the store and kept")
    write_table(out, kept)
    told = f"{out}: {len(kept)} of {counted(len(cohort), 'scan')}"
    if not beside(source, "flow.csv").exists():
        return f"{told}; no flow beside {source} to continue"
    flow = flow_of(source)
    for stage, was, now, reason in (
        (flows.PREPROCESSING, cohort, there, flows.FAILED_PREPROCESSING),
        (flows.QUALITY, there, kept, flows.EXCLUDED_BY_QUALITY),
    ):
        flow = flows.extend(flow, stage, now, flows.lost_between(was, now, reason))
    flows.write(beside(out, "flow.csv"), flow)
    return f"{told}; {beside(out, 'flow.csv').name} continues the flow"


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
    after = _of(table, left)
    index = pd.MultiIndex.from_frame(table[["cohort", "diagnosis", "subject_id"]])
    why = pd.Series([reasons.get(key, otherwise) for key in _keys(table)], index=index)
    gone = flows.lost_between(table, after, otherwise).index
    lost = why[~why.index.duplicated()].reindex(gone)
    return flows.extend(flow, stage, after, lost), after


def _keys(table: pd.DataFrame) -> list[Key]:
    return list(table[KEY].itertuples(index=False, name=None))


def _of(table: pd.DataFrame, scans: set[Key]) -> pd.DataFrame:
    return table[[key in scans for key in _keys(table)]]
