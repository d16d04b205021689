"""The study's own tables: mean and SD over the networks, in percent, as the paper prints them."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from etils import epath

from mri_jax.evaluation.delong import auc_interval
from mri_jax.evaluation.families import SOURCE, declare
from mri_jax.evaluation.learning import FAILED
from mri_jax.evaluation.metrics import METRICS, ensemble, mean_and_sd, metrics_table, score_of
from mri_jax.evaluation.reasons import without_interval
from mri_jax.evaluation.variants import of_rows
from mri_jax.runs import faults, results
from mri_jax.runs.faults import folds
from mri_jax.showing import forms
from mri_jax.showing.numbers import difference, estimated, mean_sd, percent, signed
from mri_jax.showing.simulated import SCORES
from mri_jax.showing.table import Table, from_frame

EXPLORATORY = (
    "Exploratory: many sets of layers on one test set; read their ranking as a hypothesis."
)

UNDEFINED = "undefined"
"""What stands for a score that a class is needed for which the test set lacks."""


def comparisons(
    predictions: pd.DataFrame, plan: pd.DataFrame, classes: tuple[str, str]
) -> list[Table]:
    """Returns a table for each test cohort, a row a network and stage in the order of the plan.

    Args:
      predictions: The predictions table.
      plan: A row an entry, as in ``plan.json``; gives the order and the parameter counts.
      classes: Names of label 0 and 1.

    Returns:
      Tables of ``run``, ``stage`` (empty for baselines), trained parameters, the subjects of each
      class (``AD + CN``), the five scores as ``mean ± SD``, ``ensemble AUC [95% CI]``, and ``note``
      where something is wrong with a network of a row; the table's own note says where so many sets
      of layers were tuned that their ranking proves nothing.
    """
    tested = predictions[predictions["split"] == "test"]
    each = metrics_table(tested)
    scores = mean_and_sd(each).set_index(["run", "stage", "cohort"])
    together = ensemble(predictions)
    exploratory = any(family.exploratory for family in declare(predictions))
    plain = {run for run, variant in of_rows(tested).items() if variant.is_baseline}
    counted = f"{classes[1]} + {classes[0]}"
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
                    "stage": "" if run in plain else stage,
                    "trained parameters": _parameters(trained),
                    counted: f"{row['n_positive']:.0f} + {row['n_negative']:.0f}",
                    **{m.upper(): _mean_sd(row[f"{m}_mean"], row[f"{m}_sd"]) for m in METRICS},
                    "ensemble AUC [95% CI]": _interval(together, run, stage, cohort),
                    "note": _note(trained, each, (run, stage, cohort)),
                }
            )
        frame = pd.DataFrame(rows)
        noted = len(frame) and frame["note"].ne("").any()
        frame = frame if noted else frame.drop(columns="note", errors="ignore")
        title = f"Tested on {cohort}: mean ± SD over the networks, percent"
        table = from_frame(f"test-{cohort}", title, frame, EXPLORATORY if exploratory else "")
        tables.append(replace(table, condensed=False))
    return tables


def _note(trained: pd.DataFrame, each: pd.DataFrame, where: tuple[str, str, str]) -> str:
    """Returns what is wrong with a row's networks, by fold: by the plan, and NaN scores."""
    of_row = (each[["run", "stage", "cohort"]] == list(where)).all(axis=1)
    nan = set(each.loc[of_row & each["n_nan"].gt(0), "fold"])
    found = faults.of_plan(trained)
    told = {
        str(said): set(rows["fold"])
        for said, rows in found.groupby(faults.words(found), sort=False)
    }
    told["NaN scores"] = nan - told.get(FAILED, set())
    return "; ".join(f"{folds(of)}: {said}" for said, of in told.items() if of)


def write(workdir: epath.Path, tables: Iterable[Table], simulated: bool) -> None:
    """Write each table as Markdown, CSV and LaTeX under ``tables/``."""
    for table in tables:
        forms.write(workdir / results.TABLES, table, simulated)


def shown(table: Table, simulated: bool) -> str:
    """Returns a table as the terminal shows it, below its title and what must be said of it."""
    said = [f"{table.title}.", table.note, SCORES if simulated else ""]
    return f"{' '.join(filter(None, said))}\n{forms.grid(table)}"


def effects(predictions: pd.DataFrame) -> list[str]:
    """Returns what fine-tuning changed: a line a (run, tuned stage, cohort), in points of AUC."""
    tested = predictions[predictions["split"] == "test"]
    key = ["run", "stage", "cohort", "repeat", "fold"]
    scores = metrics_table(tested).set_index(key)["auc"].sort_index()
    lines = []
    for (run, stage, cohort), tuned in scores.groupby(["run", "stage", "cohort"], sort=False):
        if stage == SOURCE:
            continue
        source = scores.loc[(run, SOURCE, cohort)]
        # Where a cohort is not fine-tuned on, the source was asked once, as repeat 0.
        places = [
            (r if r in source.index.get_level_values(0) else 0, f)
            for r, f in tuned.loc[(run, stage, cohort)].index
        ]
        change = tuned.to_numpy() - source.loc[places].to_numpy()
        name = f"{run} {stage}"
        if np.isnan(change).any():
            compared = difference(name, SOURCE, on=f"{cohort}: undefined")
            lines.append(f"{compared} for {np.isnan(change).sum()} of {len(change)} networks")
            continue
        spread = f" ± {percent(change.std(ddof=1), 2)}" if len(change) > 1 else ""
        told = difference(name, SOURCE, f"{signed(change.mean(), 2)}{spread}", f"{cohort}: AUC")
        ends = f"from {signed(change.min(), 2)} to {signed(change.max(), 2)}"
        over = f"spread over {len(change)} networks, {ends}" if len(change) > 1 else "one network"
        lines.append(f"{told} ({over})")
    return lines


def _parameters(trained: pd.DataFrame) -> str:
    counts = trained.get("trainable_parameters")
    if counts is None or counts.isna().all():
        return ""
    return f"{counts.dropna().iloc[0]:.0f}"


def _mean_sd(mean: float, sd: float) -> str:
    return UNDEFINED if np.isnan(mean) else mean_sd(mean, sd)


def _interval(together: pd.DataFrame, run: str, stage: str, cohort: str) -> str:
    """Returns the ensemble's AUC and interval over subjects, of the first repeat."""
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
    if missing:
        return f"{percent(found.estimate)} (no interval: {missing})"
    return estimated(found.estimate, found.low, found.high)
