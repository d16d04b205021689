"""A small description of a volume by which two scans of one person are recognised.

The volume is sampled by Gaussians on a lattice that is laid into the object itself (its centre and
its extent along each axis), so that a shift, another grid or another size of voxel does not change
it. What is left of each cell after its surroundings are removed and its contrast is made alike is
anatomy rather than scanner; what all brains share is removed with the packaged template. The
lattice is symmetric from left to right: a mirrored volume has the same cells in another order.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from mri_jax.filenames import safe_name
from mri_jax.volumes.templates import load_template

# Raised whenever the same volume would be described otherwise.
VERSION = 1
# Cells along X, Y, Z over `_REACH` SD of the object on either side: about 8 mm in a brain.
_LATTICE = (20, 24, 20)
_REACH = 2.6
# Cells within this many SD of the centre, all axes together: a brain's border is at about 2.2.
_WITHIN = 2.3
# Widths (SD) of Gaussians in cells: sampling, surroundings, contrast.
_SAMPLED, _SURROUNDINGS, _CONTRAST = 0.43, 1.5, 1.5
# Part of the overall contrast below which a place is not amplified further.
_FLAT = 0.3
_FINEST = 64  # voxels along an axis; finer volumes are first reduced to block means
_OBJECT = 0.4  # of the median difference from the background: what belongs to the object
_NEAR = 1.0  # SD in voxels over which that is averaged
_STEPS = 24.0  # int8 steps of one RMS
_LARGE = 1e15  # squares of larger intensities leave float32; a description knows no scale
# Blur (SD in voxels of about 4 mm) of the template's forms that are removed.
_BLURS = (0.0, 0.75, 1.5)


def describe(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns what is particular to the person in a volume.

    Args:
      volume: (X, Y, Z) intensities on any grid; not finite ones count as background.
      mask: (X, Y, Z) bool, True inside the brain.

    Returns:
      (`cells`,) int8, of RMS about 24; all zero for a volume without contrast.
    """
    own = _sampled(*_reduced(volume, mask))
    common = _common()
    flat = own - common @ (common.T @ own)
    values = _place(flat)
    power = float(np.mean(flat**2))
    energy = _smoothed(values**2, _CONTRAST) / np.maximum(
        _smoothed(_inside().astype(np.float32), _CONTRAST), 1e-3
    )
    even = (values / np.sqrt(energy + _FLAT**2 * power + 1e-12))[_inside()]
    rms = float(np.sqrt(np.mean(even**2)))
    if not rms > 1e-3:
        return np.zeros(len(even), np.int8)
    return np.clip(np.rint(even / rms * _STEPS), -127, 127).astype(np.int8)


def cells() -> int:
    """Returns how many numbers describe a volume."""
    return int(_inside().sum())


def file_name(sha256: str) -> str:
    """Returns where a store keeps the description of a volume with this checksum."""
    return f"descriptions/v{VERSION}/{safe_name(str(sha256))}.npy"


def mirrored(described: np.ndarray) -> np.ndarray:
    """Returns (..., `cells`) descriptions of the volumes with left and right exchanged."""
    order = np.full(_LATTICE, -1)
    order[_inside()] = np.arange(cells())
    return described[..., order[::-1][_inside()]]


@lru_cache(1)
def _inside() -> np.ndarray:
    """Returns cells of the lattice that are used, (20, 24, 20) bool."""
    places = np.meshgrid(*map(_places, _LATTICE), indexing="ij")
    return np.asarray(sum(p**2 for p in places) <= _WITHIN**2)


def _places(number: int) -> np.ndarray:
    """Positions of cells along an axis, in SD of the object."""
    return (np.arange(number) - (number - 1) / 2) / number * 2 * _REACH


@lru_cache(1)
def _common() -> np.ndarray:
    """Returns (cells, 3) float32: orthonormal descriptions of the template, sharp and blurred."""
    template = load_template()
    values, weights = _reduced(template.head, template.mask)
    forms = [_sampled(ndimage.gaussian_filter(values * weights, blur), weights) for blur in _BLURS]
    return np.linalg.qr(np.stack(forms, axis=1))[0].astype(np.float32)


