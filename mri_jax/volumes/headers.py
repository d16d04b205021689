"""The header of one scan: what the file is, how many voxels it declares, and where they lie.

Nothing here reads voxels, so that a folder of a thousand scans can be checked in seconds
(`mri_jax.volumes.scans.check_header`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt
from nibabel.spatialimages import HeaderDataError

from mri_jax.errors import UserError
from mri_jax.volumes.scan_files import (
    ANEW,
    COMPRESSED,
    SUFFIXES,
    check_regular,
    check_size,
    companions,
    mat_file,
)

MAX_VOXELS = 2**28
MIN_VOXELS_ACROSS = 20
EXTENT_MM = (100.0, 700.0)
SPACING_MM = (0.2, 8.0)
UNITS_MM = {"meter": 1000.0, "micron": 0.001}
# A unit quaternion stored in float32 exceeds the length of 1 by no more than this.
ROUNDING = 1e-5
# An SPM .mat of one or two 4 x 4 matrices has some hundred bytes.
MAX_MAT_BYTES = 2**16


class _RoundedQuaternion:
    """Mixin of NIfTI headers that accepts a quaternion longer than 1 by rounding."""

    def get_qform_quaternion(self) -> np.ndarray:
        try:
            return super().get_qform_quaternion()  # type: ignore[misc]
        except ValueError:
            parts = [float(self[f"quatern_{axis}"]) for axis in "bcd"]  # type: ignore[index]
            excess = float(np.dot(parts, parts)) - 1
            if not excess <= ROUNDING:
                raise HeaderDataError(
                    f"its qform is no rotation: b, c, d have a squared length of {1 + excess:.6g}, "
                    "more than 1"
                ) from None
            return np.array([0.0, *parts]) / np.sqrt(1 + excess)


class _Nifti1Header(_RoundedQuaternion, nib.Nifti1Header):
    pass


class _Nifti1PairHeader(_RoundedQuaternion, nib.nifti1.Nifti1PairHeader):
    pass


class _Nifti2Header(_RoundedQuaternion, nib.Nifti2Header):
    pass


class _Nifti1Image(nib.Nifti1Image):
    header_class = _Nifti1Header


class _Nifti1Pair(nib.Nifti1Pair):
    header_class = _Nifti1PairHeader


class _Nifti2Image(nib.Nifti2Image):
    header_class = _Nifti2Header


_CLASSES = (_Nifti1Image, _Nifti2Image, nib.MGHImage, _Nifti1Pair, nib.Spm2AnalyzeImage)


@dataclass(frozen=True, eq=False)
class Opened:
    """A file whose header was read and accepted.

    Attributes:
      image: nibabel's image; its own affine is not to be used.
      shape: (3,) voxels.
      affine: (4, 4) float64, voxel indices to scanner millimetres along RAS+.
      unit: Millimetres in one unit of the file's lengths.
      notes: What was taken from elsewhere than the usual fields of the header.
    """

    image: nib.spatialimages.SpatialImage
    shape: tuple[int, int, int]
    affine: np.ndarray
    unit: float
    notes: tuple[str, ...]


def check_orientation(code: str) -> str:
    """Returns an orientation such as RAS in capitals; the empty text stays.

    Raises:
      UserError: It is not one letter each of L or R, A or P, S or I.
    """
    wanted = code.strip().upper()
    pairs = ("LR", "AP", "SI")
    if wanted and sorted(next((p for p in pairs if c in p), c) for c in wanted) != sorted(pairs):
        raise UserError(
            f"orientation: {code!r} is not of the form RAS: one letter each of L or R, A or P, "
            "S or I, where the first, second and third voxel axis runs to"
        )
    return wanted


def open_header(path: Path, orientation: str = "") -> Opened:
    """Open a scan and check all that can be checked without its voxels.

    Args:
      path: NIfTI-1 or NIfTI-2 (one file, or .img beside .hdr), MGH, or Analyze (.img beside .hdr).
      orientation: Where the voxel axes run to, such as RAS or LAS, used where the file states
        none: NIfTI codes 0, MGH without its good-RAS flag, Analyze without an SPM .mat.

    Raises:
      UserError: The header cannot be that of a T1w head, or states no orientation and none is
        given.
      Any of `mri_jax.volumes.scan_files.UNREADABLE`: nibabel cannot read it.
    """
    image = open_image(path)
    shape = _check_shape(image)
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise UserError(_not_real(dtype))
    affine, notes = _affine_of(image, path, orientation)
    _check_axes(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    unit, name = _unit_of(image, spacing)
    affine[:3] *= unit
    spacing = spacing * unit
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        raise UserError(
            f"has voxels of {_mm(spacing)} mm; {SPACING_MM[0]} to {SPACING_MM[1]} mm are accepted: "
            f"if the header is wrong, {ANEW}"
        )
    extent = spacing * shape
    if extent.min() < EXTENT_MM[0] or extent.max() > EXTENT_MM[1]:
        raise UserError(
            f"covers {_mm(extent)} mm; a head needs {EXTENT_MM[0]:.0f} to {EXTENT_MM[1]:.0f} mm: "
            f"if the header is wrong, {ANEW}"
        )
    check_size(image, path, whole=False)
    return Opened(image, shape, affine, unit, (*notes, *([f"lengths in {name}s"] if name else [])))


def open_image(path: Path) -> nib.spatialimages.SpatialImage:
    """Read a file's header, as far as it is a regular file of a known kind.

    Raises:
      UserError: It is not; the message has the rule, without the file's name.
    """
    name = path.name.lower()
    if path.name.startswith("."):
        raise UserError("is a hidden file (._ files are macOS's notes on others), not a scan")
    if not name.endswith(SUFFIXES):
        raise UserError(f"is not one of {', '.join(SUFFIXES)}")
    check_regular(path)
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped and not name.endswith(COMPRESSED):
        raise UserError(f"is compressed with gzip; its name should end in {path.suffix}.gz")
    if not zipped and name.endswith(".gz"):
        raise UserError(
            f"cannot be read: it is not compressed with gzip (its name should end in "
            f"{Path(name[:-3]).suffix} if it is not damaged)"
        )
    for beside in companions(path):
        try:
            check_regular(beside)
        except UserError as error:
            raise UserError(f"{beside.name} beside it: {error}") from None
        if beside.suffix.lower() == ".mat" and beside.stat().st_size > MAX_MAT_BYTES:
            raise UserError(f"{beside.name} beside it is too large for an SPM matrix")
    sniff = None
    for kind in _CLASSES:
        fits, sniff = kind.path_maybe_image(str(path), sniff)
        if fits:
            return kind.from_filename(str(path))
    raise UserError(
        "cannot be read: its header is neither NIfTI, MGH nor Analyze; copy or download it again, "
        "or convert the DICOM with dcm2niix"
    )


def _not_real(dtype: np.dtype) -> str:
    """Returns why voxels that are no real numbers are no scan, and what to give instead."""
    if dtype.names:
        return (
            f"is an {''.join(dtype.names)} colour image (a picture or map of a scan), not a scan; "
            "give the T1w image itself"
        )
    if dtype.kind == "c":
        return f"holds complex numbers ({dtype}); save their magnitude (numpy.abs) as the scan"
    return f"holds {dtype} voxels; intensities must be real numbers"


def _check_shape(image: nib.spatialimages.SpatialImage) -> tuple[int, int, int]:
    shape = squeezed(image.shape)
    if len(shape) != 3:
        raise UserError(
            f"has {len(shape)} dimensions {shape}; a T1w scan has 3: save the one volume that is "
            "the scan (fslroi, mrconvert)"
        )
    if min(shape) < 1 or np.prod([float(n) for n in shape]) > MAX_VOXELS:
        raise UserError(f"declares {shape} voxels; at most {MAX_VOXELS:,} are read")
    if min(shape) < MIN_VOXELS_ACROSS:
        raise UserError(
            f"is {shape[0]} x {shape[1]} x {shape[2]} voxels: fewer than {MIN_VOXELS_ACROSS} "
            "along an axis is a localiser or a slab, not a head"
        )
    return shape[0], shape[1], shape[2]


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a shape without dimensions of 1 beyond the third."""
    found = tuple(int(n) for n in shape)
    while len(found) > 3 and found[-1] == 1:
        found = found[:-1]
    return found


