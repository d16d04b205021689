"""The volumes of a study on their way to the devices: normalised, held or streamed."""

from dataclasses import dataclass, field, replace

import numpy as np
from etils import epath

from mri_jax import files, sealed
from mri_jax.planning.catalogue import Catalogue, Examples, Key
from mri_jax.planning.description import describe
from mri_jax.settings.sections import Data
from mri_jax.training.devices import device_budget
from mri_jax.training.feed import Feed, OnDevice, Streamed
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
        """The study's, or the one that matches the mean histogram of training scans."""
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

    def reader(self, rows: tuple[int, ...], reference: Examples | None = None) -> Reader:
        """The scans of some rows, numbered in their order."""
        keys = self.catalogue.keys
        how = self.normalisation(reference)
        known = self.known.setdefault(how, {})
        return Reader(self.store, tuple(keys[row] for row in rows), how, known)


def _histogram(path: epath.Path) -> tuple[float, ...]:
    """A kept histogram; an earlier version kept it as a list, which has no digest."""
    value = files.read_json(path)
    histogram = value if isinstance(value, list) else sealed.read(path).get("histogram")
    return build(tuple[float, ...], histogram, str(path))


def check_volumes(volumes: Volumes, rows: list[int]) -> None:
    """Read every volume of some rows once and refuse the study if any cannot be used.

    Raises:
      UserError: One line for each such volume, the first ten in full.
    """
    rows = sorted(set(rows))
    found = volumes.reader(tuple(rows)).problems(volumes.threads) if rows else []
    refuse_unusable(found, len(rows))


class Feeds:
    """Hands out feeds: one for the whole study where memory allows, else one at a time."""

    def __init__(self, volumes: Volumes, data: Data):
        self._volumes, self._data = volumes, data
        self._kept: tuple[tuple[int, ...], Examples | None, Feed] | None = None

    def of(self, rows: list[int], reference: Examples | None = None) -> tuple[Feed, dict[int, int]]:
        """A feed that holds the rows, and where each lies in it."""
        wanted = tuple(sorted(set(rows)))
        kept = self._kept
        if kept is None or kept[1] != reference or not set(wanted) <= set(kept[0]):
            self._kept = None  # before the next is made, so that both need never fit
            self._kept = kept = (wanted, reference, self._make(wanted, reference))
        return kept[2], {row: place for place, row in enumerate(kept[0])}

    def hold(self, rows: list[int], reference: Examples | None = None) -> None:
        """Keep all of the study's rows on the device from now on, if they fit."""
        if self._data.placement != "stream" and self.bytes(rows) <= device_budget():
            self.of(rows, reference)

    def bytes(self, rows: list[int]) -> int:
        """Bytes of the rows as float32."""
        return len(set(rows)) * int(np.prod(self._volumes.shape)) * 4

    def _make(self, rows: tuple[int, ...], reference: Examples | None) -> Feed:
        reader, data = self._volumes.reader(rows, reference), self._data
        fits = self.bytes(list(rows)) <= device_budget()
        if data.placement == "device" or (data.placement == "auto" and fits):
            return OnDevice(reader.load(data.threads))
        return Streamed(reader, data.threads, data.prefetch)
