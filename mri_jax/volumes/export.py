"""A stored volume as NIfTI, for any viewer."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from mri_jax.errors import UserError
from mri_jax.files import write_bytes
from mri_jax.volumes.store import VolumeStore

KINDS = ("volume", "mask")


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
    image = nib.Nifti1Image(data, store.info.grid.affine)
    # 4 is NIfTI's code for MNI152 space; both forms say the same, whichever a viewer reads.
    image.set_sform(store.info.grid.affine, code=4)
    image.set_qform(store.info.grid.affine, code=4)
    image.header.set_xyzt_units("mm")
    data_bytes = image.to_bytes()
    # No time of day in the gzip header: the same scan gives the same bytes.
    write_bytes(out, gzip.compress(data_bytes, mtime=0) if out.suffix == ".gz" else data_bytes)
    return out
