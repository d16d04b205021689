"""From visits and images to a cohort table, with a reason for everyone left out.

A unit is a subject in a cohort. It is kept, or excluded for the first of `REASONS` that applies.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mri_jax.cohort import flow as flows
from mri_jax.cohort.identity import session_of_month
from mri_jax.cohort.images import MADE_BY, NO_SCAN, ImageChoice, choose
from mri_jax.cohort.labels import (
    DAYS_A_MONTH,
    NO_BASELINE,
    NO_DIAGNOSIS,
    TOO_SHORT,
    UNSTABLE,
    Decision,
    LabelRules,
    Visit,
    decide,
)
from mri_jax.cohort.table import REQUIRED
from mri_jax.errors import UserError

LEFT_OUT = "group left out"
NOT_ENROLLED = "not enrolled"
DUPLICATE = "duplicate"
# In the order in which they are asked for, and listed in the flow.
REASONS = (
    NOT_ENROLLED, NO_BASELINE, NO_SCAN, NO_DIAGNOSIS, LEFT_OUT, UNSTABLE, TOO_SHORT, DUPLICATE,
)  # fmt: skip
EXCLUDED_COLUMNS = [
    "subject_id",
    "cohort",
    "reason",
    "detail",
    "group",
    "baseline_visit",
    "deciding_visits",
]
DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class CohortSource:
    """What a study's tables and images say, in one form for all studies.

    Attributes:
      visits: One row a visit: ``subject_id``, ``cohort``, ``origin`` (the cohort in which the
        person enrolled), ``code``, ``session`` (label, or empty), ``month`` (of the code, NaN
        unknown), ``date``, ``diagnosis``, ``group`` (stated at enrolment, or empty),
        ``baseline_rank`` (NaN: cannot be the baseline; the smallest is), ``age`` (years at the
        visit), ``born`` (decimal year, for an age at the scan where a visit has no date), ``sex``,
        and covariates; optionally ``unenrolled``, ``lacking`` and ``unsaid``: the
        status of who was never enrolled, why there is no baseline, or no
        diagnosis, in words.
      images: An images table (`mri_jax.cohort.images`).
      covariates: Names of the covariates.
      notes: What the user should know, a line each.
    """

    visits: pd.DataFrame
    images: pd.DataFrame
    covariates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubjectSelection:
    """Who is selected, apart from labels and images.

    Attributes:
      exclude_groups: Groups of the enrolment diagnosis that are left out (SMC).
      continuing: What becomes of a person who enrolled in an earlier cohort: ``exclude`` (counted
        as duplicate) or ``keep``.
    """

    exclude_groups: tuple[str, ...] = ("SMC",)
    continuing: str = "exclude"

    def __post_init__(self):
        if self.continuing not in ("exclude", "keep"):
            raise UserError(f"continuing: {self.continuing!r} is not 'exclude' or 'keep'")


@dataclass(frozen=True)
class Assembled:
    """The result.

    Attributes:
      table: A cohort table with the label as ``diagnosis``, covariates and what decided.
      excluded: One row a unit left out, columns `EXCLUDED_COLUMNS`.
      flow: The flow of subjects (`mri_jax.cohort.flow`).
      notes: What the user should know.
    """

    table: pd.DataFrame
    excluded: pd.DataFrame
    flow: pd.DataFrame
    notes: tuple[str, ...] = field(default=())


def visits_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns visits in the form of `CohortSource`: what a reader leaves out is unknown.

    Args:
      frame: Has at least ``subject_id``, ``cohort``, ``diagnosis``, ``age`` and ``sex``.
    """
    unknown = {
        "origin": frame["cohort"], "code": "", "session": "", "month": np.nan, "date": pd.NaT,
        "group": "", "born": np.nan, "baseline_rank": 0.0,
    }  # fmt: skip
    full = frame.assign(**{k: v for k, v in unknown.items() if k not in frame})
    return full.astype({"date": "datetime64[ns]"}).reset_index(drop=True)


def assemble(
    source: CohortSource, rules: LabelRules, choice: ImageChoice, selection: SubjectSelection
) -> Assembled:
    """Label every unit, choose its scan, and keep or exclude it.

    Args:
      source: Visits and images.
      rules: How a history becomes a label.
      choice: How a scan is chosen.
      selection: Who is left out.

    Returns:
      Table, exclusions and flow; every unit is in exactly one of the first two.
    """
    visits = source.visits.reset_index(drop=True)
    units = _units(visits)
    scans = choose(
        units.rename(columns={"date": "baseline", "code": "visit"}), source.images, choice
    )
    decisions = _decide(units, visits, rules)
    units = units.join(scans).assign(
        label=[d.label for d in decisions],
        deciding_visits=[" ".join(d.deciding) for d in decisions],
    )
    reasons = [
        _reason(unit, decision, selection)
        for unit, decision in zip(units.to_dict("records"), decisions, strict=True)
    ]
    units["reason"] = [reason for reason, _ in reasons]
    units["detail"] = [detail for _, detail in reasons]
    excluded = units[units["reason"] != ""].rename(columns={"code": "baseline_visit"})
    # Where enrolment names no group, the flow shows the diagnosis at baseline.
    stated = excluded["group"] != ""
    excluded = excluded.assign(group=excluded["group"].where(stated, excluded["diagnosis"]))
    excluded = excluded[EXCLUDED_COLUMNS].sort_values(["cohort", "subject_id"])
    table = _table(units[units["reason"] == ""], source.covariates, rules)
    return Assembled(
        table=table,
        excluded=excluded.reset_index(drop=True),
        flow=flows.start(table, excluded, REASONS),
        notes=source.notes,
    )


