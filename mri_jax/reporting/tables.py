"""Tables in the paper's layout, one a function, from the statistics of a section."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mri_jax.evaluation.metrics import METRICS
from mri_jax.evaluation.operating import REFITTED
from mri_jax.reporting.analysis import FamilyAnalysis
from mri_jax.reporting.published import published_p
from mri_jax.runs.labels import titled
from mri_jax.showing.forms import TESTED
from mri_jax.showing.numbers import (
    DASH,
    interval,
    p_value,
    percent,
    ratio,
    signed,
)
from mri_jax.showing.table import Cell, Table, text, without_empty

SPREAD = "SD over the networks and interval B"
"""What a page folds below a score."""


SEEN = "seen by the search"
"""What is said of held-out scores of networks that a search chose."""


def tables_of(
    section: FamilyAnalysis,
    published: pd.DataFrame | None = None,
    marks: Mapping[str, str] | None = None,
) -> list[Table]:
    """Returns every table of a section that has rows.

    Args:
      section: The section.
      published: Values that a paper printed.
      marks: What is wrong with networks, by method; it stands below the method's label.
    """
    made = [
        scores_table(section, published, marks),
        ensemble_table(section),
        differences_table(section),
        anova_table(section, published),
        points_table(section),
        calibration_table(section),
        held_out_table(section, marks),
    ]
    return [table for table in made if table.rows]


def scores_table(
    section: FamilyAnalysis,
    published: pd.DataFrame | None = None,
    marks: Mapping[str, str] | None = None,
) -> Table:
    """Returns the mean over networks for each cohort with interval A; SD and interval B folded."""
    rows = []
    frame = section.summary[section.summary["split"] == "test"]
    for (cohort, method), group in frame.groupby(["cohort", "method"], sort=False):
        rows.append(_scores_row(section, cohort, method, group, marks))
        if group.iloc[0]["run"] not in section.family.baselines:
            rows += _published_rows(section, published, cohort, method)
    note = (
        "Mean over the networks in percent, at argmax, with interval A: these networks on new "
        "subjects (DeLong with the networks' covariance for the AUC, class-stratified bootstrap "
        "for the rest). SD (n − 1) over the networks; B: new subjects and retrained networks."
    )
    header = ("Method", TESTED, _subjects(section), *(m.upper() for m in METRICS))
    title = "Scores" if not section.family.exploratory else "Scores (exploratory)"
    key, data = f"{section.family.key}-scores", _with_labels(section, frame)
    return Table(key, title, header, tuple(rows), note, data, details=SPREAD)


def held_out_table(section: FamilyAnalysis, marks: Mapping[str, str] | None = None) -> Table:
    """Returns the same scores on the held-out folds of the source."""
    frame = section.summary[section.summary["split"] == "validation"]
    seen = {m.name: SEEN for m in section.family.networks if m.variant.chosen}
    told = {**(marks or {})}
    told |= {name: "; ".join(filter(None, (told.get(name), mark))) for name, mark in seen.items()}
    rows = [
        _scores_row(section, cohort, method, group, told)
        for (cohort, method), group in frame.groupby(["cohort", "method"], sort=False)
    ]
    note = (
        "As the scores above, on the source: each network on the fold that it was not trained on. "
        "These folds chose the epoch, so the scores are a little too good."
    )
    if seen:
        note += (
            f" What is {SEEN} was chosen on most of these subjects, too, and is better here than "
            'it would be on others; its score on the subjects set aside is under "What the search '
            'did".'
        )
    header = ("Method", "Source", "Subjects", *(m.upper() for m in METRICS))
    key, data = f"{section.family.key}-held-out", _with_labels(section, frame)
    return Table(
        key, "Held-out source folds", header, tuple(rows), note, data, details=SPREAD,
        lead="The same scores on the source's own subjects.",
    )  # fmt: skip


def _subjects(section: FamilyAnalysis) -> str:
    return f"Subjects ({section.classes[1]} + {section.classes[0]})"


def _with_labels(section: FamilyAnalysis, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the data of a table with the labels of its methods beside their names."""
    frame = frame.copy()
    for name, label in (("method", "label"), ("first", "first_label"), ("second", "second_label")):
        if name in frame.columns:
            labels = [section.label(method) for method in frame[name]]
            frame.insert(frame.columns.get_loc(name) + 1, label, labels)
    return frame


