"""Figures of quality for one scan (outliers: `outliers`; who is left out: `exclusions`).

No figure judges a step by itself: the volume of the brain is taken before registration, the
correlation is with a template that the scan did not make, the leakage is measured against the
template's brain and not against the mask.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy import linalg, ndimage

from mri_jax.volumes.grids import Grid
from mri_jax.volumes.registration import AffineFit
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.scans import RawScan
from mri_jax.volumes.templates import Template

# Column -> (unit and meaning, which side is bad).
FIGURES = {
    "correlation": ("with the template inside its brain, on the grid", "low"),
    "brain_ml": ("volume of the brain before registration, mL", "both"),
    "scale": ("edge length of the template on the scan, 1 = equal: the size of the head", "both"),
    "shear": ("largest relative stretch or shear beside that scale", "high"),
    "snr": ("median of the brain over the SD of its noise", "low"),
    "leakage": ("part of the mask more than 6 mm outside the template's brain", "high"),
    "missing": ("part of the template's inner brain (6 mm deep) outside the mask", "high"),
    "form_gap_mm": ("largest distance between qform and sform, mm", "high"),
    "mirrored_forms": ("1 when qform and sform differ in handedness: left-right flip", "high"),
    "filled_voxels": ("voxels inside the head that were NaN or infinite and were filled", "high"),
}
# Limits that hold for any adult head, whatever the scans beside it.
LIMITS = {
    "correlation": (0.45, np.inf),
    "brain_ml": (800.0, 2200.0),
    "leakage": (-np.inf, 0.05),
    "missing": (-np.inf, 0.02),
    "form_gap_mm": (-np.inf, 5.0),
    "mirrored_forms": (-np.inf, 0.5),
    "filled_voxels": (-np.inf, 0.5),
}
_DEPTH = 6.0


def figures(
    scan: RawScan,
    working: Image,
    mask: np.ndarray,
    fit: AffineFit,
    there: Mapping[str, float],
) -> dict[str, float]:
    """Returns the figures `FIGURES` of one scan.

    Args:
      scan: As read.
      working: Corrected for inhomogeneity, at about 2 mm.
      mask: (X, Y, Z) bool, the brain on the working voxels.
      fit: The affine from template to scan.
      there: What `grid_figures` says of the volume on the grid.
    """
    scale, shear = scale_and_shear(fit.matrix)
    return {
        "correlation": there["correlation"],
        "brain_ml": _round(np.count_nonzero(mask) * abs(np.linalg.det(working.affine)) * 1e-3),
        "scale": _round(scale),
        "shear": _round(shear),
        "snr": _round(signal_to_noise(working.data, mask)),
        "leakage": there["leakage"],
        "missing": there["missing"],
        "form_gap_mm": _round(scan.form_disagreement),
        "mirrored_forms": int(scan.forms_mirrored),
        # Hardly any scan has such voxels, so that most stores have no such column.
        **({"filled_voxels": scan.filled} if scan.filled else {}),
    }


def grid_figures(
    volume: np.ndarray,
    on_grid: np.ndarray,
    grid: Grid,
    template: Template,
    to_template: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns those of the figures that need a volume on the grid and its mask alone.

    They can be had of a store whose volumes never were raw scans, such as a simulated one.
    ``to_template`` is (4, 4), millimetres of the grid to the template's; by default they are one.
    """
    matrix = np.eye(4) if to_template is None else to_template
    there, head, near, deep = _template_on(grid, template, tuple(matrix.ravel().tolist()))
    stored = np.count_nonzero(on_grid)
    return {
        "correlation": _round(np.corrcoef(volume[there].astype(np.float32), head)[0, 1]),
        "leakage": _round((stored - np.count_nonzero(on_grid & near)) / stored),
        "missing": _round(np.count_nonzero(deep & ~on_grid) / max(1, int(np.count_nonzero(deep)))),
    }


@lru_cache(maxsize=2)
def _template_on(
    grid: Grid, template: Template, to_template: tuple[float, ...]
) -> tuple[np.ndarray, ...]:
    """Returns the template's brain (X, Y, Z) on a grid, its intensities there (N,), and two masks.

    The masks are the brain grown and the brain shrunk by `_DEPTH` mm.
    """
    affine = np.reshape(to_template, (4, 4)) @ grid.affine
    there = pull(Image(template.mask, template.affine), affine, grid.shape) > 0.5
    head = pull(Image(template.head, template.affine), affine, grid.shape)[there]
    # Distances are found at 2 mm, which is a tenth of the work at 1 mm.
    depth = pull(template.depth, affine, grid.shape, mode="nearest")
    return there, head, depth > -_DEPTH, depth > _DEPTH


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def scale_and_shear(matrix: np.ndarray) -> tuple[float, float]:
    """Polar decomposition of an affine: its mean scale, and what its stretch has beside it.

    Returns:
      The cube root of the determinant, and the largest absolute entry of stretch / scale - 1.
    """
    _, stretch = linalg.polar(matrix[:3, :3])
    scale = float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))
    return scale, float(np.abs(stretch / scale - np.eye(3)).max())


def signal_to_noise(data: np.ndarray, mask: np.ndarray) -> float:
    """Returns the median of the brain over the SD of its noise.

    The noise is read from mixed second differences inside the brain, which cancel anatomy that
    varies linearly (the idea of Immerkaer 1996, doi:10.1006/cviu.1996.0060, along three axes).
    """
    kernel = np.array([1.0, -2.0, 1.0])
    response = np.asarray(data, np.float32)
    for axis in range(3):
        response = ndimage.convolve1d(response, kernel, axis=axis)
    inner = ndimage.binary_erosion(mask, iterations=3)
    inner = inner if inner.any() else mask
    # The response of white noise has SD 6^(3/2); the median absolute value is 0.6745 SD.
    noise = float(np.median(np.abs(response[inner]))) / 0.6745 / 6**1.5
    return float(np.median(data[mask])) / max(noise, 1e-6)
