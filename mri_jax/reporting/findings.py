"""What a report found: at most five sentences for each target of a table, before any table.

Each sentence makes one claim, with its interval and adjusted p: how well the source networks do,
what the other networks of the table add, whether a refitted threshold does the same, which plain
baselines are better, worse or not told apart, and how sure all this is.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from mri_jax.evaluation.operating import ARGMAX, REFITTED
from mri_jax.problems import counted
from mri_jax.reporting import left_out, trainings
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.reporting.forest import Forest, forest
from mri_jax.runs import faults
from mri_jax.runs.labels import label
from mri_jax.showing.numbers import interval, p_value, percent, signed

ALPHA = 0.05


class Claim(NamedTuple):
    """One sentence.

    Attributes:
      about: What it is about, in one or two words.
      text: The sentence.
    """

    about: str
    text: str


@dataclass(frozen=True)
class Finding:
    """What one table says of one target.

    Attributes:
      table: The table's key.
      title: The table's title.
      cohort: The target.
      subjects: Who was tested.
      claims: At most five.
      forest: The AUC of each method.
    """

    table: str
    title: str
    cohort: str
    subjects: str
    claims: tuple[Claim, ...]
    forest: Forest


def findings(analysis: Analysis) -> list[Finding]:
    """Returns what each table says of each target that has scores."""
    return [found for section in analysis.sections for found in _of_section(section)]


def _of_section(section: FamilyAnalysis) -> Iterator[Finding]:
    """Yields what a table says of each target; of targets that were left out in turn together."""
    if section.left_out is not None:
        tested = left_out.of_networks(section.left_out)
        positive, negative = (sum(s.counts[label] for s in tested) for label in (0, 1))
        yield Finding(
            table=section.family.key,
            title=section.title,
            cohort="Each site left out",
            subjects=f"{positive} {section.classes[1]}, {negative} {section.classes[0]}",
            claims=tuple(Claim(*said) for said in left_out.claims_of(section)),
            forest=left_out.forest_of(section),
        )
        return
    for cohort in section.cohorts:
        if section.tested(cohort):
            yield Finding(
                table=section.family.key,
                title=section.title + (" (exploratory)" if section.family.exploratory else ""),
                cohort=cohort,
                subjects=section.subjects(cohort),
                claims=tuple(claims(section, cohort)),
                forest=forest(section, cohort),
            )


def wrong(analysis: Analysis) -> list[str]:
    """Returns a sentence for each network that failed or has hardly learnt."""
    return list(faults.sentences(trainings.troubled(analysis), analysis.label))


def claims(section: FamilyAnalysis, cohort: str) -> Iterator[Claim]:
    """Yields what a table says of a target."""
    yield Claim("AUC", _source(section, cohort))
    rows = section.differences
    if len(rows):
        rows = rows[rows["cohort"].eq(cohort) & rows["split"].eq("test")]
        auc = rows[rows["metric"].eq("auc") & rows["point"].eq(ARGMAX)]
        beside = auc["second"].isin(section.family.plain)
        networks = ~rows["first"].isin(section.family.plain)
        balanced = rows[rows["metric"].eq("bac") & networks]
        yield from (Claim("Networks", text) for text in _networks(section, auc[~beside]))
        yield from (Claim("Threshold", text) for text in _threshold(section, balanced))
        against = auc[beside & ~auc["first"].isin(section.family.plain)]
        yield from (Claim("Baselines", text) for text in _baselines(section, against))
    yield from (Claim("How sure", text) for text in _certainty(section, cohort))


def _source(section: FamilyAnalysis, cohort: str) -> str:
    """Returns the mean AUC of a table's first networks, and whether it excludes chance."""
    first = section.family.networks[0]
    row = _auc_of(section, cohort, first.name)
    if row is None or pd.isna(row["mean"]):
        why = str(row["note"]) if row is not None else ""
        return f"{label(first)}: undefined here{f' ({why})' if why else ''}."
    told = f"{label(first)}: a mean of {percent(row['mean'])}%"
    limits = interval(row["a_low"], row["a_high"])
    if not limits:
        return f"{told}, without an interval."
    chance = "above" if row["a_low"] > 0.5 else "not clearly different from"
    if row["a_high"] < 0.5:
        chance = "below"
    return f"{told} {limits}, {chance} chance."


def _networks(section: FamilyAnalysis, rows: pd.DataFrame) -> Iterator[str]:
    """Yields how many pairs of networks differ in AUC, and the one that differs most."""
    tested = _tested(rows)
    if not len(rows):
        return
    if not len(tested):
        yield "No pair of networks could be tested for a difference in AUC."
        return
    untested = _untested(rows, tested)
    largest = tested.loc[tested["difference"].abs().idxmax()]
    pair = _pair(section, largest)
    if section.family.exploratory:
        yield f"Not planned for inference, the largest difference in AUC: {pair}{untested}."
        return
    hold = tested[tested["p_holm"] < ALPHA]
    if len(tested) == 1:
        yield f"{pair}: {'a' if len(hold) else 'no'} clear difference{untested}."
        return
    if not len(hold):
        none = f"no clear difference in AUC in {len(tested)} comparisons"
        yield f"{none}; the largest: {pair}{untested}."
        return
    shown = hold.loc[hold["difference"].abs().idxmax()]
    differ = "shows a clear difference" if len(hold) == 1 else "show clear differences"
    count = f"{len(hold)} of {len(tested)} comparisons {differ} in AUC"
    which = ":" if len(hold) == 1 else "; the largest of these:"
    doubt = ""
    if shown["low"] <= 0 <= shown["high"]:
        doubt = "; its interval, by another method, holds 0: read it as doubtful"
    yield f"{count}{which} {_pair(section, shown)}{doubt}{untested}."


