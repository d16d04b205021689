"""The template brain from which every subject is made: tissue, texture, mask and regions."""

import dataclasses
import functools
from importlib import resources

import nibabel as nib
import numpy as np
from scipy import ndimage
from threadpoolctl import threadpool_limits

from mri_jax.errors import UserError
from mri_jax.simulation.regions import REGIONS, region_maps
from mri_jax.volumes.grids import GRIDS, Grid

# Averaging many brains blurred the tissue maps; raising fractions to this power and renormalising
# gives back cortex and sulci about as thick as in one person.
SHARPENING = 2.0
# The template's people were young; fluid weighs more before renormalising, which opens the sulci.
OLDER_FLUID = 1.5
# Fewer voxels than this across both hemispheres cannot carry a region's change of volume.
MINIMUM_VOXELS = 20
CHANNELS = ("csf", "gm", "wm", "texture", "mask")


@dataclasses.dataclass(frozen=True)
class Phantom:
    """Maps in template space, all (..., X, Y, Z) float32 on `grid` unless said otherwise.

    Attributes:
      grid: Where they lie.
      tissue: (3, X, Y, Z) fractions of CSF, grey and white matter; they sum to `mask`.
      texture: What the template shows beyond its tissues, in units of its white matter.
      mask: Fraction inside the skull's inner surface.
      regions: (5, X, Y, Z) membership of `regions.REGIONS`.
      head: The whole head, in units of its white matter.
    """

    grid: Grid
    tissue: np.ndarray
    texture: np.ndarray
    mask: np.ndarray
    regions: np.ndarray
    head: np.ndarray

    def channels(self) -> np.ndarray:
        """Returns (X, Y, Z, 5) float32 in the order of `CHANNELS`."""
        return np.stack([*self.tissue, self.texture, self.mask], axis=-1)

    def volumes_ml(self) -> np.ndarray:
        """Returns (5,) volumes of the regions in the template, mL."""
        voxel_ml = self.grid.spacing**3 / 1000
        return self.regions.sum((1, 2, 3), dtype=np.float64) * voxel_ml


