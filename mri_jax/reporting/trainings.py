"""Networks whose training failed or taught nothing, as the page and the tables name them."""

from collections.abc import Iterator

import pandas as pd

from mri_jax.evaluation import learning
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.reporting.analysis import Analysis
from mri_jax.runs.results import Results

KEY = ["run", "stage", "repeat", "fold"]
FAILED = "training failed"
UNLEARNT = "has not learnt"


def troubled(analysis: Analysis) -> pd.DataFrame:
    """Returns the networks with which something is wrong.

    Returns:
      A row a network: run, stage, repeat, fold, ``what`` (`FAILED` or `UNLEARNT`), ``reason``.
    """
    found = pd.concat([_of_run(run) for run in analysis.runs], ignore_index=True)
    return found.drop_duplicates(KEY).reset_index(drop=True)


def _of_run(run: Results) -> pd.DataFrame:
    columns = [*KEY, "what", "reason"]
    plan = run.plan
    if "not_learnt" not in plan.columns:
        return _recomputed(run).reindex(columns=columns)
    parts = []
    for kind, what in (("failed", FAILED), ("not_learnt", UNLEARNT)):
        if kind in plan.columns:
            told = plan[plan[kind].map(lambda value: isinstance(value, str) and value != "")]
            parts.append(told[KEY].assign(what=what, reason=told[kind]))
    return pd.concat(parts, ignore_index=True).reindex(columns=columns)


def _recomputed(run: Results) -> pd.DataFrame:
    """Returns what earlier versions did not record, recomputed from their predictions."""
    balanced = run.study is not None and run.study.train.class_weights == "balanced"
    runs = dict.fromkeys(run.predictions["run"], balanced)
    found = learning.unlearnt(run.predictions, runs)
    return found.assign(stage=SOURCE, repeat=0, what=UNLEARNT)


def marks(analysis: Analysis) -> dict[str, str]:
    """Returns the marks of methods with failed networks, by name: ``fold 3: has not learnt``."""
    found: dict[str, list[str]] = {}
    for (run, stage, what), group in troubled(analysis).groupby(
        ["run", "stage", "what"], sort=False
    ):
        found.setdefault(Method(run, stage).name, []).append(f"{folds(group['fold'])}: {what}")
    return {name: "; ".join(told) for name, told in found.items()}


def sentences(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence for a run's source networks that share a fault, then for tuned ones."""
    consequence = {
        FAILED: "no score is given for it, and none for a mean over these networks",
        UNLEARNT: "it counts in every mean, SD and interval",
    }
    rows = troubled(analysis)
    for (run, stage, what, reason), group in rows.groupby(
        ["run", "stage", "what", "reason"], sort=False
    ):
        name = Method(run, stage).name
        who = folds(group["fold"]).capitalize()
        yield f"{who} of {name}: {what} ({reason}); {consequence[what]}."


def folds(numbers: pd.Series) -> str:
    """Returns ``fold 3`` or ``folds 0, 3``."""
    found = sorted(set(map(int, numbers)))
    return f"fold{'s' * (len(found) > 1)} {', '.join(map(str, found))}"


def left_out(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence for networks in whose training steps were left out as not finite."""
    history = analysis.history
    if "not_finite" not in history.columns:
        return
    steps = history.groupby(KEY, sort=False)["not_finite"].sum().reset_index()
    for (run, stage), group in steps[steps["not_finite"] > 0].groupby(["run", "stage"], sort=False):
        name = Method(run, stage).name
        yield (
            f"{name}: {int(group['not_finite'].sum())} training steps were left out, because loss "
            f"or gradient was not finite ({folds(group['fold'])})."
        )