def _scores_row(
    section: FamilyAnalysis,
    cohort: str,
    method: str,
    group: pd.DataFrame,
    marks: Mapping[str, str] | None,
) -> tuple[Cell, ...]:
    by_metric = group.set_index("metric")
    scores = [_score(by_metric.loc[metric]) for metric in METRICS]
    mark, label = (marks or {}).get(method), titled(section.label(method))
    named = Cell(f"{label}\n{mark}" if mark else label, label)
    return (named, text(cohort), _counted(group.iloc[0]), *scores)


def _counted(row: pd.Series) -> Cell:
    positive, negative = row["n_positive"], row["n_negative"]
    if pd.isna(positive):
        return Cell(DASH, -1.0)
    return Cell(f"{int(positive)} + {int(negative)}", float(positive + negative))


def _score(row: pd.Series) -> Cell:
    mean = float(row["mean"]) if pd.notna(row["mean"]) else float("nan")
    if np.isnan(mean):
        return Cell("undefined" if str(row["note"]).startswith("undefined") else DASH, -1.0)
    spread = "" if pd.isna(row["sd"]) else f"SD {percent(row['sd'])}"
    a, b = (interval(row[f"{name}_low"], row[f"{name}_high"]) for name in "ab")
    lines = [spread, "" if a else f"no interval: {row['a_note']}"]
    if a or row["a_note"] != row["b_note"]:
        lines.append("B " + (b or f"none: {row['b_note']}"))
    details = "\n".join(filter(None, lines))
    return Cell(f"{percent(mean)} {a}".rstrip(), mean, details)


def _published_rows(
    section: FamilyAnalysis, published: pd.DataFrame | None, cohort: str, method: str
) -> list[tuple[Cell, ...]]:
    if published is None or published.empty:
        return []
    chosen = published[
        published["family"].eq(section.family.key)
        & published["cohort"].eq(cohort)
        & published["run"].eq(method)
    ].set_index("metric")
    if not set(METRICS) & set(chosen.index):
        return []
    label = f"{titled(section.label(method))}, as published (real data)"
    cells = [text(label), text(cohort), Cell(DASH, -1.0)]
    for metric in METRICS:
        if metric not in chosen.index:
            cells.append(Cell(DASH, -1.0))
            continue
        row = chosen.loc[metric]
        spread = "" if pd.isna(row["sd"]) else f" ± {row['sd']:.2f}"
        cells.append(Cell(f"{row['mean']:.2f}{spread}", float(row["mean"]) / 100))
    return [tuple(cells)]


def ensemble_table(section: FamilyAnalysis) -> Table:
    """Returns the mean probability over the networks, as one classifier."""
    frame = section.summary[section.summary["ensemble"].notna()]
    rows = []
    for (cohort, method), group in frame.groupby(["cohort", "method"], sort=False):
        by_metric = group.set_index("metric")
        cells = [text(titled(section.label(method))), text(cohort), _counted(group.iloc[0])]
        for metric in METRICS:
            if metric not in by_metric.index:
                cells.append(Cell(DASH, -1.0))
                continue
            row = by_metric.loc[metric]
            limits = interval(row["ensemble_low"], row["ensemble_high"])
            missing = "" if limits else f"no interval: {row['ensemble_note']}"
            shown = f"{percent(row['ensemble'])} {limits}".rstrip()
            cells.append(Cell(shown, float(row["ensemble"]), missing))
        rows.append(tuple(cells))
    note = (
        "Mean probability over the networks, percent, with 95% intervals over new subjects: DeLong "
        "(AUC), Wilson (ACC, SEN, SPE), class-stratified bootstrap (BAC)."
    )
    header = ("Method", TESTED, _subjects(section), *(m.upper() for m in METRICS))
    columns = ["family", "method", "cohort", "metric", "ensemble", "ensemble_low", "ensemble_high"]
    key, data = f"{section.family.key}-ensembles", _with_labels(section, frame[columns])
    missing = "why there is no interval" if any(c.details for row in rows for c in row) else ""
    return Table(
        key, "The ensembles", header, tuple(rows), note, data, details=missing,
        lead="The networks of all folds as one classifier.",
    )  # fmt: skip


