"""Tables of a search: its trials, what they depend on, and who was set aside."""

from dataclasses import replace

import pandas as pd

from mri_jax.reporting import tables
from mri_jax.reporting.search import WORDS, SearchAnalysis
from mri_jax.runs.search import COMPLETE, PREFIX
from mri_jax.showing.numbers import interval, p_value, percent
from mri_jax.showing.table import Cell, Table, text, without_empty

_NEEDS = ("parameters", "multiply_adds", "mebibytes", "step_seconds")


def search_tables(search: SearchAnalysis) -> list[Table]:
    """Returns the tables of a search, the scores of those set aside first."""
    return [*aside_tables(search), importance_table(search), trials_table(search)]


def aside_tables(search: SearchAnalysis) -> list[Table]:
    """Returns scores and differences on the subjects who were set aside before the first trial."""
    section = search.aside
    scores = tables.scores_table(section)
    note = (
        f"The {search.study.search.folds} networks of the trial, trained inside the search, on "
        f"{len(_subjects(search))} subjects of the source who were set aside before the first "
        "trial. This is the winner's held-out score: on the folds that chose it, it is too good. "
    )
    found = [
        replace(
            scores,
            key=f"{search.key}-aside",
            title="On subjects set aside",
            note=note + scores.note,
        )
    ]
    differ = tables.differences_table(section)
    lead = "The search's winner against the best random trial and the config as it is."
    if differ.rows:
        found.append(replace(differ, key=f"{search.key}-aside-differences", lead=lead))
    return found


def _subjects(search: SearchAnalysis) -> set[str]:
    return set(search.searched.aside["subject_id"])


def importance_table(search: SearchAnalysis) -> Table:
    """Returns how much of the objective each field explains by itself."""
    rows, data = [], []
    for found, adjusted in search.importances:
        few = found.share != found.share
        limits = interval(found.low, found.high)
        shown = "too few trials, or all alike" if few else f"{percent(found.share)} {limits}"
        rows.append(
            (
                text(found.field),
                Cell(str(found.trials), float(found.trials)),
                Cell(shown, -1.0 if few else found.share),
                Cell(p_value(adjusted), adjusted if adjusted == adjusted else 2.0),
            )
        )
        data.append({**vars(found), "p_holm": adjusted})
    name = WORDS[search.objective]
    note = (
        f"Percent of the variance of the {name} over finished trials that a field explains by "
        "itself (groups of its values, or a parabola), adjusted so that 0 is expected where it "
        "does not matter; 95% interval by half-samples, p by permutation, adjusted by Holm over "
        "the fields. What fields do together is not in it. Trials of TPE gather where it was good."
    )
    header = ("Field", "Trials", "Importance, %", "Adjusted p")
    return Table(
        f"{search.key}-importance", "What the objective depends on", header, tuple(rows), note,
        pd.DataFrame(data), lead="How much each field matters, and how well the trials can tell.",
    )  # fmt: skip


def trials_table(search: SearchAnalysis) -> Table:
    """Returns a row a trial."""
    frame = search.searched.trials
    names = [*search.study.search.objectives]
    needs = [name for name in _NEEDS if name in frame.columns and name not in names]
    rows = []
    for row in frame.to_dict("records"):
        state = row["state"] if row["state"] == COMPLETE else f"{row['state']}: {row['reason']}"
        fields = [_shown(row[f"{PREFIX}{line.field}"]) for line in search.lines]
        rows.append(
            (
                text(f"{search.kinds.get(row['search'], row['search'])} {row['trial']}"),
                *(_number(name, row.get(name)) for name in names),
                *fields,
                *(_number(name, row.get(name)) for name in needs),
                _number("minutes", row["minutes"]),
                text(state),
            )
        )
    header = (
        "Trial",
        *(WORDS[name] for name in names),
        *(line.field for line in search.lines),
        *(WORDS.get(name, "MiB a step") for name in needs),
        "Minutes",
        "State",
    )
    kept, cells = without_empty(header, rows)
    note = (
        "Scores are means over the inner held-out folds. What a network needs is predicted before "
        "it is trained. A trial from cached stages takes no time."
    )
    return Table(
        f"{search.key}-trials", "Trials", kept, cells, note, frame, condensed=False,
        lead="Every trial with its fields, its scores and what became of it.",
    )  # fmt: skip


def _shown(value: object) -> Cell:
    if isinstance(value, float):
        return Cell("" if value != value else f"{value:.3g}", value)
    return text(value)


def _number(name: str, value: float | None) -> Cell:
    if value is None or value != value:
        return Cell("", -1.0)
    if name == "auc":
        return Cell(percent(value), value)
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return Cell(shown, float(value))
