"""What a report found, in sentences, before any table: the AUC of every declared pair."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mri_jax.evaluation.operating import ARGMAX, REFITTED
from mri_jax.problems import counted
from mri_jax.reporting import trainings
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs import faults
from mri_jax.showing.numbers import difference, interval, p_value, percent, signed

ALPHA = 0.05
TRAINING = "Training"
"""Title of what is said of networks that failed or have hardly learnt."""
# Of more pairs than this the ones that differ most are spelled out, and the others counted.
_SPELLED = 2


@dataclass(frozen=True)
class Finding:
    """What one table says.

    Attributes:
      title: Title of the table.
      lines: A paragraph a test cohort, or a sentence a fault of training.
    """

    title: str
    lines: tuple[str, ...]


def findings(analysis: Analysis) -> list[Finding]:
    """Returns what is wrong with networks, then what each table says, in their order."""
    wrong = tuple(faults.sentences(trainings.troubled(analysis)))
    return [*([Finding(TRAINING, wrong)] if wrong else []), *_of_tables(analysis)]


def _of_tables(analysis: Analysis) -> list[Finding]:
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


def _of_cohort(section: FamilyAnalysis, cohort: str) -> Iterator[str]:
    yield f"{cohort} ({section.subjects(cohort)}):"
    yield _auc(section, cohort)
    rows = section.differences
    if not len(rows):
        return
    rows = rows[rows["cohort"].eq(cohort) & rows["split"].eq("test")]
    auc = rows[rows["metric"].eq("auc") & rows["point"].eq(ARGMAX)]
    plain = section.family.baselines
    beside = auc["second"].isin(plain)
    explored = section.family.exploratory
    yield from _pairs(auc[~beside], "networks", explored)
    yield from _pairs(auc[beside], "a network and a baseline", explored)
    if not explored:
        yield from _outdone(auc[beside])
    yield from _refitted(rows[rows["metric"].eq("bac")])


def _auc(section: FamilyAnalysis, cohort: str) -> str:
    """Returns the mean AUC of a table's first networks, and whether it excludes chance."""
    rows = section.summary
    first = section.family.networks[0].name
    found = rows[
        rows["cohort"].eq(cohort)
        & rows["split"].eq("test")
        & rows["metric"].eq("auc")
        & rows["method"].eq(first)
    ]
    if not len(found) or pd.isna(found.iloc[0]["mean"]):
        why = str(found.iloc[0]["note"]) if len(found) else ""
        return f"the AUC of {first} is undefined here{f' ({why})' if why else ''}."
    row = found.iloc[0]
    limits = interval(row["a_low"], row["a_high"])
    told = f"the networks of {first} have a mean AUC of {percent(row['mean'])}%"
    if not limits:
        return f"{told}, without an interval."
    chance = "above" if row["a_low"] > 0.5 else "not told apart from"
    if row["a_high"] < 0.5:
        chance = "below"
    return f"{told} {limits}, {chance} chance."


def _pairs(rows: pd.DataFrame, whose: str, explored: bool) -> Iterator[str]:
    """Yields which differences in AUC hold, and how large the largest one is where none does."""
    if not len(rows):
        return
    tested = rows[rows["p_holm"].notna()]
    count = f"Of {counted(len(rows), 'declared pair')} of {whose}"
    if len(tested) < len(rows):
        count += f" ({len(rows) - len(tested)} could not be tested)"
    if not len(tested):
        yield f"{count} none has a test."
        return
    order = tested["difference"].abs().sort_values(ascending=False).index
    if explored:
        told = "; ".join(_told(tested.loc[place]) for place in order[:_SPELLED])
        yield f"{count}, which were not planned for inference, most of all: {told}."
        return
    hold = order[(tested.loc[order, "p_holm"] < ALPHA).to_numpy()]
    if not len(hold):
        largest = _told(tested.loc[order[0]])
        yield f"{count} none differs in AUC beyond chance; most of all: {largest}."
        return
    told = "; ".join(_told(tested.loc[place]) for place in hold[:_SPELLED])
    which = ", most of all" if len(hold) > _SPELLED else ""
    yield f"{count} {len(hold)} differ{'s' * (len(hold) == 1)} in AUC{which}: {told}."


def _outdone(rows: pd.DataFrame) -> Iterator[str]:
    """Yields which plain baselines are better than networks, by the sign of a two-sided test."""
    better = rows[(rows["p_holm"] < ALPHA) & (rows["difference"] < 0)].sort_values("difference")
    for networks, group in better.groupby("first", sort=False):
        told = [
            f"{row['second']} (by {percent(-row['difference'])} points of AUC, {_holm(row)})"
            for row in group.to_dict("records")
        ]
        yield (
            f"Plain baselines are significantly better than the networks of {networks}: "
            f"{', '.join(told)}."
        )


def _told(row: pd.Series) -> str:
    return f"{difference(row['first'], row['second'], _change(row))}, {_holm(row)}"


def _change(row: pd.Series) -> str:
    return f"{signed(row['difference'])} {interval(row['low'], row['high'])}".rstrip()


def _holm(row: Mapping[Hashable, Any] | pd.Series) -> str:
    return "no test" if pd.isna(row["p_holm"]) else f"Holm p {p_value(row['p_holm'])}"


def _refitted(rows: pd.DataFrame) -> Iterator[str]:
    """Yields whether a new threshold does for balanced accuracy what fine-tuning does."""
    rows = rows[rows["difference"].notna()].set_index(["first", "second"])
    plain, refitted = (rows[rows["point"].eq(point)] for point in (ARGMAX, REFITTED))
    both = refitted.index.intersection(plain.index)
    if not len(both):
        return
    order = plain.loc[both, "difference"].abs().sort_values(ascending=False, kind="stable").index
    parts = [
        f"{difference(pair[0], 'its source network', _change(plain.loc[pair]))} "
        f"({_holm(plain.loc[pair])}), minus the same network at a threshold refitted on the "
        f"adaptation part {_change(refitted.loc[pair])} ({_holm(refitted.loc[pair])})"
        for pair in order[:_SPELLED]
    ]
    which = f" (the {_SPELLED} largest of {len(both)})" if len(both) > _SPELLED else ""
    yield (
        f"Balanced accuracy{which}: {'; '.join(parts)}. Where the second number is near 0, a new "
        "threshold does what fine-tuning does."
    )