def _threshold(section: FamilyAnalysis, rows: pd.DataFrame) -> Iterator[str]:
    """Yields whether a refitted threshold does for balanced accuracy what adapting does."""
    rows = rows[rows["difference"].notna()].set_index(["first", "second"])
    plain, refitted = (rows[rows["point"].eq(point)] for point in (ARGMAX, REFITTED))
    both = refitted.index.intersection(plain.index)
    if not len(both):
        return
    pair = plain.loc[both, "difference"].abs().idxmax()
    tuned, threshold = plain.loc[pair], refitted.loc[pair]
    most = f", which changes most of {len(both)}" if len(both) > 1 else ""
    yield (
        f"{section.label(pair[0])}{most}: balanced accuracy {_change(tuned)} points against the "
        f"source network ({_p(tuned)}), {_change(threshold)} against it with a refitted threshold "
        f"({_p(threshold)}){'' if section.family.exploratory else _meaning(tuned, threshold)}."
    )


def _meaning(tuned: pd.Series, threshold: pd.Series) -> str:
    """Returns what two comparisons say together."""
    if pd.isna(tuned["p_holm"]) or pd.isna(threshold["p_holm"]):
        return ""
    if threshold["p_holm"] < ALPHA:
        more = "more" if threshold["difference"] > 0 else "less"
        return f": it does {more} than a new threshold alone"
    change = "a clear gain" if tuned["difference"] > 0 else "a clear loss"
    if tuned["p_holm"] >= ALPHA:
        change = "no clear change"
    return f": {change}, and no clear difference from a new threshold alone"


def _baselines(section: FamilyAnalysis, rows: pd.DataFrame) -> Iterator[str]:
    """Yields which baselines are better or worse than networks, or not told apart from them."""
    tested = _tested(rows)
    if not len(rows):
        return
    if not len(tested):
        yield "No baseline could be compared with the networks."
        return
    if section.family.exploratory:
        largest = tested.loc[tested["difference"].abs().idxmax()]
        yield f"Against a baseline, not planned for inference: {_pair(section, largest)}."
        return
    first = section.family.networks[0].name
    first = first if first in set(tested["first"]) else str(tested["first"].iloc[0])
    mine = tested[tested["first"] == first].sort_values("difference")
    told = "; ".join(_plain(section, row) for _, row in mine.iterrows())
    others = len(tested["first"].unique()) - 1
    more = f"; {counted(others, 'other network')} in the table" if others else ""
    yield f"against {section.label(first)}: {told}{more}{_untested(rows, tested)}."


def _tested(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["p_holm"].notna() & rows["difference"].notna()]


def _untested(rows: pd.DataFrame, tested: pd.DataFrame) -> str:
    missing = len(rows) - len(tested)
    return f"; {missing} more could not be tested" if missing else ""


def _plain(section: FamilyAnalysis, row: pd.Series) -> str:
    name, low, high = section.label(row["second"]), row["low"], row["high"]
    if row["p_holm"] >= ALPHA:
        change = f"{signed(-row['difference'])} {interval(-high, -low)}".rstrip()
        return f"{name}: no clear difference ({change} points, {_p(row)})"
    better = row["difference"] < 0
    limits = interval(-high, -low) if better else interval(low, high)
    size = f"{percent(abs(row['difference']))} {limits}".rstrip()
    return f"{name}: {'better' if better else 'worse'} by {size} points ({_p(row)})"


def _certainty(section: FamilyAnalysis, cohort: str) -> Iterator[str]:
    """Yields how well the AUC of the first networks is known."""
    row = _auc_of(section, cohort, section.family.networks[0].name)
    if row is None or pd.isna(row["a_low"]):
        return
    within, retrained = (percent((row[f"{k}_high"] - row[f"{k}_low"]) / 2) for k in "ab")
    also = f", ±{retrained} for networks trained anew" if pd.notna(row["b_low"]) else ""
    first = section.label(section.family.networks[0].name)
    yield (
        f"with {section.subjects(cohort)} the AUC of {first} has a margin of ±{within} points on "
        f"new subjects{also}."
    )


def _auc_of(section: FamilyAnalysis, cohort: str, method: str) -> pd.Series | None:
    rows = section.summary
    found = rows[
        rows["cohort"].eq(cohort)
        & rows["split"].eq("test")
        & rows["metric"].eq("auc")
        & rows["method"].eq(method)
    ]
    return found.iloc[0] if len(found) else None


def _pair(section: FamilyAnalysis, row: pd.Series) -> str:
    return f"{section.pair(row['first'], row['second'])} {_change(row)} points ({_p(row)})"


def _change(row: pd.Series) -> str:
    return f"{signed(row['difference'])} {interval(row['low'], row['high'])}".rstrip()


def _p(row: Mapping[Hashable, Any] | pd.Series) -> str:
    return "no test" if pd.isna(row["p_holm"]) else f"adjusted p {p_value(row['p_holm'])}"
