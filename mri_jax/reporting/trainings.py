"""Networks whose training failed or taught hardly anything, as the tables name them."""

from collections.abc import Iterator

import pandas as pd

from mri_jax.evaluation.families import Method
from mri_jax.problems import counted
from mri_jax.reporting.analysis import Analysis
from mri_jax.runs import faults
from mri_jax.runs.faults import KEY, folds
from mri_jax.runs.labels import titled


def troubled(analysis: Analysis) -> pd.DataFrame:
    """Returns the networks of all runs with which something is wrong, as `faults.of_run` does."""
    found = pd.concat([faults.of_run(run) for run in analysis.runs], ignore_index=True)
    return found.drop_duplicates(KEY).reset_index(drop=True)


def marks(analysis: Analysis) -> dict[str, str]:
    """Returns the marks of methods with such networks, by name: ``fold 3: has hardly learnt``."""
    found: dict[str, list[str]] = {}
    rows = troubled(analysis)
    rows = rows.assign(word=faults.words(rows))
    for (run, stage, word), group in rows.groupby(["run", "stage", "word"], sort=False):
        told = f"{folds(group['fold'])}: {word}"
        found.setdefault(Method(run, stage).name, []).append(told)
    return {name: "; ".join(told) for name, told in found.items()}


def left_out(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence for networks in whose training steps were left out as not finite."""
    history = analysis.history
    if "not_finite" not in history.columns:
        return
    steps = history.groupby(KEY, sort=False)["not_finite"].sum().reset_index()
    for (run, stage), group in steps[steps["not_finite"] > 0].groupby(["run", "stage"], sort=False):
        name = analysis.label(run, stage)
        left = counted(int(group["not_finite"].sum()), "training step was", "training steps were")
        yield (
            f"{titled(name)}: {left} left out, because loss "
            f"or gradient was not finite ({folds(group['fold'])})."
        )
