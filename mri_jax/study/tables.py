"""The study's own tables: mean and SD over the networks, in percent, as the paper prints them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.evaluation.delong import auc_interval
from mri_jax.evaluation.families import declare
from mri_jax.evaluation.metrics import METRICS, ensemble, mean_and_sd, metrics_table, score_of
from mri_jax.evaluation.reasons import without_interval
from mri_jax.filenames import safe_name
from mri_jax.reporting.forms import latex_escape
from mri_jax.study.verdicts import WORDS

SIMULATED = "SIMULATED cohorts: these scores test the software and say nothing about patients."
EXPLORATORY = (
    "Exploratory: many sets of layers on one test set; read their ranking as a hypothesis."
)

UNDEFINED = "undefined"
"""What stands for a score that a class is needed for which the test set lacks."""


@dataclass(frozen=True)
class Comparison:
    """One table: the rows are networks, on one test set.

    Attributes:
      cohort: The test cohort.
      frame: ``run``, ``stage``, the five scores as ``mean ± SD``, ``ensemble AUC [95% CI]``, and
        ``note`` where something is wrong with a network of a row.
      exploratory: Whether so many sets of layers were tuned that their ranking proves nothing.
    """

    cohort: str
    frame: pd.DataFrame
    exploratory: bool


def comparisons(predictions: pd.DataFrame, plan: pd.DataFrame) -> list[Comparison]:
    """A table a test cohort, in the order of the plan.

    Args:
      predictions: The predictions table.
      plan: A row an entry, as in ``plan.json``; gives the order and the parameter counts.
    """
    tested = predictions[predictions["split"] == "test"]
    each = metrics_table(tested)
    scores = mean_and_sd(each).set_index(["run", "stage", "cohort"])
    together = ensemble(predictions)
    exploratory = any(family.exploratory for family in declare(predictions))
    order = plan[["run", "stage"]].drop_duplicates().to_numpy().tolist()
    tables = []
    for cohort in tested["cohort"].drop_duplicates():
        rows = []
        for run, stage in order:
            if (run, stage, cohort) not in scores.index:
                continue
            row = scores.loc[(run, stage, cohort)]
            trained = plan[(plan["run"] == run) & (plan["stage"] == stage)]
            rows.append(
                {
                    "run": run,
                    "stage": stage,
                    "trained parameters": _parameters(trained),
                    "n": f"{row['n_positive']:.0f}+{row['n_negative']:.0f}",
                    **{m.upper(): _mean_sd(row[f"{m}_mean"], row[f"{m}_sd"]) for m in METRICS},
                    "ensemble AUC [95% CI]": _interval(together, run, stage, cohort),
                    "note": _note(trained, each, (run, stage, cohort)),
                }
            )
        frame = pd.DataFrame(rows)
        noted = len(frame) and frame["note"].ne("").any()
        shown = frame if noted else frame.drop(columns="note", errors="ignore")
        tables.append(Comparison(cohort, shown, exploratory))
    return tables


def _note(trained: pd.DataFrame, each: pd.DataFrame, where: tuple[str, str, str]) -> str:
    """What is wrong with the networks of a row, by fold: what the plan says, and NaN scores."""
    of_row = (each[["run", "stage", "cohort"]] == list(where)).all(axis=1)
    nan = set(each.loc[of_row & each["n_nan"].gt(0), "fold"])
    told = {}
    for kind, word in WORDS.items():
        if kind in trained.columns:
            told[word] = set(trained.loc[trained[kind].map(_stated), "fold"])
    told["NaN scores"] = nan - told.get(WORDS["failed"], set())
    return "; ".join(f"{_folds(folds)} {word}" for word, folds in told.items() if folds)


def _stated(value: object) -> bool:
    """Whether a cell of the plan says something; absent ones are NaN."""
    return isinstance(value, str) and value != ""


def _folds(numbers: Iterable[int]) -> str:
    """``fold 3:`` or ``folds 0, 3:``."""
    found = sorted(set(map(int, numbers)))
    return f"fold{'s' * (len(found) > 1)} {', '.join(map(str, found))}:"


def write(workdir: epath.Path, tables: list[Comparison], simulated: bool) -> None:
    """Write each table as Markdown, CSV and LaTeX under ``tables/``."""
    for table in tables:
        place = workdir / "tables" / f"test-{safe_name(table.cohort, keep='_')}"
        title = title_of(table, simulated)
        files.write_markdown(f"{place}.md", f"{title}\n\n{markdown(table.frame)}\n")
        files.write_csv(f"{place}.csv", table.frame)
        files.write_text(f"{place}.tex", latex(table.frame, title))


def title_of(table: Comparison, simulated: bool) -> str:
    """A line above a table."""
    text = f"Tested on {table.cohort}: mean ± SD over the networks, percent."
    text += f" {EXPLORATORY}" if table.exploratory else ""
    return f"{text} {SIMULATED}" if simulated else text


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table whose columns line up in plain text too."""
    rows = [list(frame.columns), *frame.astype(str).to_numpy().tolist()]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def latex(frame: pd.DataFrame, caption: str) -> str:
    """A LaTeX table (needs no package)."""
    rows = [list(frame.columns), *frame.astype(str).to_numpy().tolist()]
    lines = [" & ".join(map(latex_escape, row)) + r" \\" for row in rows]
    body = "\n".join([lines[0], r"\hline", *lines[1:]])
    columns = "l" * len(frame.columns)
    return (
        f"\\begin{{table}}\n\\caption{{{latex_escape(caption)}}}\n\\begin{{tabular}}{{{columns}}}\n"
        f"\\hline\n{body}\n\\hline\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def effects(predictions: pd.DataFrame) -> list[str]:
    """What fine-tuning changed: one line a (run, tuned stage, cohort), in points of AUC."""
    tested = predictions[predictions["split"] == "test"]
    key = ["run", "stage", "cohort", "repeat", "fold"]
    scores = metrics_table(tested).set_index(key)["auc"].sort_index()
    lines = []
    for (run, stage, cohort), tuned in scores.groupby(["run", "stage", "cohort"], sort=False):
        if not str(stage).startswith("tuned-"):
            continue
        source = scores.loc[(run, "source", cohort)]
        # Where a cohort is not fine-tuned on, the source was asked once, as repeat 0.
        places = [
            (r if r in source.index.get_level_values(0) else 0, f)
            for r, f in tuned.loc[(run, stage, cohort)].index
        ]
        change = 100 * (tuned.to_numpy() - source.loc[places].to_numpy())
        if np.isnan(change).any():
            lines.append(
                f"{run} {stage} minus source on {cohort}: undefined for {np.isnan(change).sum()} "
                f"of {len(change)} networks"
            )
            continue
        spread = f" ± {change.std(ddof=1):.2f}" if len(change) > 1 else ""
        lines.append(
            f"{run} {stage} minus source on {cohort}: AUC {_signed(change.mean())}{spread} points "
            f"(from {_signed(change.min())} to {_signed(change.max())} over {len(change)} networks)"
        )
    return lines


def _signed(points: float) -> str:
    """``+0.24``; zero has no minus."""
    return f"{round(float(points), 2) + 0.0:+.2f}"


def _parameters(trained: pd.DataFrame) -> str:
    counts = trained.get("trainable_parameters")
    if counts is None or counts.isna().all():
        return ""
    return f"{counts.dropna().iloc[0]:.0f}"


def _mean_sd(mean: float, sd: float) -> str:
    if np.isnan(mean):
        return UNDEFINED
    return f"{100 * mean:.1f}" + ("" if np.isnan(sd) else f" ± {100 * sd:.1f}")


def _interval(together: pd.DataFrame, run: str, stage: str, cohort: str) -> str:
    """The ensemble's AUC and interval over subjects; the first repeat where there are several."""
    chosen = together[
        (together["run"] == run) & (together["stage"] == stage) & (together["cohort"] == cohort)
    ]
    chosen = chosen[chosen["repeat"] == chosen["repeat"].min()]
    positive = int(chosen["label"].sum())
    counts = (positive, len(chosen) - positive)
    if np.isnan(score_of(chosen)).any():
        return ""
    if min(counts) == 0:
        return UNDEFINED
    found = auc_interval(chosen["label"].to_numpy(), score_of(chosen))
    missing = without_interval("auc", found.estimate, found.low, counts)
    limits = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{100 * found.estimate:.1f} {f'(no interval: {missing})' if missing else limits}"
