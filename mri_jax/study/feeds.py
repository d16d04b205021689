"""The volumes of a study on their way to the devices: normalised, held or streamed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from etils import epath

from mri_jax import files, sealed
from mri_jax.planning.catalogue import Catalogue, Examples, Key
from mri_jax.planning.description import describe
from mri_jax.planning.plan import Stage
from mri_jax.settings.sections import Data
from mri_jax.training import hosts
from mri_jax.training.devices import device_budget
from mri_jax.training.feed import STREAMED_BYTES, Feed, OnDevice, Streamed
from mri_jax.training.wave import Wave
from mri_jax.typed import build
from mri_jax.volumes.normalise import Normalisation, Scaling, training_reference
from mri_jax.volumes.store import VolumeStore, refuse_unusable
from mri_jax.volumes.stream import Reader


@dataclass(frozen=True)
class Volumes:
    """Reads the scans of a catalogue, normalised as a stage wants them.

    Attributes:
      store: Where the volumes are.
      catalogue: The scans.
      how: The study's normalisation.
      references: A folder that keeps the mean histograms of training scans.
      threads: Threads that read.
      known: Scans measured so far, by normalisation.
    """

    store: VolumeStore
    catalogue: Catalogue
    how: Normalisation
    references: epath.Path
    threads: int
    known: dict[Normalisation, dict[Key, Scaling]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(X, Y, Z, 1) of every volume."""
        return (*self.catalogue.grid.shape, 1)

    def normalisation(self, reference: Examples | None) -> Normalisation:
        """Returns the study's, or the one that matches the mean histogram of training scans."""
        if reference is None:
            return self.how
        about = [self.catalogue.identity(reference), describe(self.how)]
        path = self.references / f"{files.fingerprint(about)[:16]}.json"
        if not path.exists():
            keys = [self.catalogue.keys[row] for row in reference.rows]
            scans = ((self.store.volume(*k), np.asarray(self.store.mask(*k))) for k in keys)
            histogram = list(training_reference(scans, self.how.clip))
            sealed.write(path, {"histogram": histogram}, ())
        return replace(self.how, reference=_histogram(path))

    def reader(self, reference: Examples | None = None) -> Reader:
        """Returns a reader of all scans, whose rows are those of the catalogue."""
        how = self.normalisation(reference)
        return Reader(self.store, self.catalogue.keys, how, self.known.setdefault(how, {}))


def _histogram(path: epath.Path) -> tuple[float, ...]:
    """Returns a kept histogram; an earlier version kept it as a list, which has no digest."""
    value = files.read_json(path)
    histogram = value if isinstance(value, list) else sealed.read(path).get("histogram")
    return build(tuple[float, ...], histogram, str(path))


def check_volumes(volumes: Volumes, rows: list[int]) -> None:
    """Reads every volume of some rows once and refuses the study if any cannot be used.

    Raises:
      UserError: One line for each such volume, the first ten in full.
    """
    rows = sorted(set(rows))
    found = volumes.reader().problems(rows, volumes.threads) if rows else []
    refuse_unusable(found, len(rows))


def volume_bytes(scans: int, shape: tuple[int, ...]) -> int:
    """Returns the bytes of normalised volumes."""
    return scans * math.prod(shape) * np.dtype(np.float32).itemsize


def expected_bytes(scans: int, shape: tuple[int, ...], data: Data, wave: Wave) -> int:
    """Returns the memory that `Feeds` will take for volumes, held or streamed, in bytes."""
    size, budget = volume_bytes(scans, shape), device_budget(wave)
    held = data.placement == "device" or (data.placement == "auto" and size <= budget)
    return size if held else min(size, 2 * STREAMED_BYTES)


class Feeds:
    """Hands out feeds: one for the whole study where memory allows, else one at a time.

    Args:
      volumes: The scans.
      data: Says whether they are held or streamed.
      wave: The devices.
    """

    def __init__(self, volumes: Volumes, data: Data, wave: Wave):
        self._volumes, self._data, self._wave = volumes, data, wave
        self._kept: tuple[frozenset[int], Examples | None, Feed] | None = None

    def of(self, rows: list[int], reference: Examples | None = None) -> Feed:
        """Returns a feed of scans, which has at least those of ``rows``."""
        wanted, kept = frozenset(rows), self._kept
        if kept is None or kept[1] != reference or not wanted <= kept[0]:
            self._kept = None  # before the next is made, so that both need never fit
            self._kept = kept = (wanted, reference, self._make(sorted(wanted), reference))
        return kept[2]

    def hold(self, stages: Sequence[Stage]) -> None:
        """Keeps the scans of stages on the devices from now on, if they fit.

        Where stages want their scans normalised in several ways, nothing is kept.
        """
        references = {stage.reference for stage in stages}
        if len(references) != 1 or self._data.placement == "stream":
            return
        rows = [row for stage in stages for e in stage.examples for row in e.rows]
        if self._fit(len(set(rows))):
            self.of(rows, references.pop())

    def _fit(self, scans: int) -> bool:
        needed = volume_bytes(scans, self._volumes.shape)
        return hosts.agreed(lambda: needed <= device_budget(self._wave))

    def _make(self, rows: list[int], reference: Examples | None) -> Feed:
        reader, data = self._volumes.reader(reference), self._data
        if data.placement == "device" or (data.placement == "auto" and self._fit(len(rows))):
            return OnDevice(reader.load(data.threads, rows), rows)
        return Streamed(reader, data.threads, data.prefetch)