@functools.lru_cache(maxsize=1)
def template() -> Phantom:
    """Returns the phantom at 1 mm, on the grid ``paper``.

    Anatomy and tissue are the ICBM152 2009a symmetric maps that nilearn bundles (no network); the
    head around them is the packaged sixth-generation one. Both are in the same MNI space.
    """
    from nilearn import (
        datasets,  # it takes half a second, and studies of real scans need none of it
    )

    grid = GRIDS["paper"]
    t1, gm, wm = (
        _onto(load(resolution=1), grid)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    head = _packaged("icbm152_sym_nlin6_T1w_head_1mm.nii.gz", grid)
    filled = _packaged("icbm152_sym_nlin6_brain_mask_1mm.nii.gz", grid) > 0.5
    brain = ndimage.binary_closing(t1 > 0.05, iterations=4, border_value=1)
    brain = ndimage.binary_fill_holes(brain & (ndimage.binary_dilation(t1 > 0.05, iterations=4)))
    mask = ndimage.gaussian_filter((brain | filled).astype(np.float32), 0.6)
    tissue = _sharpened(gm, wm, mask)
    return Phantom(
        grid=grid,
        tissue=tissue,
        texture=_texture(t1, tissue, mask),
        mask=mask,
        regions=region_maps(tissue[1], tissue[0], grid),
        head=head / np.median(head[tissue[2] > 0.95]),
    )


@functools.lru_cache(maxsize=4)
def phantom_on(grid: Grid) -> Phantom:
    """Returns the phantom averaged onto a coarser grid.

    Raises:
      UserError: The grid is too coarse or too small for a region.
    """
    fine = template()
    if grid == fine.grid:
        return fine
    reduced = Phantom(
        grid=grid,
        tissue=_averaged(fine.tissue, fine.grid, grid),
        texture=_averaged(fine.texture[None], fine.grid, grid)[0],
        mask=_averaged(fine.mask[None], fine.grid, grid)[0],
        regions=_averaged(fine.regions, fine.grid, grid),
        head=_averaged(fine.head[None], fine.grid, grid)[0],
    )
    check_room(reduced)
    return reduced


@functools.lru_cache(maxsize=1)
def template_ml() -> tuple[float, ...]:
    """Returns volumes of the template's regions, mL, in the order of `REGIONS`."""
    return tuple(template().volumes_ml().tolist())


@functools.lru_cache(maxsize=1)
def template_intracranial_ml() -> float:
    """Returns the volume inside the template's skull, mL."""
    return float(template().mask.sum(dtype=np.float64)) / 1000


def head_size(intracranial_ml: float) -> float:
    """Native over template volume of a head: what affine registration takes out."""
    return intracranial_ml / template_intracranial_ml()


def check_room(phantom: Phantom) -> None:
    """Refuse a grid on which a region is cut off or has too few voxels.

    Raises:
      UserError: It names the region.
    """
    whole = template().volumes_ml()
    here = phantom.volumes_ml()
    voxels = (phantom.regions > 0.5).sum((1, 2, 3))
    for name, expected, found, count in zip(REGIONS, whole, here, voxels, strict=True):
        if count < MINIMUM_VOXELS or found < 0.97 * expected:
            shape = "x".join(map(str, phantom.grid.shape))
            raise UserError(
                f"grid: {phantom.grid.name!r} ({shape} at {phantom.grid.spacing:g} mm) is too "
                f"small for {name}: {count} voxels (at least {MINIMUM_VOXELS}) and {found:.1f} of "
                f"{expected:.1f} mL inside"
            )


def _onto(volume: nib.Nifti1Image, grid: Grid) -> np.ndarray:
    from nilearn import image

    placed = image.resample_img(
        volume,
        grid.affine,
        grid.shape,
        interpolation="nearest",
        copy_header=True,
        force_resample=True,
    )
    return np.asarray(placed.dataobj, np.float32)


def _packaged(name: str, grid: Grid) -> np.ndarray:
    with resources.as_file(resources.files("mri_jax.volumes") / "template" / name) as path:
        volume = nib.Nifti1Image.from_filename(path)
        array = np.asarray(volume.dataobj, np.float32)
        return _onto(nib.Nifti1Image(array, volume.affine), grid)


def _sharpened(gm: np.ndarray, wm: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns (3, X, Y, Z) fractions of CSF, GM and WM whose sum is the mask."""
    csf = np.clip(1 - gm - wm, 0, 1)
    powers = np.stack([OLDER_FLUID * csf, gm, wm]).clip(0, 2) ** SHARPENING
    return (powers / np.maximum(powers.sum(0), 1e-6) * mask).astype(np.float32)


def _texture(t1: np.ndarray, tissue: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Regional brightness that three tissues do not explain, smoothed so that edges stay sharp."""
    pure = tissue.max(0) > 0.9
    levels = [t1[(part > 0.9)].mean() for part in tissue]
    residual = np.where(pure, t1 - np.tensordot(levels, tissue, 1), 0)
    weight = ndimage.gaussian_filter(pure.astype(np.float32), 2.5)
    smooth = ndimage.gaussian_filter(residual.astype(np.float32), 2.5) / np.maximum(weight, 0.1)
    return (smooth * mask * (1 - tissue[0]) / levels[2]).astype(np.float32)


def _averaged(maps: np.ndarray, fine: Grid, coarse: Grid) -> np.ndarray:
    """Returns (C, X, Y, Z) the mean over each coarse voxel's box; outside the fine grid is zero."""
    x, y, z = (
        _box_weights(
            fine.origin[axis], fine.spacing, fine.shape[axis],
            coarse.origin[axis], coarse.spacing, coarse.shape[axis],
        )
        for axis in range(3)
    )  # fmt: skip
    # Thousands of small products: BLAS would wake its threads for each, and on a busy machine they
    # spend fifty times the work on waiting for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        thin = y @ (maps.astype(np.float32, copy=False) @ z.T)
        flat = x @ thin.reshape(len(maps), fine.shape[0], -1)
    return flat.reshape(len(maps), *coarse.shape)


def _box_weights(
    start0: float, step0: float, n0: int, start1: float, step1: float, n1: int
) -> np.ndarray:
    """Returns (n1, n0) the share of each fine voxel in each coarse voxel's length."""
    low0 = start0 + step0 * (np.arange(n0) - 0.5)
    low1 = start1 + step1 * (np.arange(n1) - 0.5)
    overlap = np.minimum(low0[None] + step0, low1[:, None] + step1) - np.maximum(
        low0[None], low1[:, None]
    )
    return (overlap.clip(0) / step1).astype(np.float32)