def differences_table(section: FamilyAnalysis) -> Table:
    """Returns every declared pair on every cohort: difference with its interval, p, Holm's p."""
    frame = section.differences
    rows = []
    key = ["cohort", "split", "first", "second", "point"]
    for (cohort, split, first, second, point), group in (
        frame.groupby(key, sort=False) if len(frame) else ()
    ):
        by_metric = group.set_index("metric")
        at = ", threshold refitted" if point == REFITTED else ""
        tests = ", ".join(test for test in dict.fromkeys(group["test"]) if test)
        pair = f"{titled(section.pair(first, second))}{at}"
        cells = [Cell(pair, pair, f"test: {tests}" if tests else "")]
        cells += [text(cohort if split == "test" else f"{cohort} (held-out folds)")]
        cells += [_change(by_metric.loc[m]) if m in by_metric.index else text("") for m in METRICS]
        cells += [_mcnemar(by_metric.loc["acc"]), text(_missing(group))]
        rows.append(tuple(cells))
    note = (
        "First minus second on the same subjects, in percentage points, with its 95% interval over "
        "new subjects (corrected t on held-out folds). p: paired permutation on the mean over "
        "networks (DeLong's beside it for the AUC); Holm within this table and score. The interval "
        "and the p are two methods: near 0.05 one may exclude what the other allows. McNemar: "
        "odds ratio of the ensembles' discordant decisions with its exact interval."
    )
    if len(frame) and frame["point"].eq(REFITTED).any():
        note += (
            " Where the second network's threshold was refitted on the adaptation part, a "
            "difference near zero means that a new threshold does what fine-tuning does; Holm "
            "within these rows."
        )
    header = ("Methods", TESTED, *(m.upper() for m in METRICS), "McNemar", "Note")
    columns, shown = without_empty(header, rows)
    title = "Differences between methods"
    data = _with_labels(section, frame)
    return Table(
        f"{section.family.key}-differences", title, columns, shown, note, data,
        details="tests and p-values", lead="Every planned pair on the same subjects.",
    )  # fmt: skip


def _change(row: pd.Series) -> Cell:
    change = float(row.get("difference", np.nan))
    if np.isnan(change):
        return Cell(DASH, change)
    limits = interval(row["low"], row["high"])
    lines = []
    if pd.notna(row["p"]):
        lines += [f"p {p_value(row['p'])}", f"Holm {p_value(row['p_holm'])}"]
    if pd.notna(row.get("p_delong", np.nan)):
        lines.append(f"DeLong p {p_value(row['p_delong'])}")
    return Cell(f"{signed(change)} {limits}".rstrip(), change, "\n".join(lines))


def _mcnemar(row: pd.Series) -> Cell:
    odds = float(row.get("odds", np.nan))
    if np.isnan(odds):
        return Cell("", odds)
    values = (ratio(row[name]) for name in ("odds", "odds_low", "odds_high"))
    return Cell("{} [{}, {}]".format(*values), odds, f"p {p_value(row['p_mcnemar'])}")


def _missing(group: pd.DataFrame) -> str:
    """Returns for which scores of a row something is missing, and why."""
    parts = []
    noted = group[group["note"] != ""]
    for note, rows in noted.groupby("note", sort=False):
        which = ", ".join(rows["metric"].str.upper())
        parts.append(str(note) if len(rows) == len(group) else f"{which}: {note}")
    return "\n".join(parts)


