"""What a model says of the scans that its networks learned from."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.prediction.model import FigureReference, TrainingGroup
from mri_jax.problems import counted
from mri_jax.runs import faults
from mri_jax.runs.trained import SOURCE, TrainedRun
from mri_jax.showing import simulated
from mri_jax.volumes import outliers, quality
from mri_jax.volumes.pipeline import settings_of
from mri_jax.volumes.store import KEY


def _source_keys(run: TrainedRun, variant: str) -> pd.DataFrame:
    """Returns (subject_id, session_id) of every scan of the source, one row each."""
    table = run.results.predictions
    chosen = (table["run"] == variant) & (table["stage"] == SOURCE)
    return table[chosen & (table["split"] == "validation")][KEY].drop_duplicates()


def figures_of(run: TrainedRun, variant: str) -> dict[str, FigureReference]:
    """Returns the figures of quality of the source's scans.

    They stand in the store's index, or are measured where the store has none.
    """
    keys = _source_keys(run, variant)
    index = run.store.index.loc[pd.MultiIndex.from_frame(keys)].reset_index(drop=True)
    if "correlation" not in index:
        index = _measured(run, keys).assign(cohort=index["cohort"].to_numpy())
    found = {}
    for name, (low, high) in outliers.widest(outliers.groups_of(index).groups).items():
        values = pd.to_numeric(index[name], errors="coerce").dropna()
        if len(values):
            found[name] = FigureReference(len(values), float(values.median()), low, high)
    return found


def _measured(run: TrainedRun, keys: pd.DataFrame) -> pd.DataFrame:
    info = run.store.info
    try:
        settings = settings_of(info)
    except UserError:
        return keys
    template = settings.load_template()
    rows = []
    for key in keys.itertuples(index=False):
        volume = np.asarray(run.store.volume(*key))
        mask = np.asarray(run.store.mask(*key))
        rows.append(quality.grid_figures(volume, mask, info.grid, template))
    return pd.DataFrame(rows)


def groups_of(run: TrainedRun, variant: str) -> Iterator[TrainingGroup]:
    """Yields the scans of each cohort and diagnosis, with the spread of their ages (years)."""
    rows = _source_keys(run, variant).merge(run.results.cohort, on=KEY)
    for (cohort, diagnosis), group in rows.groupby(["cohort", "diagnosis"], sort=True):
        ages = pd.to_numeric(group["age"], errors="coerce").dropna() if "age" in group else []
        low, middle, high = np.percentile(ages, (5, 50, 95)) if len(ages) else (np.nan,) * 3
        known = (float(low), float(middle), float(high)) if len(ages) else None
        yield TrainingGroup(str(cohort), str(diagnosis), len(group), known)


def notes_of(run: TrainedRun, variant: str, stages: Sequence[str]) -> Iterator[str]:
    """Yields what a reader must know of the training of some stages, a sentence each."""
    if run.simulated:
        yield simulated.caution("training scans")
    if run.study.smoke:
        yield "The run's preset is smoke: a few subjects and epochs; its scores mean nothing."
    yield from faults.told_of(run.results, variant, stages)
    yield from (f"The run: {line}." for line in run.results.missing)
    smallest = min((group.n for group in groups_of(run, variant)), default=0)
    if smallest < 100:
        yield f"Only {counted(smallest, 'training scan')} of the smaller class."
