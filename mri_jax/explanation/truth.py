"""On simulated cohorts it is known where disease acts: does attribution rank those places first?"""

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from etils import epath
from scipy import ndimage, stats

from mri_jax.errors import UserError
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import VolumeStore

# A voxel is of the effect when more than half of it belongs to a region that disease changes, and
# of the rest when less than a twentieth does; those between are left out.
_INSIDE, _OUTSIDE = 0.5, 0.05
_STRONG = 0.5
PARCEL_MM = 24.0
_LEAST_VOXELS = 8


@dataclass(frozen=True, eq=False)
class Truth:
    """Places of the true effect on the volumes' grid.

    Attributes:
      effect: (X, Y, Z) bool, voxels that disease changes.
      strong: (X, Y, Z) bool, those that it changes at least half as much as the most changed.
      rest: (X, Y, Z) bool, voxels of the brain that it leaves alone.
      parcels: (X, Y, Z) int32: the regions of the effect in each hemisphere, then cubes of
        `PARCEL_MM` of the rest; 0 is none.
      affected: (number of parcels,) bool, which of parcels 1, 2, ... are of the effect.
    """

    effect: np.ndarray
    strong: np.ndarray
    rest: np.ndarray
    parcels: np.ndarray
    affected: np.ndarray


def read_truth(store: VolumeStore, brain: np.ndarray) -> Truth | None:
    """Returns the maps that the simulation wrote beside a store; None where there are none.

    Raises:
      UserError: The maps are on another grid than the volumes.
    """
    folder = store.path.parent / "truth"
    if not (store.info.simulated and (folder / "effect_union.nii.gz").exists()):
        return None
    grid = store.info.grid
    union, strength, labels = (
        _read(folder / f"{name}.nii.gz", grid)
        for name in ("effect_union", "effect_strength", "labels")
    )
    effect = (union > _INSIDE) & brain
    strong = effect & (strength > _STRONG * strength.max())
    rest = (union < _OUTSIDE) & brain
    parcels, affected = parcellate(labels.astype(np.int32) * effect, rest, grid)
    return Truth(effect, strong, rest, parcels, affected)


def _read(path: epath.Path, grid: Grid) -> np.ndarray:
    image = nib.Nifti1Image.from_filename(str(path))
    if image.shape != grid.shape or not np.allclose(image.affine, grid.affine, atol=1e-3):
        raise UserError(f"{path}: is on another grid than the volumes")
    return np.asarray(image.dataobj, np.float32)


def parcellate(labels: np.ndarray, rest: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Cut the brain into parcels.

    Args:
      labels: (X, Y, Z) int32 regions of the effect.
      rest: (X, Y, Z) bool.
      grid: The grid of both.

    Returns:
      (X, Y, Z) int32 parcels from 1, and a bool for each: whether it is of the effect. Parcels of
      fewer than eight voxels are left out.
    """
    x = grid.origin[0] + grid.spacing * np.arange(grid.shape[0])
    right = (x > 0)[:, None, None]
    affected = np.where(labels > 0, 2 * labels + right, 0)
    edge = max(1, round(PARCEL_MM / grid.spacing))
    i, j, k = np.indices(grid.shape) // edge
    cubes = (i * 1000 + j) * 1000 + k + 1
    parcels, flags = np.zeros(grid.shape, np.int32), []
    for parts, flag in ((affected, True), (np.where(rest, cubes, 0), False)):
        names, counts = np.unique(parts[parts > 0], return_counts=True)
        for name in names[counts >= _LEAST_VOXELS]:
            flags.append(flag)
            parcels[parts == name] = len(flags)
    return parcels, np.array(flags, bool)


def aucs(values: np.ndarray, truth: Truth) -> dict[str, float]:
    """Returns how well absolute attribution tells the true effect from the rest of the brain.

    Args:
      values: (X, Y, Z) attributions of one volume, or of a group.
      truth: On the same grid.

    Returns:
      Areas under the ROC curve: ``voxels`` (all of the effect), ``strong`` (its strongest voxels)
      and ``regions`` (mean absolute attribution of parcels); 0.5 is chance. ``reach``: the share of
      the rest where the map is not 0.
    """
    size = np.abs(values)
    index = np.arange(1, len(truth.affected) + 1)
    means = ndimage.mean(size, truth.parcels, index) if len(index) else np.zeros(0)
    return {
        "voxels": auc(size[truth.effect], size[truth.rest]),
        "strong": auc(size[truth.strong], size[truth.rest]),
        "regions": auc(means[truth.affected], means[~truth.affected]),
        "reach": float(np.mean(size[truth.rest] > 0)) if truth.rest.any() else math.nan,
    }


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a value inside exceeds one outside, ties one half; NaN where a side is empty."""
    if not len(inside) or not len(outside):
        return math.nan
    ranks = stats.rankdata(np.concatenate([inside, outside]))[: len(inside)]
    return float((ranks.mean() - (len(inside) + 1) / 2) / len(outside))
