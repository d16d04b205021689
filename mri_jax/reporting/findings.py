"""What a report found, in sentences, before any table: the AUC of every declared pair."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mri_jax.evaluation.operating import ARGMAX, REFITTED
from mri_jax.reporting.analysis import Analysis, Section
from mri_jax.reporting.table import interval, p_value, percent, signed

ALPHA = 0.05
# More pairs than this are counted, and only the largest is spelled out.
_SPELLED = 2


def findings(analysis: Analysis) -> list[str]:
    """A paragraph a table and test cohort, in the order of the tables."""
    return [
        " ".join(_of_cohort(section, cohort))
        for section in analysis.sections
        for cohort in section.cohorts
        if section.tested(cohort)
    ]


def _of_cohort(section: Section, cohort: str) -> Iterator[str]:
    explored = " (exploratory)" if section.family.exploratory else ""
    yield f"{section.family.title}{explored}; {cohort}, {section.subjects(cohort)}:"
    yield from _auc(section, cohort)
    rows = section.differences
    if len(rows):
        rows = rows[rows["cohort"].eq(cohort) & rows["split"].eq("test") & rows["p"].notna()]
        yield from _pairs(rows[rows["metric"].eq("auc") & rows["point"].eq(ARGMAX)])
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


def _pairs(rows: pd.DataFrame) -> Iterator[str]:
    """Which differences in AUC hold, and how large the largest one is where none does."""
    if not len(rows):
        return
    hold = rows[rows["p_holm"] < ALPHA]
    largest = rows.loc[[rows["difference"].abs().idxmax()]]
    pairs = "pair" if len(rows) == 1 else "pairs"
    if not len(hold):
        yield (
            f"Of {len(rows)} declared {pairs}, none differs in AUC beyond chance (Holm); the "
            f"largest difference is {_told(largest.iloc[0])}. That does not show that they are "
            "equal: the interval says what remains possible."
        )
        return
    order = hold["difference"].abs().sort_values(ascending=False).index[:_SPELLED]
    told = "; ".join(_told(hold.loc[place]) for place in order)
    more = " The largest:" if len(hold) > _SPELLED else ""
    verb = "differs" if len(hold) == 1 else "differ"
    yield f"Of {len(rows)} declared {pairs}, {len(hold)} {verb} in AUC (Holm).{more} {told}."


def _told(row: pd.Series) -> str:
    limits = interval(row["low"], row["high"])
    return (
        f"{row['first']} minus {row['second']}, {signed(row['difference'])} points"
        f"{f' {limits}' if limits else ''}, Holm p {p_value(row['p_holm'])}"
    )


def _refitted(rows: pd.DataFrame) -> Iterator[str]:
    """Whether a new threshold does for balanced accuracy what fine-tuning does."""
    refitted = rows[rows["point"].eq(REFITTED)]
    if not len(refitted):
        return
    gains = rows[rows["point"].eq(ARGMAX)].set_index(["first", "second"])["difference"]
    parts = []
    for row in refitted.to_dict("records"):
        plain = gains.get((row["first"], row["second"]), np.nan)
        parts.append(
            f"{row['first']} {signed(plain) if plain == plain else '–'} points, against the "
            f"refitted threshold {signed(row['difference'])} {interval(row['low'], row['high'])}"
        )
    yield (
        "Balanced accuracy against the source network as it is, and against the same network with "
        f"its threshold refitted on the adaptation part: {'; '.join(parts)}."
    )
