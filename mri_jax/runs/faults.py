"""Networks of a results folder whose training failed or taught hardly anything, in sentences."""

from collections.abc import Callable, Iterable, Iterator

import pandas as pd

from mri_jax.evaluation import learning
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.evaluation.learning import FAILED, HARDLY
from mri_jax.runs.results import Results

KEY = ["run", "stage", "repeat", "fold"]
COLUMNS = [*KEY, "what", "reason"]
# More ways of fine-tuning than this are counted, not named.
_NAMED = 3
_CONSEQUENCE = {
    FAILED: "no score is given for it, and none for a mean over these networks",
    HARDLY: "it counts in every mean, SD and interval",
}
_HEIRS = {
    FAILED: "; the networks tuned from it ({}) failed with it",
    HARDLY: ", as do the networks tuned from it ({})",
}


def of_run(run: Results) -> pd.DataFrame:
    """Returns the networks of a run with which something is wrong.

    Returns:
      A row a network: ``run``, ``stage``, ``repeat``, ``fold``, ``what`` (`FAILED` or `HARDLY`) and
      ``reason``.
    """
    if "not_learnt" in run.plan.columns:
        return of_plan(run.plan)
    # Earlier versions did not record it; their predictions say it.
    balanced = run.study is not None and run.study.train.class_weights == "balanced"
    found = learning.unlearnt(run.predictions, dict.fromkeys(run.predictions["run"], balanced))
    return found.assign(stage=SOURCE, repeat=0, what=HARDLY).reindex(columns=COLUMNS)


def of_plan(plan: pd.DataFrame) -> pd.DataFrame:
    """Returns what the columns ``failed`` and ``not_learnt`` of a plan say, as `of_run` does."""
    parts = [pd.DataFrame(columns=COLUMNS)]
    for kind, what in (("failed", FAILED), ("not_learnt", HARDLY)):
        if kind in plan.columns:
            told = plan[plan[kind].map(lambda value: isinstance(value, str) and value != "")]
            parts.append(told[KEY].assign(what=what, reason=told[kind]))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def told_of(run: Results, variant: str, stages: Iterable[str]) -> list[str]:
    """Returns the `sentences` of a variant's networks of some stages, and of their sources."""
    rows = of_run(run)
    asked = rows["run"].eq(variant) & rows["stage"].isin([SOURCE, *stages])
    return list(sentences(rows[asked]))


def method_name(run: str, stage: str) -> str:
    """Returns the name of a run at a stage in tables and files."""
    return Method(run, stage).name


def words(rows: pd.DataFrame) -> pd.Series:
    """Returns what is said of each of `of_run`'s networks in a table's cell."""
    return rows["what"].mask(_inherited(rows), learning.INHERITED)


def _inherited(rows: pd.DataFrame) -> pd.Series:
    return rows["reason"].astype(str).str.endswith(learning.INHERITED)


def sentences(
    rows: pd.DataFrame,
    named: Callable[[str, str], str] = method_name,
) -> Iterator[str]:
    """Yields a sentence for source networks that share a fault, with those tuned from them.

    Args:
      rows: From `of_run`, of one run or of several.
      named: Returns what a run at a stage is called.
    """
    own, cause = rows["stage"].eq(SOURCE), pd.MultiIndex.from_frame(rows[["run", "fold", "what"]])
    heir = rows["what"].eq(FAILED) | _inherited(rows)
    inherited = ~own & heir & cause.isin(cause[own])
    groups = rows[~inherited].groupby(["run", "stage", "what", "reason"], sort=False)
    for (run, stage, what, reason), group in groups:
        who = f"{folds(group['fold']).capitalize()} of {named(run, stage)}"
        heirs = inherited & rows["run"].eq(run) & rows["fold"].isin(group["fold"])
        stages = rows.loc[heirs & rows["what"].eq(what), "stage"].drop_duplicates()
        tuned = "; ".join(named(run, stage) for stage in stages)
        if len(stages) > _NAMED:
            tuned = f"of {len(stages)} ways of fine-tuning"
        too = _HEIRS[what].format(tuned) if tuned else ""
        yield f"{who}: {what}: {reason}; {_CONSEQUENCE[what]}{too}."


def folds(numbers: Iterable[int]) -> str:
    """Returns ``fold 3`` or ``folds 0, 3``."""
    found = sorted(set(map(int, numbers)))
    return f"fold{'s' * (len(found) > 1)} {', '.join(map(str, found))}"
