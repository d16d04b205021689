"""Reading one raw T1w scan, and refusing what is not one.

`read_scan` looks at the header before it allocates anything (`headers`), reads the whole file (so a
truncated or corrupted one is noticed), and returns the intensities along RAS+ with their affine.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from mri_jax.errors import UserError
from mri_jax.showing.simulated import WORD
from mri_jax.volumes.headers import Opened, open_header, open_image
from mri_jax.volumes.intensities import Mended, mended
from mri_jax.volumes.scan_files import UNREADABLE, check_size, is_label_name, why_unreadable

MIN_DISTINCT = 24


@dataclass(frozen=True, eq=False)
class RawScan:
    """A scan in memory.

    Attributes:
      data: (X, Y, Z) float32 along RAS+ (`nibabel.as_closest_canonical`), not negative.
      affine: (4, 4) float64, voxel indices to scanner millimetres.
      form_disagreement: Largest distance (mm) over the corners of the image between where the
        NIfTI qform and sform place it; NaN unless the header holds both.
      forms_mirrored: Whether qform and sform differ in handedness: left and right may be swapped.
      filled: How many voxels inside the head were NaN or infinite and were filled.
      notes: What was not as usual in reading it, such as a declared orientation.
    """

    data: np.ndarray
    affine: np.ndarray
    form_disagreement: float = float("nan")
    forms_mirrored: bool = False
    filled: int = 0
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> np.ndarray:
        """(3,) edge lengths of a voxel in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def read_scan(path: Path, orientation: str = "") -> RawScan:
    """Read and check one T1w scan (NIfTI, MGH or Analyze, gzip-compressed or not).

    Args:
      path: The file; of a pair the .img.
      orientation: Where its voxel axes run to, such as RAS, for a file that states no orientation.

    Raises:
      UserError: The file cannot be read whole, or its content cannot be a T1w head; the message
        names the file and the rule.
    """
    with _named(path):
        opened = _open(path, orientation)
        read = _read_voxels(opened, path)
        canonical = nib.as_closest_canonical(nib.Nifti1Image(read.data, opened.affine))
        disagreement, mirrored = _compare_forms(opened)
    return RawScan(
        np.asarray(canonical.dataobj),
        canonical.affine,
        disagreement,
        mirrored,
        read.filled,
        (*opened.notes, *read.notes),
    )


def check_header(path: Path, orientation: str = "") -> str | None:
    """Returns why `read_scan` would refuse a file by its header alone; None where it would not.

    Reads some hundred bytes, so that a table of scans is checked before hours of preprocessing.

    Args:
      path: The file; of a pair the .img.
      orientation: As in `read_scan`.

    Returns:
      One line that begins with the file's name.
    """
    try:
        with _named(path):
            _open(path, orientation)
    except UserError as error:
        return str(error)
    return None


def read_mask(path: Path, scan: RawScan, orientation: str = "") -> np.ndarray:
    """Returns the brain mask of a scan, (X, Y, Z) bool on its voxels: where the file is above 0.

    Args:
      path: In any form that a scan may have.
      scan: As read.
      orientation: As in `read_scan`.

    Raises:
      UserError: It cannot be read, or its voxels are not the scan's.
    """
    with _named(path):
        opened = open_header(path, orientation)
        check_size(opened.image, path, whole=True)
        data = np.asanyarray(opened.image.dataobj).reshape(opened.shape) > 0
        image = nib.as_closest_canonical(nib.Nifti1Image(data.view(np.uint8), opened.affine))
        if image.shape != scan.data.shape or not np.allclose(image.affine, scan.affine, atol=1e-2):
            raise UserError(
                f"the mask's voxels {image.shape} are not the scan's {scan.data.shape}, or lie "
                "elsewhere; resample the mask to the scan (nilearn, FLIRT), or give that scan's"
            )
    return np.asarray(image.dataobj).view(bool)


def is_simulated(path: Path) -> bool | None:
    """Returns whether a file's header says SIMULATED, as `mri_jax simulate --raw` writes it.

    None stands for a file that cannot be read.
    """
    try:
        with _named(path):
            header = open_image(path).header
    except UserError:
        return None
    said = bytes(header["descrip"]) if isinstance(header, nib.Nifti1Header) else b""
    return said.startswith(WORD.encode())


def first_is_simulated(paths: Iterable[Path]) -> bool:
    """Returns whether the first scan that can be read is simulated."""
    return next((answer for answer in map(is_simulated, paths) if answer is not None), False)


def check_kind(path: Path, simulated: bool) -> None:
    """Check that a scan is simulated as the others of its store are, or that none is.

    Raises:
      UserError: It is of the other kind.
    """
    found = is_simulated(path)
    if found is not None and found != simulated:
        one, other = (WORD, "real") if found else (f"not {WORD}", WORD)
        raise UserError(f"{path.name}: is {one}, and the store is of {other} scans")


def _open(path: Path, orientation: str) -> Opened:
    if is_label_name(path.name):
        raise UserError("is a segmentation of FreeSurfer, not an image; give orig.mgz or T1.mgz")
    return open_header(path, orientation)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make one line with the file's name of whatever is wrong with a file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None
    except UNREADABLE as error:
        why = why_unreadable(error).replace(str(path), path.name)
        raise UserError(f"{path.name}: cannot be read: {why}") from None


def _read_voxels(opened: Opened, path: Path) -> Mended:
    check_size(opened.image, path, whole=True)
    data = np.asarray(np.asanyarray(opened.image.dataobj).reshape(opened.shape), np.float32)
    usable = mended(data)
    data = usable.data
    distinct = len(np.unique(data[:: max(1, data.shape[0] // 40), ::2, ::2]))
    if distinct < MIN_DISTINCT:
        raise UserError(f"holds {distinct} distinct intensities: a mask or label map, not a T1w")
    return usable


def _compare_forms(opened: Opened) -> tuple[float, bool]:
    image = opened.image
    if not isinstance(image, nib.Nifti1Pair):
        return float("nan"), False
    sform, s_code = image.header.get_sform(coded=True)
    try:
        qform, q_code = image.header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        return float("nan"), False
    if not (q_code and s_code) or sform is None or qform is None:
        return float("nan"), False
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(opened.shape) - 1)
    gap = (qform - sform) @ np.c_[corners, np.ones(8)].T * opened.unit
    mirrored = np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0
    return float(np.linalg.norm(gap[:3], axis=0).max()), bool(mirrored)