def anova_table(section: FamilyAnalysis, published: pd.DataFrame | None = None) -> Table:
    """Returns what the paper tested, labelled as what it is."""
    frame = section.anova
    rows = []
    for row in frame.to_dict("records") if len(frame) else []:
        if row["split"] != "test":
            continue
        printed = published_p(published, section.family.key, row["cohort"], row["metric"])
        limits = "" if np.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
        eta = DASH if np.isnan(row["eta_squared"]) else f"{row['eta_squared']:.2f}{limits}"
        rows.append(
            (
                text(row["metric"].upper()),
                text(row["cohort"]),
                Cell(str(int(row["methods"])), float(row["methods"])),
                Cell(eta, float(row["eta_squared"])),
                Cell(p_value(row["p"]), float(row["p"])),
                Cell(printed.words, printed.printed),
            )
        )
    note = (
        "One-way ANOVA over the networks' values, as in the paper. It treats folds as independent, "
        "which they are not: they share the test subjects and most training subjects. The paired "
        "tests stand in the table of differences. The interval is of the population's η² "
        "(non-central F), corrected for chance: it may lie below the η² of these networks."
    )
    if section.family.key == "depth":
        note += (
            " For accuracy in its Table 1 (real data, three target cohorts) the paper prints p = "
            "0.5278, 0.5431 and 0.2348."
        )
    header = ("Score", TESTED, "Methods", "η² [95%]", "p", "p as published")
    columns, shown = without_empty(header, rows)
    title = "The paper's test: ANOVA"
    return Table(
        f"{section.family.key}-anova", title, columns, shown, note, frame,
        lead="What the paper tested, which takes folds for independent.",
    )  # fmt: skip


def points_table(section: FamilyAnalysis) -> Table:
    """ACC, BAC, SEN and SPE at every threshold that may be fitted."""
    frame = section.points
    rows = []
    for (cohort, method, point), group in frame.groupby(["cohort", "method", "point"], sort=False):
        by_metric = group.set_index("metric")
        note = str(group["note"].iloc[0])
        missing = by_metric["mean"].isna().all()
        cells = [
            text(titled(section.label(method))),
            text(cohort),
            text(f"{point}: {note}" if missing and note else point),
        ]
        cells += [_score(by_metric.loc[m]) for m in METRICS if m != "auc"]
        rows.append(tuple(cells))
    note = (
        "Thresholds: argmax as in the paper; the one of highest balanced accuracy on each "
        "network's own held-out source fold; for source networks beside a fine-tuning, the one "
        "refitted on the same adaptation part of the target (if that recovers the sensitivity, the "
        "features did not transfer better); for tuned networks, the one cross-validated inside the "
        "adaptation part. "
        "None is fitted on subjects that the network trained on, nor on test subjects."
    )
    header = ("Method", TESTED, "Threshold", "ACC", "BAC", "SEN", "SPE")
    key, data = f"{section.family.key}-operating-points", _with_labels(section, frame)
    return Table(
        key, "Operating points", header, tuple(rows), note, data, details=SPREAD,
        lead="Sensitivity and specificity at argmax and at thresholds that were fitted.",
    )  # fmt: skip


def calibration_table(section: FamilyAnalysis) -> Table:
    """ECE and Brier score before and after temperature scaling."""
    frame = section.calibration
    rows = []
    for row in frame.to_dict("records") if len(frame) else []:
        numbers = ("ece", "brier", "temperature", "ece_scaled", "brier_scaled")
        cells = [
            Cell(DASH if np.isnan(row[n]) else f"{row[n]:.3f}", float(row[n])) for n in numbers
        ]
        label = titled(section.label(row["method"]))
        rows.append((text(label), text(row["cohort"]), *cells, text(row["note"])))
    note = (
        "Means over the networks. Temperatures come from each network's held-out source fold "
        "(tuned networks: cross-validated scores inside the adaptation part); shown is their mean. "
        "(A model card states the one temperature of the pooled folds, which differs from it.)"
    )
    header = (
        "Method", TESTED, "ECE", "Brier", "Temperature", "ECE scaled", "Brier scaled",
        "Note",
    )  # fmt: skip
    columns, shown = without_empty(header, rows)
    key, data = f"{section.family.key}-calibration", _with_labels(section, frame)
    return Table(
        key, "Calibration", columns, shown, note, data,
        lead="Whether the predicted probabilities can be taken at their word.",
    )  # fmt: skip
