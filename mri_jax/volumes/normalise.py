"""Intensity normalisation inside the brain mask, applied when a study reads a volume."""

from dataclasses import dataclass

import numpy as np

from mri_jax.errors import UserError

METHODS = ("zscore", "minmax", "none")


@dataclass(frozen=True)
class Normalisation:
    """How intensities inside the mask become unitless.

    Attributes:
      method: ``zscore`` (mean 0, SD 1), ``minmax`` (0 to 1) or ``none``.
      clip: Percentiles inside the mask to which intensities are clipped first.
      background: The constant given to every voxel outside the mask.
    """

    method: str = "zscore"
    clip: tuple[float, float] = (0.5, 99.5)
    background: float = 0.0

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(f"normalisation.method: {self.method!r} is not one of {METHODS}")
        low, high = self.clip
        if not 0 <= low < high <= 100:
            raise UserError(f"normalisation.clip: {self.clip} must satisfy 0 <= low < high <= 100")


def normalise(volume: np.ndarray, mask: np.ndarray, how: Normalisation) -> np.ndarray:
    """Normalise one volume.

    Args:
      volume: (X, Y, Z) intensities, any real dtype.
      mask: (X, Y, Z) bool, True inside the brain.
      how: The settings.

    Returns:
      (X, Y, Z) float32.

    Raises:
      UserError: The mask is empty, or intensities inside it are not finite or all equal.
    """
    inside = np.asarray(volume, np.float32)[mask]
    if inside.size == 0:
        raise UserError("volume: its mask is empty")
    if not np.isfinite(inside).all():
        raise UserError("volume: NaN or infinity inside the mask")
    low, high = np.percentile(inside, how.clip)
    inside = np.clip(inside, low, high)
    if how.method != "none":
        if how.method == "zscore":
            shift, scale = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
        else:
            shift, scale = low, high - low
        if not scale > 0:
            raise UserError("volume: intensities inside the mask are all equal")
        inside = (inside - np.float32(shift)) / np.float32(scale)
    result = np.full(volume.shape, how.background, np.float32)
    result[mask] = inside
    return result
