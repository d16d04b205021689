"""Normalised volumes from a store: all at once for the device, or streamed in a given order."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grain
import numpy as np

from mri_jax.errors import UserError
from mri_jax.progress import track
from mri_jax.volumes.normalise import Normalisation, Scaling, rescale, scaling
from mri_jax.volumes.store import VolumeStore

Key = tuple[str, str]


@dataclass(frozen=True)
class Reader:
    """Reads scans of a store, which have a fixed order, and normalises them.

    Attributes:
      store: Where the volumes are.
      keys: (subject_id, session_id) of scan 0, 1, ...; a scan's place here is called its row.
      how: The normalisation.
      known: Scans measured so far, by key; readers of equal normalisation may share it.
    """

    store: VolumeStore
    keys: tuple[Key, ...]
    how: Normalisation
    known: dict[Key, Scaling] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(X, Y, Z, 1) of every volume."""
        return (*self.store.info.grid.shape, 1)

    def read(self, row: int) -> np.ndarray:
        """Returns one scan, normalised, (X, Y, Z, 1) float32.

        Raises:
          UserError: The file cannot be read, has another shape, or its intensities are not usable.
        """
        key = self.keys[row]
        volume, mask = self.store.volume(*key), np.asarray(self.store.mask(*key))
        try:
            if key not in self.known:
                self.known[key] = scaling(volume, mask, self.how)
            return rescale(volume, mask, self.how, self.known[key])[..., None]
        except UserError as error:
            raise UserError(f"{self._name(row)}: {error}") from None

    def problems(self, rows: Sequence[int], threads: int) -> list[str]:
        """Reads scans, and returns why some cannot be used, a line each; empty when all can."""

        def problem(row: int) -> str | None:
            try:
                self.read(row)
            except UserError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(problem, rows)
            return [line for line in track(found, len(rows), "scan", "checking volumes") if line]

    def load(self, threads: int, rows: Sequence[int] | None = None) -> np.ndarray:
        """Returns scans in memory that devices of a CPU can use in place.

        Args:
          threads: Threads that read and normalise.
          rows: Which scans, in the order of the result; None: all.

        Returns:
          (N, X, Y, Z, 1) float32.
        """
        rows = range(len(self)) if rows is None else rows
        volumes = aligned((len(rows), *self.shape), np.float32)

        def fill(place: int) -> None:
            volumes[place] = self.read(rows[place])

        with ThreadPoolExecutor(threads) as pool:
            filled = pool.map(fill, range(len(rows)))
            for _ in track(filled, len(rows), "scan", "reading volumes"):
                pass
        return volumes

    def stream(
        self, order: Sequence[int] | np.ndarray, threads: int, prefetch: int
    ) -> Iterator[np.ndarray]:
        """Yields the scans of ``order`` one by one, read ahead by Grain's threads.

        Args:
          order: Rows to read; the volumes come in this order whatever the threads do.
          threads: Threads that read and normalise.
          prefetch: Volumes read ahead, which bounds the memory.

        Yields:
          (X, Y, Z, 1) float32.
        """
        dataset = grain.MapDataset.source([int(row) for row in order]).map(self.read)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        yield from dataset.to_iter_dataset(options)

    def _name(self, row: int) -> str:
        subject, session = self.keys[row]
        return f"subject {subject}, session {session}"


def aligned(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Returns an empty array that begins at a multiple of 64 bytes.

    JAX takes such an array of the host as it is for any number of CPU devices, and copies others.
    """
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
