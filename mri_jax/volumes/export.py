"""A stored volume as NIfTI, for any viewer."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from mri_jax.errors import UserError
from mri_jax.files import write_bytes
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import VolumeStore


def export(store: VolumeStore, subject_id: str, session_id: str, out: Path, kind: str) -> Path:
    """Write one scan of a store as ``.nii`` or ``.nii.gz``, in template space.

    Args:
      store: The store.
      subject_id: The person.
      session_id: The visit; empty when the subject has one scan only.
      out: The file.
      kind: ``volume`` (before normalisation, float32) or ``mask`` (uint8).

    Raises:
      UserError: There is no such scan, the session is needed, or the name is not NIfTI's.
    """
    if not out.name.endswith((".nii", ".nii.gz")):
        raise UserError(f"out: {out.name} must end in .nii or .nii.gz")
    sessions = store.index.loc[store.index["subject_id"] == subject_id, "session_id"].tolist()
    if not sessions:
        raise UserError(f"{store.path}: holds no scan of subject {subject_id}")
    if not session_id:
        if len(sessions) > 1:
            raise UserError(f"session: {subject_id} has {', '.join(sessions)}; name one")
        session_id = sessions[0]
    if kind == "mask":
        data = np.asarray(store.mask(subject_id, session_id), np.uint8)
    else:
        data = np.asarray(store.volume(subject_id, session_id), np.float32)
    packed = nifti_bytes(data, store.info.grid, compress=out.suffix == ".gz")
    write_bytes(out, packed)
    return out


def nifti_bytes(
    data: np.ndarray, grid: Grid, description: str = "", compress: bool = True
) -> bytes:
    """Returns a file of NIfTI in template space; equal content gives equal bytes.

    Args:
      data: (X, Y, Z) on the grid.
      grid: Gives the affine; millimetres.
      description: At most 79 characters, for the header.
      compress: Whether the file is gzipped.
    """
    image = nib.Nifti1Image(data, grid.affine)
    # 4 is NIfTI's code for MNI152 space; both forms say the same, whichever a viewer reads.
    image.set_sform(grid.affine, code=4)
    image.set_qform(grid.affine, code=4)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    # No time of day in the gzip header: the same content gives the same bytes.
    return gzip.compress(image.to_bytes(), mtime=0) if compress else image.to_bytes()
