"""Reading one raw T1w scan, and refusing what is not one.

`read_scan` looks at the header before it allocates anything, reads the whole file (so a truncated
or corrupted one is noticed), and returns the intensities along RAS+ with their affine.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from mri_jax.errors import UserError

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh")
SIMULATED = b"SIMULATED"
MAX_VOXELS = 2**28
MIN_VOXELS_ACROSS = 20
EXTENT_MM = (100.0, 700.0)
SPACING_MM = (0.2, 8.0)
MIN_DISTINCT = 24
MAX_NEGATIVE = 0.02


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan in memory.

    Attributes:
      data: (X, Y, Z) float32 along RAS+ (`nibabel.as_closest_canonical`), not negative.
      affine: (4, 4) float64, voxel indices to scanner millimetres.
      form_disagreement: Largest distance (mm) over the corners of the image between where the
        NIfTI qform and sform place it; NaN unless the header holds both.
      forms_mirrored: Whether qform and sform differ in handedness: left and right may be swapped.
    """

    data: np.ndarray
    affine: np.ndarray
    form_disagreement: float = float("nan")
    forms_mirrored: bool = False

    @property
    def spacing(self) -> np.ndarray:
        """(3,) edge lengths of a voxel in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def read_scan(path: Path) -> Scan:
    """Read and check one T1w scan (NIfTI-1, NIfTI-2 or MGH, gzip-compressed or not).

    Raises:
      UserError: The file cannot be read whole, or its content cannot be a T1w head; the message
        names the file and the rule.
    """
    try:
        image = _open(path)
        _check_geometry(image)
        data = _read_voxels(image, path)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None
    except (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), path.name)
        raise UserError(f"{path.name}: cannot be read ({first})") from None
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, image.affine))
    disagreement, mirrored = _compare_forms(image)
    return Scan(np.asarray(canonical.dataobj), canonical.affine, disagreement, mirrored)


def is_simulated(path: Path) -> bool | None:
    """Whether a file's header says that it is SIMULATED (`mri_jax simulate --raw` writes so);
    None for a file that cannot be read."""
    try:
        header = _open(path).header
    except (UserError, OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, ValueError):
        return None
    return isinstance(header, nib.Nifti1Header) and bytes(header["descrip"]).startswith(SIMULATED)


def _open(path: Path) -> nib.spatialimages.SpatialImage:
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"is not one of {', '.join(SUFFIXES)}")
    if not path.exists():
        raise UserError("no such file")
    if path.stat().st_size == 0:
        raise UserError("the file is empty")
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image | nib.MGHImage):
        raise UserError(f"is a {type(image).__name__}, not single-file NIfTI or MGH")
    return image


def _check_geometry(image: nib.spatialimages.SpatialImage) -> None:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise UserError(f"has {len(shape)} dimensions {shape}; a T1w scan has 3")
    if min(shape) < 1 or np.prod([float(n) for n in shape]) > MAX_VOXELS:
        raise UserError(f"declares {shape} voxels; at most {MAX_VOXELS:,} are read")
    if min(shape) < MIN_VOXELS_ACROSS:
        raise UserError(
            f"is {shape[0]} x {shape[1]} x {shape[2]} voxels: fewer than {MIN_VOXELS_ACROSS} "
            "along an axis is a localiser or a slab, not a head"
        )
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise UserError(f"holds {dtype} voxels; intensities must be real numbers")
    _check_affine(image)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        raise UserError(
            f"has voxels of {_mm(spacing)} mm; {SPACING_MM[0]} to {SPACING_MM[1]} mm are accepted"
        )
    extent = spacing * shape
    if extent.min() < EXTENT_MM[0] or extent.max() > EXTENT_MM[1]:
        raise UserError(
            f"covers {_mm(extent)} mm; a head needs {EXTENT_MM[0]:.0f} to {EXTENT_MM[1]:.0f} mm"
        )


def _mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)


def _check_affine(image: Any) -> None:
    header = image.header
    if isinstance(image, nib.Nifti1Image):
        if not (header["qform_code"] > 0 or header["sform_code"] > 0):
            raise UserError("has no affine (qform and sform codes are 0): left and right unknown")
    elif not header["goodRASFlag"]:
        raise UserError("has no affine (the good-RAS flag is unset): left and right unknown")
    affine = image.affine
    if affine is None or not np.isfinite(affine).all():
        raise UserError("its affine is not finite")
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if lengths.min() == 0 or abs(np.linalg.det(axes / lengths)) < 0.1:
        raise UserError("its affine is singular")


def _read_voxels(image: nib.spatialimages.SpatialImage, path: Path) -> np.ndarray:
    _check_size(image, path)
    data = np.asanyarray(image.dataobj)
    data = np.asarray(data.reshape(data.shape[:3]), np.float32)
    bad = data.size - int(np.isfinite(data).sum())
    if bad:
        raise UserError(f"{bad} voxels are NaN or infinite")
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise UserError(f"every voxel is {low:g}")
    if low < -MAX_NEGATIVE * high:
        raise UserError(f"has intensities down to {low:g}; those of a T1w magnitude are positive")
    if low < 0:
        # Interpolation overshoots by a little below an air background of zero.
        data = np.maximum(data, 0)
    distinct = len(np.unique(data[:: max(1, data.shape[0] // 40), ::2, ::2]))
    if distinct < MIN_DISTINCT:
        raise UserError(f"holds {distinct} distinct intensities: a mask or label map, not a T1w")
    return data


def _check_size(image: Any, path: Path) -> None:
    """Compare the bytes of a file with what its header declares, without holding them."""
    declared = int(image.dataobj.offset) + image.get_data_dtype().itemsize * int(
        np.prod([int(n) for n in image.shape])
    )
    if path.name.endswith((".gz", ".mgz")):
        found = 0
        with gzip.open(path) as file:
            while found <= declared + 2**20 and (chunk := file.read(2**22)):
                found += len(chunk)
    else:
        found = path.stat().st_size
    # MGH files end with optional scanner parameters and tags; NIfTI files end with the voxels.
    if found < declared or (isinstance(image, nib.Nifti1Image) and found > declared):
        raise UserError(f"holds {found} bytes where its header declares {declared}")


def _compare_forms(image: nib.spatialimages.SpatialImage) -> tuple[float, bool]:
    if not isinstance(image, nib.Nifti1Image):
        return float("nan"), False
    sform, s_code = image.header.get_sform(coded=True)
    try:
        qform, q_code = image.header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        return float("nan"), False
    if not (q_code and s_code) or sform is None or qform is None:
        return float("nan"), False
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.shape[:3]) - 1)
    gap = (qform - sform) @ np.c_[corners, np.ones(8)].T
    mirrored = np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0
    return float(np.linalg.norm(gap[:3], axis=0).max()), bool(mirrored)
