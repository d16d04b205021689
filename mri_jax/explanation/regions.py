"""Label images: which voxel belongs to which region, on the grid of the volumes."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.simulation.phantom import phantom_on
from mri_jax.simulation.regions import REGIONS
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.headers import MAX_VOXELS
from mri_jax.volumes.resampling import Image, transform_points
from mri_jax.volumes.scan_files import UNREADABLE, check_size, why_unreadable

# Shares of the labelled voxels of a file that may lie outside the volumes' box, and outside the
# brain, before the file is taken to be in another space.
_OUTSIDE_BOX, _OUTSIDE_BRAIN = 0.02, 0.40


@dataclass(frozen=True, eq=False)
class Regions:
    """A label image on the volumes' grid.

    Attributes:
      labels: (X, Y, Z) int32, 0 outside every region.
      names: The name of each label that occurs.
      source: Where it comes from, for tables.
    """

    labels: np.ndarray
    names: Mapping[int, str]
    source: str


def simulated_regions(grid: Grid) -> Regions:
    """Returns the simulation's five regions, cut from the template's tissue maps."""
    maps = phantom_on(grid).regions
    labels = np.where(maps.sum(0) > 0.5, maps.argmax(0) + 1, 0).astype(np.int32)
    names = dict(enumerate(REGIONS, start=1))
    return Regions(labels, names, "the simulation's regions (mri_jax/simulation/regions.py)")


def read_regions(path: Path, names: Path | None, grid: Grid, brain: np.ndarray) -> Regions:
    """Read a label image in the volumes' template space; another grid is resampled (nearest).

    Args:
      path: NIfTI of whole numbers; 0 is no region. Any voxel size and orientation.
      names: Table of label and name: CSV, TSV, or AAL's text (``label name`` or ``name label`` a
        line); None calls regions by their number.
      grid: Grid of the volumes.
      brain: (X, Y, Z) bool, to recognise a label image of another space.

    Raises:
      UserError: A file cannot be read, values are no labels, or the image is in another space.
    """
    data, affine = _load(path)
    data = data[..., 0] if data.ndim == 4 and data.shape[3] == 1 else data
    if data.ndim != 3:
        raise UserError(f"regions: {path}: shape {data.shape} is not that of one label image")
    if not np.isfinite(data).all() or (data != np.round(data)).any() or data.min() < 0:
        raise UserError(f"regions: {path}: values must be whole numbers of 0 or more")
    if not data.any():
        raise UserError(f"regions: {path}: holds no label above 0")
    given = Image(data.astype(np.int32), affine)
    _check_space(path, given, grid)
    labels = nearest(given, grid)
    lost = 1 - float(brain[labels > 0].mean()) if labels.any() else 1.0
    if lost > _OUTSIDE_BRAIN:
        raise UserError(
            f"regions: {path}: {100 * lost:.0f}% of its labelled voxels lie outside the brain of "
            f"the volumes, so it is not in their template space (MNI152)"
        )
    there = [int(label) for label in np.unique(labels[labels > 0])]
    known = {} if names is None else _read_names(names)
    missing = [label for label in there if known and label not in known]
    if missing:
        raise UserError(f"region names: {names}: has no name for label {missing[0]}")
    return Regions(labels, {n: known.get(n, f"region {n}") for n in there}, path.name)


def nearest(image: Image, grid: Grid) -> np.ndarray:
    """Returns labels of the nearest voxel; 0 outside the image. (X, Y, Z) int32."""
    places = np.indices(grid.shape).reshape(3, -1).T
    matrix = np.linalg.inv(image.affine) @ grid.affine
    voxels = np.rint(transform_points(matrix, places)).astype(int)
    within = ((voxels >= 0) & (voxels < image.data.shape)).all(axis=1)
    labels = np.zeros(len(places), np.int32)
    labels[within] = image.data[tuple(voxels[within].T)]
    return labels.reshape(grid.shape)


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns values and affine of a file, whose header is judged before the values are read."""
    files.check_regular(path)
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair | nib.MGHImage):
            raise ValueError(f"a {type(image).__name__}")
        if math.prod(image.shape) > MAX_VOXELS:
            raise UserError(f"regions: {path}: declares {image.shape} voxels")
        check_size(image, path, whole=True)
        return np.asarray(image.dataobj), image.affine
    except UNREADABLE as error:
        if str(error).startswith("regions:"):
            raise
        raise UserError(f"regions: {path}: is no NIfTI image: {why_unreadable(error)}") from None


def _check_space(path: Path, image: Image, grid: Grid) -> None:
    """Refuse an image whose labelled voxels do not lie in the box of the volumes."""
    points = transform_points(image.affine, np.argwhere(image.data))
    low = np.asarray(grid.origin) - grid.spacing
    high = low + grid.spacing * (np.asarray(grid.shape) + 1)
    outside = 1 - ((points >= low) & (points <= high)).all(axis=1).mean()
    if outside > _OUTSIDE_BOX:
        raise UserError(
            f"regions: {path}: {100 * outside:.0f}% of its labelled voxels lie outside the box of "
            f"the volumes, so it is not in their template space (MNI152)"
        )


def _read_names(path: Path) -> dict[int, str]:
    """Label to name from a table in any of the forms that atlases come with."""
    try:
        frame = pd.read_csv(
            io.StringIO(files.read_text(path)),
            sep=None,
            engine="python",
            header=None,
            dtype=str,
            keep_default_na=False,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"region names: {path}: cannot be read ({error})") from None
    wholes = [frame[column].str.fullmatch(r"\d+").mean() for column in frame]
    if not wholes or max(wholes) < 0.5 or frame.shape[1] < 2:
        raise UserError(f"region names: {path}: needs two columns, a label and a name")
    number = int(np.argmax(wholes))
    other = next(c for c in range(frame.shape[1]) if c != number)
    rows = frame[frame[number].str.fullmatch(r"\d+")]
    return dict(zip(rows[number].astype(int), rows[other].str.strip(), strict=True))
