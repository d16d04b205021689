"""Contact sheets of simulated cohorts: brains of every site and class, and what disease changes."""

import numpy as np
import pandas as pd
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax import files
from mri_jax.cohort.table import read_table
from mri_jax.showing.figures import image
from mri_jax.showing.simulated import WORD
from mri_jax.simulation.cohorts import paths_in
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.normalise import Normalisation, normalise
from mri_jax.volumes.store import VolumeStore

# Template millimetres of the three slices: sagittal and coronal through the hippocampus, axial
# through the ventricles.
SLICES = (27.0, -20.0, 8.0)
PEOPLE = 6
# Normalised intensity that is shown black.
LOWEST = -2.5


def write_sheets(out: epath.PathLike) -> list[epath.Path]:
    """Draw a finished folder of simulated cohorts.

    Args:
      out: Folder of `simulate`.

    Returns:
      ``sheets/COHORT_CLASS.png`` (six people, three orthogonal slices, neurological orientation:
      the left of the picture is the person's left) and ``sheets/COHORT_AD_minus_CN.png`` (mean
      normalised intensities of either class and their difference) where a site has both.
    """
    paths = paths_in(out)
    table, store = read_table(paths.table_path), VolumeStore(paths.store_path)
    folder = epath.Path(out) / "sheets"
    written = []
    for (cohort, diagnosis), rows in table.groupby(["cohort", "diagnosis"], sort=False):
        path = folder / f"{cohort}_{diagnosis}.png"
        _people(path, f"{WORD} · {cohort} {diagnosis}", rows.head(PEOPLE), store)
        written.append(path)
    for cohort, rows in table.groupby("cohort", sort=False):
        if {"AD", "CN"} <= set(rows["diagnosis"]):
            path = folder / f"{cohort}_AD_minus_CN.png"
            _difference(path, f"{WORD} · {cohort}", rows, store)
            written.append(path)
    return written


def three_slices(volume: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """Sagittal, coronal and axial slice of (X, Y, Z) at `SLICES`, rows upward or forward."""
    x, y, z = (
        round((at - start) / grid.spacing) for at, start in zip(SLICES, grid.origin, strict=True)
    )
    return [np.asarray(part).T for part in (volume[x], volume[:, y], volume[:, :, z])]


def _people(path: epath.Path, title: str, rows: pd.DataFrame, store: VolumeStore) -> None:
    figure = Figure(figsize=(18, 4.6), facecolor="black")
    axes = figure.subplots(2, 9)
    for number, row in enumerate(rows.itertuples()):
        volume = np.asarray(store.volume(row.subject_id, row.session_id), np.float32)
        mask = np.asarray(store.mask(row.subject_id, row.session_id))
        high = np.percentile(volume[mask], 99.5)
        first = 3 * (number % 3)
        for axis, part in zip(
            axes[number // 3, first : first + 3], three_slices(volume, store.info.grid), strict=True
        ):
            _show(axis, part, "gray", 0, high)
        axes[number // 3, first].set_title(
            f"{row.subject_id}  {row.sex}, {row.age:.0f} y", color="white", fontsize=8, loc="left"
        )
    _finish(figure, path, title)


def _difference(path: epath.Path, title: str, rows: pd.DataFrame, store: VolumeStore) -> None:
    means = []
    inside = np.zeros(store.info.grid.shape)
    for diagnosis in ("AD", "CN"):
        total = np.zeros(store.info.grid.shape, np.float64)
        chosen = rows[rows["diagnosis"] == diagnosis]
        for row in chosen.itertuples():
            mask = np.asarray(store.mask(row.subject_id, row.session_id))
            volume = store.volume(row.subject_id, row.session_id)
            total += normalise(volume, mask, Normalisation())
            inside += mask / len(chosen) / 2
        means.append(total / len(chosen))
    figure = Figure(figsize=(10, 9.5), facecolor="black")
    axes = figure.subplots(3, 3)
    names = ("mean AD", "mean CN", "AD minus CN (SD of a brain's voxels, ±1)")
    air = np.where(inside > 0.5, 0, LOWEST)
    pictures = (means[0] + air, means[1] + air, means[0] - means[1])
    for line, (name, volume) in enumerate(zip(names, pictures, strict=True)):
        look = ("gray", LOWEST, 2.0) if line < 2 else ("RdBu_r", -1.0, 1.0)
        for axis, part in zip(axes[line], three_slices(volume, store.info.grid), strict=True):
            _show(axis, part, *look)
        axes[line, 0].set_title(name, color="white", fontsize=9, loc="left")
    _finish(figure, path, title)


def _show(axis: Axes, part: np.ndarray, colours: str, low: float, high: float) -> None:
    axis.imshow(part, origin="lower", cmap=colours, vmin=low, vmax=high)


def _finish(figure: Figure, path: epath.Path, title: str) -> None:
    for axis in figure.axes:
        axis.axis("off")
    figure.suptitle(title, color="white")
    figure.tight_layout()
    files.write_bytes(path, image(figure, "png", dots=80))
