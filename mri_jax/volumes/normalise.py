"""Intensity normalisation inside the brain mask, applied when a study reads a volume."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mri_jax.errors import UserError
from mri_jax.volumes.templates import load_template

METHODS = ("zscore", "minmax", "histogram", "none")
PERCENTILES = tuple(float(p) for p in range(0, 101, 2))


@dataclass(frozen=True)
class Normalisation:
    """How intensities inside the mask become unitless.

    Attributes:
      method: ``zscore`` (mean 0, SD 1), ``minmax`` (0 to 1), ``histogram`` (intensities mapped so
        that their percentiles become the reference's; Nyul and Udupa 1999,
        doi:10.1002/(SICI)1522-2594(199912)42:6<1072::AID-MRM11>3.0.CO;2-M) or ``none``.
      clip: Percentiles inside the mask to which intensities are clipped first.
      background: The constant given to every voxel outside the mask.
      reference: For ``histogram``: intensities at `PERCENTILES`, from `template_reference` (which
        an empty one means) or from `training_reference` over the training scans of a fold; never
        from scans that are tested.
    """

    method: str = "zscore"
    clip: tuple[float, float] = (0.5, 99.5)
    background: float = 0.0
    reference: tuple[float, ...] = ()

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(f"normalisation.method: {self.method!r} is not one of {METHODS}")
        low, high = self.clip
        if not 0 <= low < high <= 100:
            raise UserError(f"normalisation.clip: {self.clip} must satisfy 0 <= low < high <= 100")
        if self.reference and self.method != "histogram":
            raise UserError(f"normalisation.reference: {self.method!r} takes none")
        if self.reference and (
            len(self.reference) != len(PERCENTILES) or not (np.diff(self.reference) >= 0).all()
        ):
            raise UserError(f"normalisation.reference: needs {len(PERCENTILES)} rising intensities")


@dataclass(frozen=True)
class Scaling:
    """What normalisation needs to know of one volume, so that it is measured once.

    Attributes:
      low: Intensities inside the mask are clipped to this,
      high: and to this.
      shift: Subtracted, then
      scale: divided by.
      places: For ``histogram``: the volume's intensities at `PERCENTILES`; else empty.
    """

    low: np.floating
    high: np.floating
    shift: np.floating
    scale: np.floating
    places: tuple[float, ...] = ()


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

    Example:
      >>> volume = np.array([0.0, 80.0, 100.0, 120.0]).reshape(2, 2, 1)
      >>> scaled = normalise(volume, volume > 0, Normalisation("zscore", clip=(0, 100)))
      >>> scaled.ravel().astype(float).round(2).tolist()
      [0.0, -1.22, 0.0, 1.22]
    """
    return rescale(volume, mask, how, scaling(volume, mask, how))


def scaling(volume: np.ndarray, mask: np.ndarray, how: Normalisation) -> Scaling:
    """Measure one volume; arguments and errors as of `normalise`."""
    inside = np.asarray(volume[mask], np.float32)
    if inside.size == 0:
        raise UserError("volume: its mask is empty")
    if not np.isfinite(inside).all():
        raise UserError("volume: NaN or infinity inside the mask")
    low, high = np.percentile(inside, how.clip)
    inside = np.clip(inside, low, high)
    shift, scale = np.float64(0), np.float64(1)
    places: tuple[float, ...] = ()
    if how.method == "histogram":
        quantiles = np.percentile(inside, PERCENTILES)
        places, scale = tuple(map(float, quantiles)), quantiles[-1] - quantiles[0]
    elif how.method == "zscore":
        shift, scale = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    elif how.method == "minmax":
        shift, scale = low, high - low
    if not scale > 0:
        raise UserError("volume: intensities inside the mask are all equal")
    return Scaling(low, high, shift, scale, places)


def rescale(volume: np.ndarray, mask: np.ndarray, how: Normalisation, known: Scaling) -> np.ndarray:
    """Normalise one volume that was measured before; arguments and result as of `normalise`."""
    inside = np.clip(np.asarray(volume[mask], np.float32), known.low, known.high)
    if how.method == "histogram":
        reference = how.reference or template_reference()
        inside = np.interp(inside, known.places, reference).astype(np.float32)
    elif how.method != "none":
        inside = (inside - np.float32(known.shift)) / np.float32(known.scale)
    result = np.full(volume.shape, how.background, np.float32)
    result[mask] = inside
    return result


def _percentiles(volume: np.ndarray, mask: np.ndarray, clip: tuple[float, float]) -> np.ndarray:
    zscored = normalise(volume, mask, Normalisation("zscore", clip))
    return np.percentile(zscored[mask], PERCENTILES)


@lru_cache(maxsize=1)
def template_reference() -> tuple[float, ...]:
    """Returns the packaged template's histogram: z-scored intensities at `PERCENTILES`."""
    template = load_template()
    clip = Normalisation().clip
    return tuple(float(x) for x in _percentiles(template.head, template.mask, clip))


def training_reference(
    scans: Iterable[tuple[np.ndarray, np.ndarray]], clip: tuple[float, float] = (0.5, 99.5)
) -> tuple[float, ...]:
    """Returns the mean histogram of the training scans of one fold.

    Args:
      scans: Volumes (X, Y, Z) and bool masks of training scans only.
      clip: As in `Normalisation`.

    Returns:
      Mean z-scored intensities at `PERCENTILES`, for ``Normalisation("histogram", reference=...)``.

    Raises:
      UserError: There are no scans, or one cannot be normalised.
    """
    curves = [_percentiles(volume, mask, clip) for volume, mask in scans]
    if not curves:
        raise UserError("normalisation.reference: no training scans were given")
    return tuple(float(x) for x in np.mean(curves, axis=0))
