"""A cohort table and a store of tiny volumes with a known difference, made in a moment."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort.table import write_table
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import StoreInfo, StoreWriter

GRID = Grid("tiny", (9, 12, 10), 8.0, (-36.0, -60.0, -30.0))
SMALL_MODEL = {
    "preset": "",
    "repetitions": (1, 1),
    "filters": (4, 8),
    "fc": (8,),
    "dropout": (0.5, 0.0),
}


def make_cohorts(
    folder: Path,
    subjects: int = 12,
    cohorts: tuple[str, ...] = ("ADNI1", "ADNI2", "ADNI3"),
    factors: Mapping[str, float] | None = None,
    grid: Grid = GRID,
) -> tuple[Path, Path]:
    """``subjects`` AD and as many CN a cohort; AD is brighter in a corner. Returns table, store.

    ``factors`` multiply the intensities of single subjects (``ADNI1-003``).
    """
    dtype = "float32" if factors else "float16"
    info = StoreInfo(grid, dtype, simulated=True, settings={"made": "tiny"}, provenance={})
    writer = StoreWriter(folder / "store", info)
    table, index = [], []
    for c, cohort in enumerate(cohorts):
        for i in range(2 * subjects):
            diagnosis = ("AD", "CN")[i % 2]
            rng = np.random.default_rng([c, i])
            volume = rng.normal(10 + c, 1.0, grid.shape)
            volume[2:6, 3:7, 2:6] += 1.5 if diagnosis == "AD" else 0.0
            mask = np.zeros(grid.shape, bool)
            mask[1:-1, 1:-2, 1:-1] = True
            row = {"subject_id": f"{cohort}-{i:03d}", "session_id": "bl", "cohort": cohort}
            volume *= (factors or {}).get(row["subject_id"], 1.0)
            index.append(writer.add(*row.values(), np.where(mask, volume, 0), mask))
            age, sex = 70 + rng.normal() + 2 * (i % 2), "FM"[(i // 2) % 2]
            table.append({**row, "diagnosis": diagnosis, "age": age, "sex": sex, "image": ""})
    writer.write_index(pd.DataFrame(index))
    write_table(folder / "cohort.csv", pd.DataFrame(table))
    return folder / "cohort.csv", folder / "store"
