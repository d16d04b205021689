"""The files of one scan: their names, what stands beside them, and whether they are whole."""

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError

from mri_jax import files, trees
from mri_jax.errors import UserError
from mri_jax.filenames import where_folders_end

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".img.gz")
COMPRESSED = (".gz", ".mgz")
# What FreeSurfer writes beside its images: aseg.mgz, aparc.a2009s+aseg.mgz, wm.seg.mgz, ...
_LABELS = re.compile(
    r"(aseg|aparc|wmparc|wm|filled|([lr]h\.)?ribbon)([.+].*)?\.mg[zh]", re.IGNORECASE
)
# What nibabel raises on files that are damaged, or other than their names say.
UNREADABLE = (OSError, EOFError, zlib.error, ValueError, ImageFileError, HeaderDataError, MGHError)
CUT_OFF = "the file is cut off; copy or download it again"
DAMAGED = "the file is damaged; copy or download it again"
ANEW = "convert the DICOM again, or write the file anew with the tool that made it"


def is_scan_name(name: str) -> bool:
    """Returns whether a file name ends like a scan (`SUFFIXES`, in any case) and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def is_label_name(name: str) -> bool:
    """Returns whether a file is named as a FreeSurfer segmentation (aseg.mgz, aparc+aseg.mgz)."""
    return _LABELS.fullmatch(name) is not None


def companions(path: Path) -> tuple[Path, ...]:
    """Returns the other files of a scan: for an .img its .hdr, and its .mat if there is one."""
    if not path.name.lower().endswith((".img", ".img.gz")):
        return ()
    matrix = mat_file(path)
    return (_partner(path, ".hdr"), *((matrix,) if matrix.exists() else ()))


def mat_file(path: Path) -> Path:
    """Returns where the SPM .mat of an .img stands, be it there or not."""
    return _partner(path, ".mat")


def _partner(path: Path, ending: str) -> Path:
    gz = path.suffix if path.suffix.lower() == ".gz" else ""
    stem = path.name.removesuffix(gz)
    stem = stem[: -len(".img")]
    endings = [ending, ending.upper(), *((f"{ending}{gz}",) if gz else ())]
    paths = [path.with_name(stem + end) for end in endings]
    return next((p for p in paths if p.exists()), paths[0])


def check_regular(path: Path) -> None:
    """Refuse what is no file with content, before anything is read of it.

    Raises:
      UserError: It is absent, a link that leads nowhere, a folder, a pipe or a device, or empty.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"cannot be read: it is {trees.ONLY_A_LINK}")
    try:
        size = files.check_regular(path)
    except UserError as error:
        # The callers put the file's name before the rule.
        told = str(error).removeprefix(f"{path}: ")
        hint = "" if path.exists() else where_folders_end(path.name)
        raise UserError(f"cannot be read: {told}" + (f" ({hint})" if hint else "")) from None
    if size == 0:
        raise UserError("the file is empty; copy or download it again")


def check_size(image: Any, path: Path, whole: bool) -> None:
    """Compare the bytes of a file with what its header declares, without holding them.

    Args:
      image: The opened file.
      path: The file of the voxels.
      whole: Whether a compressed file is decompressed for it; otherwise only plain ones are judged.

    Raises:
      UserError: They differ.
    """
    offset = int(image.dataobj.offset)
    if isinstance(image, nib.Nifti1Image) and offset < image.header.single_vox_offset:
        raise UserError(
            f"its vox_offset is {offset}: the voxels of a single file begin at byte "
            f"{image.header.single_vox_offset} or later, so where they begin is unknown; {ANEW}"
        )
    declared = offset + image.get_data_dtype().itemsize * int(
        np.prod([int(n) for n in image.shape], dtype=object)
    )
    if not path.name.lower().endswith(COMPRESSED):
        found = path.stat().st_size
    elif whole:
        found = 0
        with gzip.open(path) as file:
            while found <= declared + 2**20 and (chunk := file.read(2**22)):
                found += len(chunk)
    else:
        return
    told = f"holds {found} bytes where its header declares {declared}"
    if found < declared:
        raise UserError(f"{told}: {CUT_OFF}")
    # MGH files end with optional scanner parameters and tags; NIfTI files end with the voxels.
    if isinstance(image, nib.Nifti1Pair) and found > declared:
        raise UserError(f"{told}: what follows the voxels is unknown; {ANEW}")


def why_unreadable(error: Exception) -> str:
    """Returns why a file cannot be read, in place of a library's words where they do not help."""
    if isinstance(error, EOFError):
        return CUT_OFF
    if isinstance(error, zlib.error | gzip.BadGzipFile):
        return DAMAGED
    return (str(error).splitlines() or [type(error).__name__])[0]
