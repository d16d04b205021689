"""Volumes on their way to the devices: all there from the start, or a stream kept ahead.

Everything else names a scan by its row of the catalogue; a feed alone knows where the scan lies in
the volumes that it hands to a program. All feeds give the same programs the same volumes in the
same order.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
from jax import Array

from mri_jax.training.folds import Steps
from mri_jax.training.wave import Wave
from mri_jax.volumes.stream import Reader

T = TypeVar("T")

# A program that streams gets at most this much at a time: one lot computes, one lies ready.
STREAMED_BYTES = 512 << 20


class Places:
    """Where the scans of a catalogue lie along the first axis of an array of volumes.

    Args:
      rows: (N,) the scans' rows of the catalogue, in the order of the array.
    """

    def __init__(self, rows: Sequence[int] | np.ndarray):
        held = np.asarray(rows, int)
        self._places = np.full(held.max(initial=-1) + 1, -1, np.int32)
        self._places[held] = np.arange(len(held), dtype=np.int32)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Returns the places of scans, int32 in the shape of ``rows``.

        Raises:
          IndexError: A scan is not among those that are held.
        """
        found = self._places[rows]
        if (found < 0).any():
            raise IndexError("the volumes at hand lack a scan that was asked for")
        return found


class Feed(Protocol):
    """Where programs get their volumes from."""

    @property
    def held(self) -> int:
        """Returns the bytes that stay on each device between programs."""
        ...

    def chunks(self, steps: Steps, start: int, wave: Wave) -> Iterator[tuple[Array, Steps]]:
        """Yields what programs need for the training steps from ``start`` on.

        Yields:
          (fold, M, X, Y, Z, C) volumes, and some steps, whose rows are places in them.
        """
        ...

    def batches(self, rows: np.ndarray, wave: Wave) -> Iterator[tuple[Array, np.ndarray]]:
        """Yields what programs need to evaluate (fold, batches, size) scans, batch by batch.

        Yields:
          (fold, M, X, Y, Z, C) volumes, and (fold, size) places in them.
        """
        ...


class OnDevice:
    """All volumes in the memory of every device.

    Args:
      volumes: (N, X, Y, Z, C).
      rows: (N,) their rows of the catalogue.
    """

    def __init__(self, volumes: np.ndarray, rows: Sequence[int] | np.ndarray):
        self._host = volumes
        self._places = Places(rows)
        self._placed: dict[Wave, Array] = {}

    @property
    def held(self) -> int:
        """See `Feed`."""
        return self._host.nbytes

    def _volumes(self, wave: Wave) -> Array:
        if wave not in self._placed:
            self._placed = {}  # before the next copy is made, so that both need never fit
            self._placed = {wave: wave.copies(self._host)}
        return self._placed[wave]

    def chunks(self, steps: Steps, start: int, wave: Wave) -> Iterator[tuple[Array, Steps]]:
        """See `Feed`."""
        for part in _parts(steps, start, wave.steps_per_program):
            yield self._volumes(wave), part._replace(row=self._places.of(part.row))

    def batches(self, rows: np.ndarray, wave: Wave) -> Iterator[tuple[Array, np.ndarray]]:
        """See `Feed`."""
        for i in range(rows.shape[1]):
            yield self._volumes(wave), self._places.of(rows[:, i])


class PerFold(OnDevice):
    """Arrays of its own for each fold: the features of a frozen prefix.

    Args:
      arrays: (N, X, Y, Z, C) for each fold.
      rows: (N,) the catalogue's rows of the scans, the same for each fold.
    """

    def __init__(self, arrays: list[np.ndarray], rows: Sequence[int] | np.ndarray):
        super().__init__(arrays[0], rows)
        self._arrays = arrays

    def _volumes(self, wave: Wave) -> Array:
        if wave not in self._placed:
            self._placed = {}
            self._placed = {wave: wave.place(self._arrays)}
        return self._placed[wave]


class _InParts(ABC):
    """Volumes that are placed on the devices a few at a time, ahead of their use.

    Args:
      volume: Bytes of one volume on a device.
    """

    held = 0

    def __init__(self, volume: int):
        self._bytes = volume

    def chunks(self, steps: Steps, start: int, wave: Wave) -> Iterator[tuple[Array, Steps]]:
        """See `Feed`."""
        at_a_time = STREAMED_BYTES // (wave.beside * steps.row.shape[2] * self._bytes)
        parts = list(_parts(steps, start, max(1, min(wave.steps_per_program, at_a_time))))
        wanted = [part.row.reshape(wave.folds, -1) for part in parts]
        for part, volumes in zip(parts, ahead(self._read(wanted, wave)), strict=True):
            yield volumes, part._replace(row=_in_order(part.row))

    def batches(self, rows: np.ndarray, wave: Wave) -> Iterator[tuple[Array, np.ndarray]]:
        """See `Feed`."""
        wanted = [rows[:, i] for i in range(rows.shape[1])]
        for batch, volumes in zip(wanted, ahead(self._read(wanted, wave)), strict=True):
            yield volumes, _in_order(batch)

    @abstractmethod
    def _read(self, wanted: list[np.ndarray], wave: Wave) -> Iterator[Array]:
        """Yields (fold, M, X, Y, Z, C) volumes on the devices for each (fold, M) of scans."""


class Streamed(_InParts):
    """Volumes read in order by threads ahead of the devices.

    Args:
      reader: Reader of all scans of the catalogue, in its order.
      threads: Threads that read.
      prefetch: Volumes read ahead.
    """

    def __init__(self, reader: Reader, threads: int, prefetch: int):
        super().__init__(4 * int(np.prod(reader.shape)))
        self._reader, self._threads, self._prefetch = reader, threads, prefetch

    def _read(self, wanted: list[np.ndarray], wave: Wave) -> Iterator[Array]:
        order = np.concatenate([rows.ravel() for rows in wanted])
        stream = self._reader.stream(order, self._threads, self._prefetch)
        for rows in wanted:
            volumes = [np.stack([next(stream) for _ in fold]) for fold in rows]
            yield wave.place(volumes)


class StreamedPerFold(_InParts):
    """Arrays of its own for each fold, in the memory of the host; see `PerFold`."""

    def __init__(self, arrays: list[np.ndarray], rows: Sequence[int] | np.ndarray):
        super().__init__(arrays[0][:1].nbytes)
        self._arrays, self._places = arrays, Places(rows)

    def _read(self, wanted: list[np.ndarray], wave: Wave) -> Iterator[Array]:
        for rows in wanted:
            places = self._places.of(rows)
            pairs = zip(self._arrays, places, strict=True)
            yield wave.place([array[own] for array, own in pairs])


def _in_order(rows: np.ndarray) -> np.ndarray:
    """Returns the places of (fold, ...) scans that were read in their order, fold by fold."""
    return np.stack([Places(fold.ravel()).of(fold) for fold in rows])


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yields the same items; a thread makes the next one while the present one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _parts(steps: Steps, start: int, size: int) -> Iterator[Steps]:
    for first in range(start, steps.active.shape[1], size):
        yield Steps(*(array[:, first : first + size] for array in steps))
