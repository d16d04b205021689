"""The store: a folder of ``.npy`` volumes and masks with an index; read by memory map.

::

    STORE/store.json    grid, dtype, settings of the pipeline, versions, fingerprint of the settings
    STORE/index.csv     one row a scan: KEY, cohort, volume, mask, digests of both, quality figures
    STORE/volumes/COHORT/SUBJECT_SESSION.npy    (X, Y, Z) float16 or float32, before normalisation
    STORE/masks/COHORT/SUBJECT_SESSION.npy      (X, Y, Z) bool
    STORE/records/COHORT/SUBJECT_SESSION.json   row of the index, checksums of the input
    STORE/descriptions/v1/SHA256.npy            (D,) int8, by which rescans are recognised
    STORE/near_identical/FINGERPRINT.json       rescans found among the scans of a study
"""

import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.filenames import safe_name
from mri_jax.problems import counted, refuse_absent
from mri_jax.progress import track
from mri_jax.typed import build
from mri_jax.volumes import descriptors
from mri_jax.volumes.grids import GRIDS, Grid

FORMAT = 1
DTYPES = ("float16", "float32")
# No grid comes near it.
MAX_VOXELS = 1 << 28
KEY = ["subject_id", "session_id"]
_SHOWN = 10
# NumPy reads a header with `ast.literal_eval`, which on Python 3.11 fails now and then when two
# threads are in it at once (SystemError: AST constructor recursion depth mismatch).
_HEADER = threading.Lock()
INDEX_COLUMNS = [*KEY, "cohort", "volume", "mask", "shape", "spacing", "sha256"]
MASK_DIGEST = "mask_sha256"
"""Column of the index that stores of earlier versions lack."""
EXAMINED = "examined"
"""Column of a scan that an earlier version made: ``yes`` where this one would make it alike."""
_DIGESTS = {"volume": "sha256", "mask": MASK_DIGEST}


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
        """Returns the content of ``store.json``."""
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
        """Returns what `to_json` wrote; ``source`` names the file in errors."""
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
        stated = value.get("fingerprint", info.fingerprint)
        if stated != info.fingerprint:
            raise UserError(
                f"{source}: its fingerprint is not that of its grid, dtype and settings: the file "
                "was altered; preprocess into a new folder"
            )
        return info