def _units(visits: pd.DataFrame) -> pd.DataFrame:
    """Returns a row a (subject, cohort) with its baseline visit; ``row`` is -1 without one."""
    visits = visits.assign(row=visits.index)
    best = visits[visits["baseline_rank"].notna()].sort_values(
        ["subject_id", "cohort", "baseline_rank", "month", "date", "code"], kind="stable"
    )
    best = best.drop_duplicates(["subject_id", "cohort"])
    everyone = visits.sort_values(["subject_id", "cohort", "month", "date", "code"])
    everyone = everyone.drop_duplicates(["subject_id", "cohort"])
    key = ["subject_id", "cohort"]
    without = everyone[
        ~pd.MultiIndex.from_frame(everyone[key]).isin(pd.MultiIndex.from_frame(best[key]))
    ].assign(row=-1, code="", diagnosis="", session="", date=pd.NaT)
    return pd.concat([best, without]).sort_values(key).reset_index(drop=True)


def _decide(units: pd.DataFrame, visits: pd.DataFrame, rules: LabelRules) -> list[Decision]:
    """Returns a decision for every unit, from all visits of its person in whatever cohort."""
    base = units[["subject_id", "row", "month", "date"]].rename(
        columns={"month": "month_of_base", "date": "date_of_base"}
    )
    pairs = (
        base.rename_axis("unit")
        .reset_index()
        .merge(
            visits[["subject_id", "code", "month", "date", "diagnosis"]].assign(visit=visits.index),
            on="subject_id",
        )
    )
    by_code = pairs["month"] - pairs["month_of_base"]
    by_date = (pairs["date"] - pairs["date_of_base"]).dt.days / DAYS_A_MONTH
    first, then = (by_code, by_date) if rules.clock == "visit" else (by_date, by_code)
    months = first.fillna(then).where(pairs["visit"] != pairs["row"], 0.0)
    pairs = pairs.assign(relative=months, baseline=pairs["visit"] == pairs["row"])
    histories: list[list[Visit]] = [[] for _ in range(len(units))]
    for unit, visit in _visits(pairs):
        histories[unit].append(visit)
    return [decide(history, rules) for history in histories]


def _visits(pairs: pd.DataFrame) -> Iterator[tuple[int, Visit]]:
    columns = [
        pairs[name].tolist() for name in ("unit", "code", "relative", "diagnosis", "baseline")
    ]
    for unit, code, month, diagnosis, baseline in zip(*columns, strict=True):
        yield unit, Visit(code, month, diagnosis, baseline)


def _reason(
    unit: dict[str, Any], decision: Decision, selection: SubjectSelection
) -> tuple[str, str]:
    if decision.reason == NO_BASELINE:
        if status := unit.get("unenrolled"):
            return NOT_ENROLLED, status
        return NO_BASELINE, unit.get("lacking") or "no baseline or screening visit"
    if unit["why_not"]:
        return NO_SCAN, unit["why_not"]
    if decision.reason == NO_DIAGNOSIS:
        return NO_DIAGNOSIS, unit.get("unsaid") or decision.detail
    if unit["group"] in selection.exclude_groups:
        return LEFT_OUT, unit["group"]
    if decision.reason:
        return decision.reason, decision.detail
    if unit["origin"] != unit["cohort"] and selection.continuing == "exclude":
        return DUPLICATE, f"enrolled in {unit['origin']}"
    return "", ""


def decimal_year(dates: pd.Series) -> pd.Series:
    """Returns dates as years with fractions, NaN where there is none."""
    return dates.dt.year + dates.dt.day_of_year / DAYS_A_YEAR


def _table(kept: pd.DataFrame, covariates: tuple[str, ...], rules: LabelRules) -> pd.DataFrame:
    session = [
        label or (session_of_month(month) if np.isfinite(month) else f"ses-{code}")
        for label, month, code in zip(kept["session"], kept["month"], kept["code"], strict=True)
    ]
    at_scan = decimal_year(kept["scanned"]) - kept["born"]
    age = (kept["age"] + kept["days"].fillna(0.0) / DAYS_A_YEAR).fillna(at_scan)
    table = kept.assign(
        session_id=session,
        diagnosis=kept["label"],
        age=age.round(2),
        image=kept["path"],
        baseline_visit=kept["code"],
        days_from_baseline=kept["days"],
        field_strength=kept["field"],
        label_rules=str(rules),
    )
    columns = [
        *REQUIRED,
        *covariates,
        "group",
        "baseline_visit",
        "deciding_visits",
        "label_rules",
        "image_id",
        "level",
        "field_strength",
        *(name for name in MADE_BY if (table[name] != "").any()),
        "days_from_baseline",
        "runner_up",
    ]
    return table[columns].sort_values(["cohort", "subject_id"]).reset_index(drop=True)
