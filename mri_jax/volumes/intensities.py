"""Intensities unlike those of a plain magnitude image, each mended by one stated rule.

`mended` serves reading: voxels without a number, values below zero, the range of MP2RAGE.
`without_spikes` and `clear_background` serve the pipeline. What needs no mending is returned as it
is, bit by bit. docs/preprocessing.md has the rules as a table.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from mri_jax.errors import UserError
from mri_jax.problems import counted
from mri_jax.volumes.resampling import Image

# Part of the head's voxels that may be without a number, to be filled from their neighbours.
MAX_FILLED = 1e-3
# MP2RAGE's UNI lies in -0.5 to 0.5, by rounding a hundredth beyond, and reaches 0.45 at both ends.
UNI_MIDDLE, UNI_LIMIT, UNI_REACHED = 0.5, 0.505, 0.45
# Below zero by at most the first part of the maximum: interpolation around air. By at most the
# second in a few voxels: overshoot of a high-order spline.
MAX_NEGATIVE, MAX_OVERSHOOT, OVERSHOOT_PART = 0.02, 0.1, 0.01
# Half the smallest brain (mL), since Otsu's threshold leaves out fluid and dark tissue.
SMALLEST_HEAD = 250.0
# So many voxels, evenly spread, tell a level of intensity.
ENOUGH_VOXELS = 2**21
# Brains with their fluid (mL): the least and the most that a scan without skull holds.
BRAIN_ML = (500.0, 2300.0)
# Beside a stripped brain, what remains of the background lies within this part of the head's level.
BACKGROUND_PART = 0.03
# Of the image's faces so much is background where there is no skull; a neck or scalp shows in more.
QUIET_FACES = 0.95


@dataclass(frozen=True, eq=False)
class Mended:
    """Intensities that can be used.

    Attributes:
      data: (X, Y, Z) float32, finite and not negative.
      filled: How many voxels inside the head were not finite.
      notes: What was done, in words; empty for a plain image.
    """

    data: np.ndarray
    filled: int = 0
    notes: tuple[str, ...] = ()


def mended(data: np.ndarray) -> Mended:
    """Make finite intensities that are not negative, or say why that would be a guess.

    Args:
      data: (X, Y, Z) float32.

    Raises:
      UserError: Many voxels of the head are not finite, every voxel is the same, or intensities
        are negative beyond what interpolation or MP2RAGE explains.
    """
    bad = ~np.isfinite(data)
    known = data[~bad] if bad.any() else data
    if not known.size:
        raise UserError("every voxel is NaN or infinite")
    low, high = float(known.min()), float(known.max())
    if low == high:
        raise UserError(f"every voxel is {low:g}")
    notes: list[str] = []
    if -UNI_LIMIT <= low <= -UNI_REACHED and UNI_REACHED <= high <= UNI_LIMIT:
        data = np.maximum(data + np.float32(UNI_MIDDLE), 0)
        notes.append("0.5 added to intensities of -0.5 to 0.5 (MP2RAGE UNI)")
    elif low < 0:
        if low < -MAX_NEGATIVE * high:
            _check_overshoot(known, low, high)
            notes.append("intensities below 0 cut (overshoot of interpolation)")
        data = np.maximum(data, 0)
    if not bad.any():
        return Mended(data, 0, tuple(notes))
    data, filled = _filled(data, bad)
    if filled:
        notes.append("voxels inside the head that were NaN or infinite filled")
    return Mended(data, filled, tuple(notes))


def _check_overshoot(known: np.ndarray, low: float, high: float) -> None:
    part = np.count_nonzero(known < -MAX_NEGATIVE * high) / known.size
    if low < -MAX_OVERSHOOT * high or part > OVERSHOOT_PART:
        raise UserError(
            f"has intensities down to {low:g} ({100 * part:.3g} % of its voxels are below "
            f"{-100 * MAX_NEGATIVE:.0f} % of the largest); those of a T1w magnitude are positive: "
            "give the scan as it was before it was scaled (z-scores, an offset), or convert the "
            "DICOM again"
        )


def _thinned(data: np.ndarray) -> np.ndarray:
    """Returns every n-th voxel along each axis, so that a level costs little in a large scan."""
    step = int(np.ceil(np.cbrt(data.size / ENOUGH_VOXELS)))
    return data[::step, ::step, ::step]


def _filled(data: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, int]:
    """Set what is not finite to 0 outside the head; inside fill it, and count it."""
    data = np.where(bad, np.float32(0), data)
    head = _largest_part(data > head_level(_thinned(data)))
    whole = ndimage.binary_fill_holes(head)
    inside = np.argwhere(bad & whole)
    largest = int(MAX_FILLED * np.count_nonzero(head))
    if len(inside) > largest:
        voxels = counted(len(inside), "voxel inside the head is", "voxels inside the head are")
        raise UserError(
            f"{voxels} NaN or infinite; up to "
            f"{largest} ({100 * MAX_FILLED:g} % of the head) are filled: give the scan as it was "
            "before the step that made them, or convert the DICOM again"
        )
    known = data.copy()
    for place in inside:
        data[tuple(place)] = _median_around(known, bad, place)
    return data, len(inside)


def _median_around(data: np.ndarray, bad: np.ndarray, place: np.ndarray) -> float:
    """Returns the median of the finite voxels in the smallest cube around a voxel with any."""
    for reach in range(1, max(data.shape)):
        box = tuple(slice(max(0, p - reach), p + reach + 1) for p in place)
        there = data[box][~bad[box]]
        if there.size:
            return float(np.median(there))
    raise ValueError("no finite voxel")


def _largest_part(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def head_level(data: np.ndarray) -> float:
    """Returns a quarter of the intensity-weighted mean: what exceeds it is the head.

    Args:
      data: (X, Y, Z) finite; the brightest hundredth counts as its least bright voxel.
    """
    low = np.minimum(data, np.percentile(data, 99)).astype(np.float64)
    # Stays a NumPy float64, so that float32 voxels are compared with it unrounded.
    level: float = 0.25 * (low**2).sum() / max(low.sum(), 1e-12)
    return level


def millilitres(mask: np.ndarray, affine: np.ndarray) -> float:
    """Returns the volume of a mask in mL."""
    return float(np.count_nonzero(mask) * abs(np.linalg.det(affine[:3, :3])) * 1e-3)


def is_brain_sized(mask: np.ndarray, affine: np.ndarray) -> bool:
    """Returns whether a mask has the volume of a brain (`BRAIN_ML`)."""
    return BRAIN_ML[0] <= millilitres(mask, affine) <= BRAIN_ML[1]


def without_spikes(scan: Image) -> tuple[Image, str]:
    """Cut voxels that are so bright that Otsu's threshold finds them instead of the head.

    They are cut to that threshold, again and again, until what exceeds it has the volume of a head
    (`SMALLEST_HEAD`): an overflow in the air does not matter then, and an intensity that a head
    reaches is never cut.

    Args:
      scan: Intensities, not negative.

    Returns:
      The scan, and what was done; the same scan and an empty text where nothing is so bright.
    """
    data, cut = scan.data, False
    # Where a head exceeds a quarter of the maximum no spike stands out, and no threshold is needed.
    while millilitres(data > data.max() / 4, scan.affine) < SMALLEST_HEAD:
        level = _otsu(data)
        spikes = data > level
        if not spikes.any() or millilitres(spikes, scan.affine) >= SMALLEST_HEAD:
            break
        cut = True
        data = np.minimum(data, np.float32(level))
    if not cut:
        return scan, ""
    return Image(data, scan.affine), "spikes far brighter than the head cut"


def _otsu(data: np.ndarray) -> float:
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.ascontiguousarray(data)))
    return float(otsu.GetThreshold())


def clear_background(scan: Image) -> tuple[Image, str]:
    """Set the background of a scan without skull to 0.

    Such a scan is known by its volume: what exceeds the background's level by `BACKGROUND_PART` of
    the head's has that of a brain, and 95 % of the image's faces do not exceed it. The level (the
    median of the faces) is subtracted, so that an offset does not lessen contrasts.

    Args:
      scan: Intensities, not negative.

    Returns:
      The scan, and what was done; the same scan and an empty text where the background is 0
      already, or where there is a skull.
    """
    data = scan.data
    if is_brain_sized(data > 0, scan.affine):
        return scan, ""
    faces = np.concatenate([data.take((0, -1), axis).ravel() for axis in range(3)])
    level = float(np.median(faces))
    reach = BACKGROUND_PART * 4 * head_level(np.maximum(_thinned(data) - np.float32(level), 0))
    quiet = np.count_nonzero(np.abs(faces - level) <= reach) / faces.size
    inside = data > level + reach
    if quiet < QUIET_FACES or not is_brain_sized(inside, scan.affine):
        return scan, ""
    cleared = np.where(inside, data - np.float32(level), np.float32(0))
    return Image(cleared, scan.affine), "background set to 0 (no skull, but not 0 around the brain)"
