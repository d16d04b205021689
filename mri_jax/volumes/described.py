"""Descriptions of a store's volumes, kept under the checksum of each.

They are written with the volumes. A store that has none gets them at first use; where it cannot be
written they are kept elsewhere.
"""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.progress import track
from mri_jax.volumes import descriptors
from mri_jax.volumes.store import VolumeStore

_READERS = 4


def of_scans(
    store: VolumeStore, keys: Sequence[tuple[str, str]], elsewhere: epath.PathLike | None = None
) -> np.ndarray:
    """Descriptions of some scans, those that are not there yet computed and kept.

    Args:
      store: The store.
      keys: N (subject_id, session_id).
      elsewhere: A folder for them where the store cannot be written.

    Returns:
      (N, D) int8 of `mri_jax.volumes.descriptors.describe`; zero for a volume that cannot be read.
    """
    places = [store.path, *([epath.Path(elsewhere)] if elsewhere is not None else [])]
    names = [descriptors.file_name(store.index.at[key, "sha256"]) for key in keys]
    found = [_read(places, name) for name in names]
    missing = [i for i, there in enumerate(found) if there is None]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _READERS)) as pool:
        made = pool.map(lambda i: _made(store, keys[i]), missing)
        if missing:
            made = track(made, len(missing), "volume", "describe")
        for i, described in zip(missing, made, strict=True):
            found[i] = described
            if described.any():
                places = _keep(places, names[i], described)
    return np.stack([each if each is not None else _nothing() for each in found])


def _nothing() -> np.ndarray:
    return np.zeros(descriptors.cells(), np.int8)


def _made(store: VolumeStore, key: tuple[str, str]) -> np.ndarray:
    try:
        return descriptors.describe(store.volume(*key), store.mask(*key))
    except UserError:  # a study refuses such volumes all together, where it reads them
        return _nothing()


def _read(places: Sequence[epath.Path], name: str) -> np.ndarray | None:
    """Returns a kept description; one that is damaged or empty is made anew."""
    for place in places:
        if not (place / name).exists():
            continue
        try:
            data = files.read_bytes(place / name, limit=2 * descriptors.cells())
            described = np.load(io.BytesIO(data), allow_pickle=False)
        except (UserError, OSError, ValueError, EOFError):
            continue
        whole = described.dtype == np.int8 and described.shape == (descriptors.cells(),)
        if whole and described.any():
            return described
    return None


def _keep(places: Sequence[epath.Path], name: str, described: np.ndarray) -> list[epath.Path]:
    """Write a description to the first place that takes it; returns those still worth trying."""
    left = list(places)
    while left:
        try:
            files.write_npy(left[0] / name, described)
            return left
        except UserError:
            left.pop(0)
    return left