def _reduced(volume: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Block means inside the mask (0 elsewhere) and the blocks' part inside it, both float32."""
    values, weights = np.asarray(volume, np.float32), np.asarray(mask, bool).astype(np.float32)
    if not np.isfinite(values).all():
        weights = weights * np.isfinite(values)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(np.abs(values).max())
    if largest > _LARGE:
        values = values / np.float32(largest)
    if not weights.any():
        weights = np.ones_like(weights)
    side = -(-max(values.shape) // _FINEST)
    if side == 1:
        return values, weights
    inside = values * weights
    total, part = _block_sums(inside, side), _block_sums(weights, side)
    # Outside the mask the plain mean, by which the object is found.
    outside = total if np.array_equal(inside, values) else _block_sums(values, side)
    means = np.where(part > 0, total / np.maximum(part, 1e-6), outside / side**3)
    return means, part / side**3


def _block_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sums of cubes of voxels, those at the far borders cut where the volume ends."""
    values = np.pad(values, [(0, -size % side) for size in values.shape])
    for axis in range(3):
        parts = [values[(slice(None),) * axis + (slice(k, None, side),)] for k in range(side)]
        values = np.add.reduce(parts)
    return values


def _sampled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns (cells,) float32: z-scores on the object's lattice, without their surroundings."""
    weights = _object(values, weights)
    inside = weights > 0.5
    mean, spread = float(values[inside].mean()), float(values[inside].std())
    if not spread > 0:
        return np.zeros(cells(), np.float32)
    scores = np.clip((values - mean) / spread, -3, 3) * weights
    kernels = _lattice_of(weights)
    there, part = _along(scores, kernels), _along(weights, kernels)
    level = _smoothed(there, _SURROUNDINGS) / (_smoothed(part, _SURROUNDINGS) + 0.02)
    return (there - part * level)[_inside()]


def _object(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns what differs from the background, 0 or 1; the mask where there is no background.

    It is found in the volume itself, and so moves with it, and is the same, where the mask beside
    it does not or is another.
    """
    inside = weights > 0.5 * weights.max()
    outside = values[~inside][::7]
    if len(outside) < 0.02 * inside.size / 7:
        return inside.astype(np.float32)
    apart = np.abs(values - np.median(outside))
    near = ndimage.gaussian_filter(apart, _NEAR, mode="constant", truncate=2)
    found = near > _OBJECT * np.median(apart[inside][::7])
    plausible = 0.6 * inside.sum() < found.sum() < 1.7 * inside.sum()
    return (found if plausible else inside).astype(np.float32)


def _lattice_of(found: np.ndarray) -> list[np.ndarray]:
    """Returns Gaussian weights (cells, voxels) at the lattice's positions, for each axis."""
    kernels = []
    for axis, number in enumerate(_LATTICE):
        profile = found.sum(axis=tuple(other for other in range(3) if other != axis))
        places = np.arange(len(profile))
        centre = float((profile * places).sum() / profile.sum())
        extent = float(np.sqrt((profile * (places - centre) ** 2).sum() / profile.sum()))
        extent = max(extent, 0.5)
        width = max(_SAMPLED * extent * 2 * _REACH / number, 0.4)
        apart = (centre + extent * _places(number))[:, None] - places
        kernels.append(np.exp(-0.5 * (apart / width) ** 2).astype(np.float32) / np.float32(width))
    return kernels


def _smoothed(lattice: np.ndarray, width: float) -> np.ndarray:
    """Returns a lattice convolved with a Gaussian of SD ``width`` cells, zero beyond its border."""
    return ndimage.gaussian_filter(lattice, width, mode="constant", truncate=3)


def _along(values: np.ndarray, kernels: list[np.ndarray]) -> np.ndarray:
    """Returns a product with a matrix along each axis, X first."""
    for kernel in kernels:
        values = np.tensordot(values, kernel, axes=(0, 1))
    return values


def _place(described: np.ndarray) -> np.ndarray:
    lattice = np.zeros(_LATTICE, np.float32)
    lattice[_inside()] = described
    return lattice
