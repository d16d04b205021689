"""One raw scan to one volume on the grid: the steps in order, with their settings.

1. read, reorient to RAS+, check (`scans.read_scan`)
2. inhomogeneity correction (`inhomogeneity.log_bias_field`, N4)
3. brain extraction (`brain`)
4. affine or rigid registration of the brain to the template (`registration`)
5. resampling to the grid, which crops or pads (`to_grid`)

All that is estimated (2 to 4) is estimated at about 2 mm; step 5 reads the scan's own voxels once.
A nonlinear registration is not offered: it would bend an atrophied brain to a healthy one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from threadpoolctl import threadpool_limits

from mri_jax.errors import UserError
from mri_jax.typed import build
from mri_jax.volumes import brain, quality
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.inhomogeneity import correct, log_bias_field
from mri_jax.volumes.intensities import clear_background, millilitres, without_spikes
from mri_jax.volumes.registration import (
    AffineFit,
    fit_of,
    register_brain,
    register_head,
    register_rigid,
)
from mri_jax.volumes.resampling import (
    Image,
    block_mean,
    crop_around,
    pull,
    smoothing_sigma,
    transform_points,
)
from mri_jax.volumes.scans import RawScan, read_mask, read_scan
from mri_jax.volumes.store import StoreInfo
from mri_jax.volumes.templates import PACKAGED, Template, load_template

# Raised whenever the same scan and settings would give other bytes.
VERSION = 2
WORKING_SPACING = 2.0
REGISTRATIONS = ("affine", "rigid")
# A brain laid rigidly may reach beyond the grid by no more than this part of it.
MAX_CUT = 1e-3
# Where the maker of volumes that were never raw states what raw scans must go through beside them.
EQUIVALENT = "equivalent_preprocessing"
# Intensities are scaled so that the brain's median is this: float16 then holds any scanner's.
MEDIAN = 100.0


@dataclass(frozen=True)
class PreprocessSettings:
    """Every choice of the pipeline; equal settings give equal bytes.

    Attributes:
      grid: ``paper`` (1 mm), ``dev`` (2 mm) or ``demo`` (4 mm).
      brain: ``template``, ``deepbet``, ``mask`` or ``none``; see `mri_jax.volumes.brain`.
      n4: Whether to correct intensity inhomogeneity.
      dtype: Dtype of the stored volumes, ``float16`` or ``float32``.
      template: ``mni152`` or the path of a T1w head.
      template_mask: The path of its brain mask, with a path.
      template_sha256: Checksums of both files; filled in when left empty.
      registration: ``affine``, which gives every brain the template's size, or ``rigid``, which
        keeps its own.
    """

    grid: str = "dev"
    brain: str = "template"
    n4: bool = True
    dtype: str = "float16"
    template: str = PACKAGED
    template_mask: str = ""
    template_sha256: tuple[str, str] = ("", "")
    registration: str = "affine"

    def __post_init__(self):
        if self.brain not in brain.METHODS:
            raise UserError(f"brain: {self.brain!r} is not one of {', '.join(brain.METHODS)}")
        if self.dtype not in ("float16", "float32"):
            raise UserError(f"dtype: {self.dtype!r} is neither float16 nor float32")
        if self.registration not in REGISTRATIONS:
            raise UserError(f"registration: {self.registration!r} is neither affine nor rigid")
        load_template(self.template, self.template_mask).grid(self.grid)
        if not self.template_sha256[0]:
            template = load_template(self.template, self.template_mask)
            object.__setattr__(self, "template_sha256", template.sha256)

    def load_template(self) -> Template:
        """Returns the template, checked to be the one these settings were made with.

        Raises:
          UserError: Its files have changed.
        """
        template = load_template(self.template, self.template_mask)
        if template.sha256 != tuple(self.template_sha256):
            raise UserError(f"template: {self.template} is not the file it was (checksum)")
        return template

    def to_json(self) -> dict[str, Any]:
        """Returns the form kept in ``store.json`` under ``settings``."""
        value = asdict(self) | {"pipeline": VERSION}
        if self.registration == "affine":
            # Left out, so that stores made before there was a choice keep their fingerprint.
            del value["registration"]
        return value | {"template_sha256": list(self.template_sha256)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PreprocessSettings":
        """Returns what `to_json` wrote.

        Raises:
          UserError: The settings are of another version of the pipeline, or not of this pipeline.
        """
        if value.get("pipeline") != VERSION:
            raise UserError(
                f"settings: pipeline {value.get('pipeline')!r}; this version runs {VERSION}"
            )
        names = {name: v for name, v in value.items() if name != "pipeline"}
        return build(cls, names, "settings")


def settings_of(info: StoreInfo) -> PreprocessSettings:
    """Returns the settings under which a raw scan comes to lie as the volumes of a store do.

    Those that made the store; or, for volumes that never were raw scans (simulated ones), those
    that their maker states as equivalent (`EQUIVALENT` in the store's provenance).

    Raises:
      UserError: The store states neither, or settings of another version of the pipeline.
    """
    stated = info.settings if "pipeline" in info.settings else info.provenance.get(EQUIVALENT)
    if stated is None:
        raise UserError(
            "store: its volumes were not made by this pipeline and it states no equivalent "
            f"settings ({EQUIVALENT}); raw scans cannot be brought to it"
        )
    return PreprocessSettings.from_json(stated)


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A scan on the grid.

    Attributes:
      volume: (X, Y, Z) in the settings' dtype; 0 outside the brain, its median `MEDIAN` inside.
      mask: (X, Y, Z) bool.
      affine: (4, 4) voxel indices to template millimetres.
      to_scan: (4, 4) template millimetres to the raw scan's millimetres.
      quality: Figures and the steps taken, flat, one value a column.
    """

    volume: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    to_scan: np.ndarray
    quality: dict[str, Any] = field(default_factory=dict)


def preprocess_scan(
    path: Path | str,
    settings: PreprocessSettings,
    mask_path: Path | str | None = None,
    in_template_space: bool = False,
    orientation: str = "",
) -> PreprocessedScan:
    """Run the whole pipeline on one file.

    Args:
      path: A raw T1w scan: NIfTI, MGH or Analyze.
      settings: The choices.
      mask_path: The brain mask on the scan's voxels, for ``brain="mask"``.
      in_template_space: The scan comes from Clinica's ``t1-linear``: inhomogeneity is corrected
        and it lies on an MNI152 template, so steps 2 and 4 are skipped.
      orientation: Where the voxel axes run to, such as RAS, if the file states no orientation.

    Raises:
      UserError: The scan or mask cannot be used; the message says why.
    """
    scan = read_scan(Path(path), orientation)
    given = _read_mask(mask_path, scan, settings, orientation)
    return preprocess(scan, settings, given, in_template_space)


def preprocess(
    scan: RawScan,
    settings: PreprocessSettings,
    given_mask: np.ndarray | None = None,
    in_template_space: bool = False,
) -> PreprocessedScan:
    """Does what `preprocess_scan` does; ``given_mask`` is bool on the voxels of the scan."""
    # A matrix product sums in an order that depends on the threads of BLAS, and so would the bytes.
    with threadpool_limits(limits=1):
        return _preprocess(scan, settings, given_mask, in_template_space)


def _preprocess(
    scan: RawScan,
    settings: PreprocessSettings,
    given_mask: np.ndarray | None,
    in_template_space: bool,
) -> PreprocessedScan:
    template = settings.load_template()
    if in_template_space and settings.registration == "rigid":
        raise UserError(
            "registration: rigid: outputs of t1-linear have lost the size of the head; give raw "
            "scans"
        )
    whole, changes = even(scan)
    notes = "; ".join((*scan.notes, *changes))
    working = block_mean(whole, WORKING_SPACING)
    bias: Image | None = None
    if settings.n4 and not in_template_space:
        bias = log_bias_field(working)
        working = correct(working, bias)
    fit = AffineFit(np.eye(4), float("nan"))
    method = settings.brain
    if method == "template" and brain.is_stripped(working):
        method = "none (detected)"
    if not in_template_space:
        fit = register_head(working, template)
    mask = _extract(method, whole, working, fit, template, given_mask)
    if in_template_space:
        fit = fit_of(working, mask, np.eye(4), template)
    else:
        fit = register_brain(working, mask, fit, template)
    grid = template.grid(settings.grid)
    laid = fit.matrix
    if settings.registration == "rigid":
        laid = register_rigid(working, mask, fit, template).matrix
        _check_inside(mask, working.affine, laid, grid)
    volume, on_grid = to_grid(whole, bias, Image(mask, working.affine), laid, grid)
    scale = MEDIAN / _median(volume[on_grid])
    volume = np.where(on_grid, np.maximum(volume, 0) * scale, 0).astype(settings.dtype)
    if not np.isfinite(volume).all():
        raise UserError("intensities exceed the range of float16; use dtype float32")
    # The template is compared as the affine fits it to this brain, whatever its size on the grid.
    to_template = np.eye(4)
    if settings.registration != "affine":
        to_template = np.linalg.inv(fit.matrix) @ laid
    there = quality.grid_figures(volume, on_grid, grid, template, to_template)
    figures = quality.figures(scan, Image(working.data, working.affine), mask, fit, there)
    steps = {
        "inhomogeneity": "t1-linear" if in_template_space else ("n4" if settings.n4 else "none"),
        "brain": method,
        "registration": "t1-linear" if in_template_space else settings.registration,
        "intensity_scale": float(scale),
        "to_scan": " ".join(f"{x:.9g}" for x in laid[:3].ravel()),
        **({"reading": notes} if notes else {}),
    }
    return PreprocessedScan(volume, on_grid, grid.affine, laid, {**figures, **steps})


def even(scan: RawScan) -> tuple[Image, tuple[str, ...]]:
    """Removes spikes and, without a skull, sets the background to 0; returns what was done too.

    Versions before 2026-12 did neither.
    """
    whole, cut = without_spikes(Image(scan.data, scan.affine))
    whole, cleared = clear_background(whole)
    return whole, tuple(filter(None, (cut, cleared)))


def _check_inside(mask: np.ndarray, affine: np.ndarray, laid: np.ndarray, grid: Grid) -> None:
    to_voxels = np.linalg.inv(laid @ grid.affine)
    voxels = transform_points(to_voxels, brain.mask_points(mask, affine))
    inside = ((voxels >= -0.5) & (voxels <= np.array(grid.shape) - 0.5)).all(axis=1)
    if (cut := 1 - inside.mean()) > MAX_CUT:
        raise UserError(
            f"registration: rigid: {100 * cut:.2g} % of the brain lie outside the grid "
            f"{grid.name}; --registration affine fits it in"
        )


def to_grid(
    scan: Image, bias: Image | None, mask: Image, matrix: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Carry a scan and its mask to the grid.

    Intensities are smoothed first when the grid is coarser than the scan, then sampled with cubic
    splines; the mask by trilinear sampling of its (smoothed) indicator, at one half.

    Args:
      scan: On its own voxels.
      bias: Logarithm of its inhomogeneity, on any voxels; None for none.
      mask: The brain, on any voxels.
      matrix: (4, 4) template millimetres to scan millimetres.
      grid: The grid.

    Returns:
      (X, Y, Z) float32 intensities, sampled in the box of the brain alone and 0 beyond it, and
      (X, Y, Z) bool.
    """
    to_scan = matrix @ grid.affine
    # Length on the scan of one edge of the grid, so that a small head is smoothed less.
    step = grid.spacing * float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))
    soft = ndimage.gaussian_filter(
        np.asarray(mask.data, np.float32), smoothing_sigma(mask.spacing, step), truncate=3
    )
    inside = pull(Image(soft, mask.affine), to_scan, grid.shape) > 0.5
    if not inside.any():
        raise UserError("the brain lies outside the grid")
    block = crop_around(scan, brain.mask_points(mask.data, mask.affine), margin=3 * step + 4)
    sigma = smoothing_sigma(block.spacing, step)
    smooth = Image(
        ndimage.gaussian_filter(np.asarray(block.data, np.float32), sigma, truncate=3), block.affine
    )
    (box,) = ndimage.find_objects(inside.view(np.int8))
    shape = tuple(part.stop - part.start for part in box)
    corner = np.eye(4)
    corner[:3, 3] = [part.start for part in box]
    volume = np.zeros(grid.shape, np.float32)
    volume[box] = pull(smooth, to_scan @ corner, shape, order=3)
    if bias is not None:
        volume[box] *= np.exp(-pull(bias, to_scan @ corner, shape, mode="nearest"))
    return volume, inside


def _median(values: np.ndarray) -> float:
    median = float(np.median(values))
    if not median > 0:
        raise UserError("the brain's median intensity is 0")
    return median


def _extract(
    method: str,
    whole: Image,
    working: Image,
    fit: AffineFit,
    template: Template,
    given: np.ndarray | None,
) -> np.ndarray:
    """Returns (X, Y, Z) bool on the working voxels."""
    if method == "template":
        mask = brain.by_template(working, fit, template)
    elif method.startswith("none"):
        mask = brain.by_nonzero(working)
    else:
        fine = brain.by_deepbet(whole) if method == "deepbet" else given
        if fine is None:
            raise UserError("brain: mask: this scan has no mask file")
        indicator = block_mean(Image(fine.astype(np.float32), whole.affine), WORKING_SPACING)
        mask = indicator.data >= 0.5
    volume = millilitres(mask, working.affine)
    largest = np.inf if method == "mask" else brain.LARGEST_BRAIN
    if not brain.SMALLEST_BRAIN <= volume <= largest:
        raise UserError(
            f"brain: {method}: the mask holds {volume:.0f} mL; a brain has "
            f"{brain.SMALLEST_BRAIN:.0f} to {brain.LARGEST_BRAIN:.0f}"
        )
    return mask


def _read_mask(
    path: Path | str | None, scan: RawScan, settings: PreprocessSettings, orientation: str
) -> np.ndarray | None:
    if settings.brain != "mask":
        return None
    if path is None:
        raise UserError("brain: mask: this scan has no mask file")
    return read_mask(Path(path), scan, orientation)
