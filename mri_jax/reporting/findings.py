"""What a report found, in sentences, before any table: the AUC of every declared pair."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mri_jax.evaluation.families import is_baseline
from mri_jax.evaluation.operating import ARGMAX, REFITTED
from mri_jax.reporting.analysis import Analysis, Section
from mri_jax.reporting.table import interval, p_value, percent, signed

ALPHA = 0.05
# Of more pairs than this the ones that differ most are spelled out, and the others counted.
_SPELLED = 2


@dataclass(frozen=True)
class Finding:
    """What one table says.

    Attributes:
      title: Of the table.
      lines: A paragraph a test cohort.
    """

    title: str
    lines: tuple[str, ...]


def findings(analysis: Analysis) -> list[Finding]:
    """What each table says, in the order of the tables."""
    return [
        Finding(
            section.family.title + (" (exploratory)" if section.family.exploratory else ""),
            tuple(
                " ".join(_of_cohort(section, cohort))
                for cohort in section.cohorts
                if section.tested(cohort)
            ),
        )
        for section in analysis.sections
    ]


def _of_cohort(section: Section, cohort: str) -> Iterator[str]:
    yield f"{cohort} ({section.subjects(cohort)}):"
    yield from _auc(section, cohort)
    rows = section.differences
    if not len(rows):
        return
    rows = rows[rows["cohort"].eq(cohort) & rows["split"].eq("test")]
    auc = rows[rows["metric"].eq("auc") & rows["point"].eq(ARGMAX) & rows["p"].notna()]
    plain = {m.name for m in section.family.methods if is_baseline(m.run)}
    beside = auc["second"].isin(plain)
    yield from _pairs(auc[~beside], "networks")
    yield from _pairs(auc[beside], "a network and a baseline")
    yield from _refitted(rows[rows["metric"].eq("bac")])


def _auc(section: Section, cohort: str) -> Iterator[str]:
    """The AUC of the table's first network, and whether its interval excludes chance."""
    rows = section.summary
    first = section.family.networks[0].name
    found = rows[
        rows["cohort"].eq(cohort)
        & rows["split"].eq("test")
        & rows["metric"].eq("auc")
        & rows["method"].eq(first)
    ]
    if not len(found) or pd.isna(found.iloc[0]["ensemble"]):
        return
    row = found.iloc[0]
    limits = interval(row["ensemble_low"], row["ensemble_high"])
    told = f"the ensemble of {first} has an AUC of {percent(row['ensemble'])}%"
    if not limits:
        yield f"{told}."
        return
    chance = "above" if row["ensemble_low"] > 0.5 else "not told apart from"
    if row["ensemble_high"] < 0.5:
        chance = "below"
    yield f"{told} {limits}, {chance} chance."


def _pairs(rows: pd.DataFrame, whose: str) -> Iterator[str]:
    """Which differences in AUC hold, and how large the largest one is where none does."""
    if not len(rows):
        return
    count = f"Of {len(rows)} declared pair{'s' * (len(rows) != 1)} of {whose}"
    hold = rows[rows["p_holm"] < ALPHA]
    if not len(hold):
        largest = rows.loc[rows["difference"].abs().idxmax()]
        yield f"{count} none differs in AUC beyond chance; most of all: {_told(largest)}."
        return
    order = hold["difference"].abs().sort_values(ascending=False).index[:_SPELLED]
    told = "; ".join(_told(hold.loc[place]) for place in order)
    which = ", most of all" if len(hold) > _SPELLED else ""
    yield f"{count} {len(hold)} differ{'s' * (len(hold) == 1)} in AUC{which}: {told}."


def _told(row: pd.Series) -> str:
    limits = interval(row["low"], row["high"])
    return (
        f"{row['first']} minus {row['second']} {signed(row['difference'])} points"
        f"{f' {limits}' if limits else ''}, p {p_value(row['p_holm'])}"
    )


def _refitted(rows: pd.DataFrame) -> Iterator[str]:
    """Whether a new threshold does for balanced accuracy what fine-tuning does."""
    refitted = rows[rows["point"].eq(REFITTED)]
    if not len(refitted):
        return
    gains = rows[rows["point"].eq(ARGMAX)].set_index(["first", "second"])["difference"]
    gains = refitted.assign(plain=[gains.get(k, np.nan) for k in _keys(refitted)])
    order = gains["plain"].abs().sort_values(ascending=False, kind="stable").index[:_SPELLED]
    parts = [
        f"{row['first']} {signed(row['plain'])} points against the source network, "
        f"{signed(row['difference'])} {interval(row['low'], row['high'])} when only the source's "
        "threshold is refitted on the adaptation part"
        for row in gains.loc[order].to_dict("records")
    ]
    which = f" (the {_SPELLED} largest of {len(gains)})" if len(gains) > _SPELLED else ""
    yield f"Balanced accuracy{which}: {'; '.join(parts)}."


def _keys(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    return zip(rows["first"], rows["second"], strict=True)
