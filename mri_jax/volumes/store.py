"""The store: a folder of ``.npy`` volumes and masks with an index; read by memory map.

::

    STORE/store.json    grid, dtype, settings of the pipeline, versions, fingerprint of the settings
    STORE/index.csv     one row a scan: KEY, cohort, volume, mask, sha256, quality figures
    STORE/volumes/COHORT/SUBJECT_SESSION.npy    (X, Y, Z) float16 or float32, before normalisation
    STORE/masks/COHORT/SUBJECT_SESSION.npy      (X, Y, Z) bool
    STORE/records/COHORT/SUBJECT_SESSION.json   row of the index, checksums of the input
    STORE/descriptions/v1/SHA256.npy            (D,) int8, by which rescans are recognised
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.files import safe_name
from mri_jax.typed import build
from mri_jax.volumes import descriptors
from mri_jax.volumes.grids import GRIDS, Grid

FORMAT = 1
DTYPES = ("float16", "float32")
# No grid comes near it.
MAX_VOXELS = 1 << 28
KEY = ["subject_id", "session_id"]
# NumPy reads a header with `ast.literal_eval`, which on Python 3.11 fails now and then when two
# threads are in it at once (SystemError: AST constructor recursion depth mismatch).
_HEADER = threading.Lock()
INDEX_COLUMNS = [*KEY, "cohort", "volume", "mask", "shape", "spacing", "sha256"]


@dataclass(frozen=True)
class StoreInfo:
    """What holds for every volume of a store.

    Attributes:
      grid: The voxel grid.
      dtype: ``float16`` or ``float32``.
      simulated: Whether the volumes come from the simulation; every result then says so.
      settings: Pipeline settings (JSON-serialisable), which determine the fingerprint.
      provenance: Versions and the like, for the record; not part of the fingerprint.
    """

    grid: Grid
    dtype: str
    simulated: bool
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of grid, dtype and settings."""
        return files.fingerprint(
            {
                "format": FORMAT,
                "grid": [self.grid.shape, self.grid.spacing, self.grid.origin],
                "dtype": self.dtype,
                "simulated": self.simulated,
                "settings": dict(self.settings),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``store.json``."""
        return {
            "format": FORMAT,
            "grid": {
                "name": self.grid.name,
                "shape": list(self.grid.shape),
                "spacing": self.grid.spacing,
                "origin": list(self.grid.origin),
            },
            "dtype": self.dtype,
            "simulated": self.simulated,
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str) -> "StoreInfo":
        """Inverse of `to_json`; ``source`` names the file in errors."""
        if type(value.get("format")) is not int or value["format"] != FORMAT:
            raise UserError(
                f"{source}: format {value.get('format')!r}; this version reads {FORMAT}"
            )
        known = {name: v for name, v in value.items() if name in cls.__dataclass_fields__}
        info = build(cls, known, source)
        if info.dtype not in DTYPES:
            raise UserError(f"{source}: dtype: {info.dtype!r} is not one of {', '.join(DTYPES)}")
        if min(info.grid.shape) < 1 or math.prod(info.grid.shape) > MAX_VOXELS:
            raise UserError(f"{source}: grid.shape: {info.grid.shape} is no grid of voxels")
        if not 0 < info.grid.spacing < 1000:
            raise UserError(f"{source}: grid.spacing: {info.grid.spacing} mm is no edge of a voxel")
        return info


class VolumeStore:
    """A store opened for reading.

    Attributes:
      path: Its folder.
      info: What holds for all volumes.
      index: A frame with `INDEX_COLUMNS` and quality figures, indexed by (subject_id, session_id).
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        if not (self.path / "store.json").exists():
            raise UserError(f"{self.path}: is not a volume store (no store.json)")
        self.info = StoreInfo.from_json(
            files.read_json(self.path / "store.json", dict), str(self.path / "store.json")
        )
        frame = files.read_csv(self.path / "index.csv", INDEX_COLUMNS, whole=True)
        if frame.duplicated(KEY).any():
            raise UserError(f"{self.path / 'index.csv'}: a scan occurs twice")
        self.index = frame.set_index(KEY, drop=False).sort_index()

    def __len__(self) -> int:
        return len(self.index)

    def volume(self, subject_id: str, session_id: str) -> np.ndarray:
        """(X, Y, Z) memory map, before normalisation, in the store's dtype."""
        return self._load(subject_id, session_id, "volume")

    def mask(self, subject_id: str, session_id: str) -> np.ndarray:
        """(X, Y, Z) bool memory map: True inside the brain."""
        return self._load(subject_id, session_id, "mask")

    def _load(self, subject_id: str, session_id: str, column: str) -> np.ndarray:
        try:
            name = self.index.at[(subject_id, session_id), column]
        except KeyError:
            raise UserError(
                f"{self.path}: holds no scan of subject {subject_id}, session {session_id}"
            ) from None
        path = self.path / name
        files.check_regular(path)
        try:
            with _HEADER:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        except ValueError:  # NumPy speaks of pickles, which are never wanted here
            raise UserError(f"{path}: is not a whole .npy file") from None
        if array.shape != self.info.grid.shape:
            raise UserError(
                f"{path}: shape {array.shape} differs from the store's {self.info.grid.shape}"
            )
        return array


class StoreWriter:
    """Adds scans to a store, whole or not at all; safe for several processes on one folder.

    Volumes are written at once; `index` rows are returned to the caller, who collects them and
    calls `write_index` at the end (or after each batch).

    Raises:
      UserError: The folder holds a store with other settings; the differing fields are named.
    """

    def __init__(self, path: epath.PathLike, info: StoreInfo):
        self.path, self.info = epath.Path(path), info
        described = self.path / "store.json"
        if described.exists():
            there = StoreInfo.from_json(files.read_json(described, dict), str(described))
            if there.fingerprint != info.fingerprint:
                names = _differences(there.to_json(), info.to_json())
                raise UserError(f"{self.path}: is a store with other settings: {'; '.join(names)}")
        else:
            files.write_json(described, info.to_json())

    def add(
        self,
        subject_id: str,
        session_id: str,
        cohort: str,
        volume: np.ndarray,
        mask: np.ndarray,
        quality: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write one volume (X, Y, Z) and its bool mask; returns its row of the index."""
        if volume.shape != self.info.grid.shape or mask.shape != self.info.grid.shape:
            raise UserError(
                f"subject {subject_id}: shape {volume.shape} is not the grid's "
                f"{self.info.grid.shape}"
            )
        name = f"{scan_name(cohort, subject_id, session_id)}.npy"
        stored, mask = np.asarray(volume, self.info.dtype), np.asarray(mask, bool)
        files.write_npy(self.path / "masks" / name, mask)
        try:
            files.write_npy(self.path / "volumes" / name, stored)
        except BaseException:
            if not (self.path / "volumes" / name).exists():
                (self.path / "masks" / name).unlink(missing_ok=True)
            raise
        sha256 = files.sha256_of_file(self.path / "volumes" / name)
        described = descriptors.describe(stored, mask)
        files.write_npy(self.path / descriptors.file_name(sha256), described)
        return {
            "subject_id": subject_id,
            "session_id": session_id,
            "cohort": cohort,
            "volume": f"volumes/{name}",
            "mask": f"masks/{name}",
            "shape": "x".join(map(str, self.info.grid.shape)),
            "spacing": str(self.info.grid.spacing),
            "sha256": sha256,
            **(quality or {}),
        }

    def write_index(self, rows: pd.DataFrame) -> None:
        """Write ``index.csv``: all rows of the store, sorted by subject and session."""
        files.write_csv(self.path / "index.csv", rows.sort_values(KEY))


def scan_name(cohort: str, subject_id: str, session_id: str) -> str:
    """``COHORT/SUBJECT_SESSION``: the name of a scan's files in a store, without ending."""
    return f"{safe_name(cohort)}/{safe_name(subject_id)}_{safe_name(session_id)}"


def _differences(there: Any, here: Any, prefix: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        names = sorted((set(there) | set(here)) - {"provenance", "fingerprint"})
        found = []
        for name in names:
            found += _differences(there.get(name), here.get(name), f"{prefix}{name}.")
        return found
    return [] if there == here else [f"{prefix[:-1]} is {there!r}, not {here!r}"]


__all__ = [
    "FORMAT",
    "GRIDS",
    "KEY",
    "StoreInfo",
    "StoreWriter",
    "VolumeStore",
    "scan_name",
]