def _mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)


def _affine_of(image: Any, path: Path, orientation: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns (4, 4) in the file's unit, from the file or the declared orientation, and notes."""
    header = image.header
    if isinstance(image, nib.Nifti1Pair):
        states = header["qform_code"] > 0 or header["sform_code"] > 0
        lack = "qform and sform codes are 0"
    elif isinstance(image, nib.MGHImage):
        states, lack = bool(header["goodRASFlag"]), "the good-RAS flag is unset"
    else:
        matrix = _spm_matrix(path)
        if matrix is not None:
            return matrix, (f"orientation from {mat_file(path).name}",)
        states, lack = False, "Analyze, without an SPM .mat that holds 'mat'"
    if states:
        return np.array(image.affine, float), _spoilt_qform(header)
    if not orientation:
        raise UserError(
            f"has no affine ({lack}): left and right unknown; say how its voxels are stored with "
            "--orientation, e.g. RAS or LAS"
        )
    affine = np.zeros((4, 4))
    for axis, (row, sign) in enumerate(axcodes2ornt(orientation)):
        affine[int(row), axis] = sign * float(header.get_zooms()[axis])
    affine[3, 3] = 1
    # The middle of the image becomes the origin; only distances matter afterwards.
    affine[:3, 3] = -affine[:3, :3] @ (np.array(squeezed(image.shape)) - 1) / 2
    return affine, (f"orientation {orientation} as declared",)


def _spoilt_qform(header: Any) -> tuple[str, ...]:
    """Returns a note where nibabel takes the sform because the qform cannot be used."""
    try:
        if isinstance(header, nib.Nifti1Header):
            header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        return ("its qform is no rotation; its sform was taken",)
    return ()


def _spm_matrix(path: Path) -> np.ndarray | None:
    """Returns (4, 4) voxel indices from 0 to mm, of SPM's 'mat'; 'M' leaves open what is left."""
    found = mat_file(path)
    if not found.exists():
        return None
    from scipy.io import loadmat

    matrix = loadmat(str(found)).get("mat")
    if matrix is None or matrix.shape != (4, 4) or matrix.dtype.kind not in "iuf":
        return None
    from_one = np.eye(4)
    from_one[:3, 3] = 1
    return np.asarray(matrix, float) @ from_one


def _unit_of(image: Any, spacing: np.ndarray) -> tuple[float, str]:
    """Millimetres in a unit of length, and its name where it is not the millimetre.

    A stated unit is taken where it makes voxels of a possible size; many files state another unit
    than they use, and the ranges do not overlap.
    """
    if not isinstance(image, nib.Nifti1Pair):
        return 1.0, ""
    try:
        name = image.header.get_xyzt_units()[0]
    except KeyError:
        return 1.0, ""
    unit = UNITS_MM.get(name, 1.0)
    in_mm = spacing * unit
    if unit == 1 or in_mm.min() < SPACING_MM[0] or in_mm.max() > SPACING_MM[1]:
        return 1.0, ""
    return unit, name


def _check_axes(affine: np.ndarray) -> None:
    if not np.isfinite(affine).all():
        raise UserError(f"its affine is not finite; {ANEW}")
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if lengths.min() == 0 or abs(np.linalg.det(axes / lengths)) < 0.1:
        raise UserError(f"its affine is singular; {ANEW}")
