"""What a search found, in at most six sentences: nothing, where the numbers do not hold it."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from mri_jax.evaluation.operating import ARGMAX
from mri_jax.evaluation.variants import SEARCHED
from mri_jax.problems import counted
from mri_jax.reporting.findings import ALPHA, Claim
from mri_jax.reporting.search import WORDS, SearchAnalysis
from mri_jax.runs.labels import of_run, titled
from mri_jax.runs.search import BESIDE, COMPLETE
from mri_jax.showing.numbers import interval, p_value, percent, signed

NOTHING = "Nothing was found"


def claims(search: SearchAnalysis) -> Iterator[Claim]:
    """Yields what a search found, first of all whether it found anything."""
    yield Claim("Found", _verdict(search))
    yield from (Claim("Against", told) for told in _against(search))
    yield Claim("Winner", _winning(search))
    yield Claim("Trials", _trials(search))
    yield Claim("Fields", _fields(search))


def found_nothing(search: SearchAnalysis) -> bool:
    """Returns whether the winner is not clearly better than chance on those set aside.

    A perfect separation has no interval; it is beyond chance where few orders of the labels have
    it.
    """
    row = _winner(search)
    if row is None or pd.isna(row["mean"]):
        return True
    if row["mean"] == 1.0:
        positive, negative = int(row["n_positive"]), int(row["n_negative"])
        return 1 / math.comb(positive + negative, positive) > ALPHA / 2
    return pd.isna(row["a_low"]) or not row["a_low"] > 0.5


def _winner(search: SearchAnalysis) -> pd.Series | None:
    section = search.aside
    names = [m.name for m in section.family.networks if m.variant.chosen == SEARCHED]
    rows = section.summary
    chosen = rows[rows["metric"].eq("auc") & rows["split"].eq("test") & rows["method"].isin(names)]
    return chosen.iloc[0] if len(chosen) else None


def _verdict(search: SearchAnalysis) -> str:
    row = _winner(search)
    who = f"on {search.aside.subjects(search.aside.cohorts[0])} set aside before the first trial"
    if row is None or pd.isna(row["mean"]):
        return f"{NOTHING}: the winner has no AUC {who}."
    limits = interval(row["a_low"], row["a_high"]) or f"(no interval: {row['a_note']})"
    told = f"{percent(row['mean'])}% {limits}"
    if found_nothing(search):
        return (
            f"{NOTHING}: {who} the winner's AUC is {told}, not clearly above chance, whatever the "
            "trials' own held-out scores say."
        )
    gains = [each for each in _differences(search) if each["p_holm"] < ALPHA]
    better = [each for each in gains if each["difference"] > 0]
    if not better:
        return (
            f"{who} the winner's AUC is {told}, above chance; {NOTHING.lower()} that is clearly "
            "better than what it is compared with."
        )
    names = " and ".join(_run_of(search, each["second"]) for each in better)
    return f"{who} the winner's AUC is {told}, clearly better than {names}."


def _winning(search: SearchAnalysis) -> str:
    """Returns which trial won, with its values; it is the best of the search, not of all trials."""
    about = search.searched.chosen["chosen"][SEARCHED]
    values = ", ".join(f"{name} {_short(value)}" for name, value in about["values"].items())
    return f"Trial {about['trial']} of {titled(search.kinds[about['search']])}: {values}."


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(str, value))})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _differences(search: SearchAnalysis) -> list[dict]:
    rows = search.aside.differences
    if not len(rows):
        return []
    tested = rows[rows["metric"].eq("auc") & rows["split"].eq("test") & rows["point"].eq(ARGMAX)]
    return tested[tested["difference"].notna()].to_dict("records")


def _against(search: SearchAnalysis) -> Iterator[str]:
    """Yields the winner's difference from each of the others on those set aside."""
    told = []
    for row in _differences(search):
        limits = interval(row["low"], row["high"])
        p = "no test" if pd.isna(row["p_holm"]) else f"adjusted p {p_value(row['p_holm'])}"
        change = f"{signed(row['difference'])} {limits}".rstrip()
        told.append(f"{_run_of(search, row['second'])} {change} points ({p})")
    if told:
        yield f"The winner minus {'; minus '.join(told)}, all on those set aside."


def _run_of(search: SearchAnalysis, name: str) -> str:
    """Returns what people call a method on those set aside: the config's own is said to be it."""
    method = next(m for m in search.aside.family.methods if m.name == name)
    return of_run(method) if method.variant.chosen else f"{of_run(method)} as configured"


def _trials(search: SearchAnalysis) -> str:
    """Returns how many trials there were, and the best score of each search, which is too good."""
    rows, parts = search.searched.trials, []
    name = WORDS[search.objective]
    for kind, called in search.kinds.items():
        own = rows[rows["search"].eq(kind)]
        done = own[own["state"].eq(COMPLETE)]
        pruned = len(own) - len(done)
        left = f", {pruned} of them pruned" if pruned else ""
        best = ""
        if len(done):
            values = search.sign * done[search.objective]
            value = search.sign * values.max()
            best = (
                f", best {name} {percent(value) if search.objective == 'auc' else f'{value:.3g}'}"
            )
        parts.append(f"{titled(called)}: {counted(len(own), 'trial')}{left}{best}")
    because = "the best of many is too good a score of itself"
    if BESIDE in search.kinds:
        beside = "; the winner is the best of the search itself, whatever random trials have"
    else:
        beside = "; no random trials stand beside them"
    return f"{'; '.join(parts)} on their own held-out folds ({because}){beside}."


def _fields(search: SearchAnalysis) -> str:
    clear = [found for found, adjusted in search.importances if adjusted < ALPHA]
    name = WORDS[search.objective]
    if not clear:
        return f"The trials do not show that the {name} depends on any single field."
    told = ", ".join(
        f"{found.field} ({percent(found.share, 0)}% {interval(found.low, found.high)})"
        for found in clear
    )
    return f"Of the {name} over the trials, fields explain by themselves: {told}."