class VolumeStore:
    """A store opened for reading.

    What is read is what the index lists: the first time that a file is asked for, its bytes are
    compared with the index, and its dtype, shape and values with what they must be.

    Attributes:
      path: Its folder.
      info: What holds for all volumes.
      index: A frame with `INDEX_COLUMNS` and quality figures, indexed by (subject_id, session_id).

    Example:
      >>> store = VolumeStore("STORE")
      >>> subject, session = store.index.index[0]
      >>> store.volume(subject, session).shape == store.info.grid.shape
      True
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        files.refuse_file(self.path, "folder of the store", "store.json")
        if not (self.path / "store.json").exists():
            raise UserError(f"{self.path}: is not a volume store (no store.json)")
        self.info = StoreInfo.from_json(
            files.read_json(self.path / "store.json", dict), str(self.path / "store.json")
        )
        path = self.path / "index.csv"
        frame = files.read_csv(path, [*INDEX_COLUMNS, MASK_DIGEST], whole=True)
        _check_index(frame, str(path))
        self.index = frame.set_index(KEY, drop=False).sort_index()
        self._checked: set[epath.Path] = set()
        # Bytes of a header and of eight a voxel; what is larger need not be read to be refused.
        self._largest = (1 << 16) + 8 * math.prod(self.info.grid.shape)

    def __len__(self) -> int:
        return len(self.index)

    def volume(self, subject_id: str, session_id: str) -> np.ndarray:
        """Returns (X, Y, Z) memory map, before normalisation, in the store's dtype.

        Raises:
          UserError: The store does not hold the scan, or the file is not what the index lists.
        """
        return self._load(subject_id, session_id, "volume")

    def mask(self, subject_id: str, session_id: str) -> np.ndarray:
        """Returns (X, Y, Z) bool, a memory map where stored so: True inside the brain.

        Raises:
          UserError: As `volume`.
        """
        mask = self._load(subject_id, session_id, "mask")
        return mask if mask.dtype == bool else mask.astype(bool)

    def check(self, keys: Sequence[tuple[str, str]], threads: int = 4) -> None:
        """Read the volumes and masks of some scans; refuse what is not as the index lists.

        Raises:
          UserError: One line for each scan that cannot be used, the first ten in full.
        """

        def problem(key: tuple[str, str]) -> str | None:
            try:
                self.volume(*key)
                self.mask(*key)
            except UserError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(threads) as pool:
            found = track(pool.map(problem, keys), len(keys), "scan", "checking volumes")
            refuse_unusable([line for line in found if line], len(keys))

    def _load(self, subject_id: str, session_id: str, column: str) -> np.ndarray:
        try:
            row = self.index.loc[(subject_id, session_id)]
        except KeyError:
            raise UserError(
                f"{self.path}: holds no scan of subject {subject_id}, session {session_id}"
            ) from None
        path = self.path / row[column]
        if path in self._checked:
            return self._map(path)
        _check_inside(self.path, path)
        files.check_regular(path, self._largest)
        digest = row.get(_DIGESTS[column]) or None
        if digest and files.sha256_of_file(path) != digest:
            raise UserError(
                f"{path}: is not the {column} of subject {subject_id}, session {session_id} that "
                "index.csv lists (its SHA-256 differs): it was altered or swapped; preprocess the "
                "scan again"
            )
        array = self._map(path)
        _check_values(array, column, self.info.dtype, str(path))
        self._checked.add(path)
        return array

    def _map(self, path: epath.Path) -> np.ndarray:
        """Returns a file of the store as (X, Y, Z) memory map."""
        files.check_regular(path)
        try:
            with _HEADER:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        except (ValueError, EOFError):  # NumPy speaks of pickles, which are never wanted here
            raise UserError(f"{path}: is not a whole .npy file; preprocess it again") from None
        if array.shape != self.info.grid.shape:
            raise UserError(
                f"{path}: shape {array.shape} differs from the store's {self.info.grid.shape}"
            )
        return array


def refuse_unusable(problems: Sequence[str], total: int) -> None:
    """Raise one error of many lines, the first ten in full; does nothing without problems."""
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        lines = "\n  ".join(problems[:_SHOWN])
        said = f"{len(problems)} of {counted(total, 'volume')} cannot be used"
        raise UserError(f"{said}:\n  {lines}{more}")


def _check_index(frame: pd.DataFrame, source: str) -> None:
    """Refuse an index that does not say of every scan which files it has."""
    refuse_absent(source, INDEX_COLUMNS, frame)
    for number, row in enumerate(frame[["subject_id", *_DIGESTS, "sha256"]].to_numpy(), start=2):
        subject, *paths, digest = row
        if not subject:
            raise UserError(f"{source}: row {number}: subject_id is empty")
        for path in paths:
            parts = path.split("/")
            if not path or path.startswith(("/", "\\", "~")) or ".." in parts or "://" in path:
                raise UserError(
                    f"{source}: row {number}: {path[:80]!r} is no path inside the store"
                )
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise UserError(f"{source}: row {number}: sha256: {digest[:80]!r} is no SHA-256")
    for names, what in ((KEY, "a scan"), (["volume"], "a volume"), (["mask"], "a mask")):
        twice = frame.duplicated(names)
        if twice.any():
            found = " ".join(frame.loc[twice, names].iloc[0])
            raise UserError(f"{source}: {what} occurs twice: {found}")


def _check_inside(store: epath.Path, path: epath.Path) -> None:
    """Refuse a file that links lead out of its store."""
    if files.on_bucket(store):
        return
    root, real = (os.path.realpath(each) for each in (store, path))
    if os.path.commonpath([root, real]) != root:
        raise UserError(f"{path}: leads out of the store, to {real}")


def _check_values(array: np.ndarray, column: str, dtype: str, source: str) -> None:
    """Refuse a volume that is not of the store's dtype and finite, a mask that is not 0 and 1."""
    if column == "volume":
        if array.dtype != np.dtype(dtype):
            raise UserError(f"{source}: is {array.dtype}, the store's volumes are {dtype}")
        if not np.isfinite(array).all():
            raise UserError(f"{source}: holds NaN or infinity")
    elif array.dtype != bool and (
        array.dtype.kind not in "iu" or ((array != 0) & (array != 1)).any()
    ):
        raise UserError(f"{source}: a mask must be bool, or whole numbers 0 and 1")


def older(index: pd.DataFrame) -> pd.Series:
    """Returns which rows of an index an earlier version made and this one might make otherwise.

    They have no checksum of their mask, which is younger than the rules for spikes and for the
    background of scans without skull.
    """
    known = pd.Series(False, index=index.index)
    for column in (MASK_DIGEST, EXAMINED):
        if column in index:
            known |= index[column].fillna("").astype(str) != ""
    return ~known


class StoreWriter:
    """Adds scans to a store, whole or not at all; safe for several processes on one folder.

    Volumes are written at once; `index` rows are returned to the caller, who collects them and
    calls `write_index` at the end (or after each batch).

    Raises:
      UserError: The folder holds a store with other settings; the spacings, or else the fields that
        differ, are named.
    """

    def __init__(self, path: epath.PathLike, info: StoreInfo):
        self.path, self.info = epath.Path(path), info
        described = self.path / "store.json"
        if described.exists():
            there = StoreInfo.from_json(files.read_json(described, dict), str(described))
            if there.fingerprint != info.fingerprint:
                raise UserError(f"{self.path}: {_unlike(there, info)}; give another --out")
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
            MASK_DIGEST: files.sha256_of_file(self.path / "masks" / name),
            **(quality or {}),
        }

    def write_index(self, rows: pd.DataFrame) -> None:
        """Write ``index.csv``: all rows of the store, sorted by subject and session."""
        files.write_csv(self.path / "index.csv", rows.sort_values(KEY))


def scan_name(cohort: str, subject_id: str, session_id: str) -> str:
    """Returns ``COHORT/SUBJECT_SESSION``: the name of a scan's files in a store, without ending."""
    return f"{safe_name(cohort)}/{safe_name(subject_id)}_{safe_name(session_id)}"


def _unlike(there: StoreInfo, here: StoreInfo) -> str:
    """Returns how the settings of a store differ from others; where the grids do, that alone."""
    grids = [i.grid for i in (there, here)]
    if grids[0].spacing != grids[1].spacing:
        old, new = (f"{grid.spacing:g} mm ({grid.name})" for grid in grids)
        return f"is a store of volumes at {old}, not {new}"
    names = _differences(there.to_json(), here.to_json())
    return f"is a store with other settings: {'; '.join(names)}"


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
