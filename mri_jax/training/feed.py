"""Volumes on their way to the devices: all there from the start, or a stream kept ahead.

Both give the same programs the same rows in the same order; only where a row lies differs.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
from jax import Array

from mri_jax.training.folds import Steps, Wave
from mri_jax.volumes.stream import Reader

T = TypeVar("T")

# A program that streams gets at most this much at a time: one lot computes, one lies ready.
_STREAMED_BYTES = 512 << 20


class Feed(Protocol):
    """Where programs get their volumes from."""

    def chunks(self, steps: Steps, start: int, wave: Wave) -> Iterator[tuple[Array, Steps]]:
        """Programs' worth of training steps from ``start`` on: volumes, and rows into them."""
        ...

    def batches(self, rows: np.ndarray, wave: Wave) -> Iterator[tuple[Array, np.ndarray]]:
        """Batches of evaluation: (fold, batches, size) rows to volumes, and rows into them."""
        ...


class OnDevice:
    """All volumes in the memory of every device."""

    def __init__(self, volumes: np.ndarray):
        self._host = volumes
        self._placed: dict[Wave, Array] = {}

    def _volumes(self, wave: Wave) -> Array:
        if wave not in self._placed:
            self._placed = {wave: wave.copies(self._host)}
        return self._placed[wave]

    def chunks(self, steps: Steps, start: int, wave: Wave) -> Iterator[tuple[Array, Steps]]:
        """See `Feed`."""
        for part in _parts(steps, start, wave.steps_per_program):
            yield self._volumes(wave), part

    def batches(self, rows: np.ndarray, wave: Wave) -> Iterator[tuple[Array, np.ndarray]]:
        """See `Feed`."""
        for i in range(rows.shape[1]):
            yield self._volumes(wave), rows[:, i]


class PerFold(OnDevice):
    """Arrays of its own for each fold: the features of a frozen prefix."""

    def __init__(self, arrays: list[np.ndarray]):
        super().__init__(arrays[0])
        self._arrays = arrays

    def _volumes(self, wave: Wave) -> Array:
        if wave not in self._placed:
            self._placed = {wave: wave.place(self._arrays)}
        return self._placed[wave]


class Streamed:
    """Volumes read in order by threads ahead of the devices, a few at a time."""

    def __init__(self, reader: Reader, threads: int, prefetch: int):
        self._reader, self._threads, self._prefetch = reader, threads, prefetch

    def chunks(self, steps: Steps, start: int, wave: Wave) -> Iterator[tuple[Array, Steps]]:
        """See `Feed`."""
        parts = list(_parts(steps, start, self._steps_at_a_time(steps, wave)))
        wanted = [part.row.reshape(wave.folds, -1) for part in parts]
        for part, volumes in zip(parts, ahead(self._read(wanted, wave)), strict=True):
            place = np.arange(part.row[0].size, dtype=np.int32).reshape(part.row.shape[1:])
            yield volumes, part._replace(row=np.broadcast_to(place, part.row.shape).copy())

    def batches(self, rows: np.ndarray, wave: Wave) -> Iterator[tuple[Array, np.ndarray]]:
        """See `Feed`."""
        place = np.broadcast_to(np.arange(rows.shape[2], dtype=np.int32), rows[:, 0].shape).copy()
        for volumes in ahead(self._read([rows[:, i] for i in range(rows.shape[1])], wave)):
            yield volumes, place

    def _steps_at_a_time(self, steps: Steps, wave: Wave) -> int:
        step = steps.row.shape[2] * int(np.prod(self._reader.shape)) * 4
        return max(1, min(wave.steps_per_program, _STREAMED_BYTES // step))

    def _read(self, wanted: list[np.ndarray], wave: Wave) -> Iterator[Array]:
        """For each (fold, M) of rows, the volumes (fold, M, X, Y, Z, 1) on the devices."""
        order = np.concatenate([rows.ravel() for rows in wanted])
        stream = self._reader.stream(order, self._threads, self._prefetch)
        for rows in wanted:
            volumes = [np.stack([next(stream) for _ in fold]) for fold in rows]
            yield wave.place(volumes)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made by a thread while the present one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _parts(steps: Steps, start: int, size: int) -> Iterator[Steps]:
    for first in range(start, steps.active.shape[1], size):
        yield Steps(*(array[:, first : first + size] for array in steps))
