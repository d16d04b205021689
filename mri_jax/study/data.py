"""The scans of a study: a cohort table joined with a store, checked before anything is trained."""

from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd
from etils import epath

from mri_jax.cohort import flow as flows
from mri_jax.cohort.near_duplicates import refuse_unresolved
from mri_jax.cohort.table import KEY, read_table
from mri_jax.cohort.task import remove_earlier, select
from mri_jax.errors import UserError
from mri_jax.study.settings import Study
from mri_jax.training.feed import Feed, OnDevice, Streamed
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.stream import Reader

_SHOWN = 10


@dataclass(frozen=True)
class Examples:
    """Scans with labels: what a network is shown or asked.

    Attributes:
      rows: Rows of `Catalogue.frame`.
      labels: 0 or 1 each.
    """

    rows: tuple[int, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Catalogue:
    """All scans that a study may use.

    Attributes:
      frame: The cohort table's rows that have a volume, sorted by (subject, session), with the
        column ``sha256`` of the volume.
      reader: Their volumes, in the same order.
      simulated: Whether they are simulated.
      flow: The flow of subjects so far; see `mri_jax.cohort.flow`.
    """

    frame: pd.DataFrame
    reader: Reader
    simulated: bool
    flow: pd.DataFrame

    def task(self, positive: str, negative: str, cohorts: tuple[str, ...]) -> pd.DataFrame:
        """The scans of two diagnoses in some cohorts, with ``label``; the index is the row."""
        frame = self.frame.assign(row=np.arange(len(self.frame)))
        return select(frame, positive, negative, cohorts).set_index("row")

    def examples(self, chosen: pd.DataFrame) -> Examples:
        """Rows of `task` as examples, in the catalogue's order."""
        chosen = chosen.sort_index()
        return Examples(tuple(map(int, chosen.index)), tuple(map(int, chosen["label"])))

    def identity(self, examples: Examples) -> list[list[str | int]]:
        """What determines a result about the examples: ids, image hashes and labels."""
        columns = self.frame[["subject_id", "session_id", "sha256"]].to_numpy()
        pairs = zip(examples.rows, examples.labels, strict=True)
        return [[*columns[row].tolist(), label] for row, label in pairs]

    def triples(self, rows: tuple[int, ...]) -> list[tuple[str, str, str]]:
        """(subject_id, session_id, sha256) of rows, as the leakage guard takes them."""
        columns = self.frame[["subject_id", "session_id", "sha256"]].to_numpy()
        return [tuple(columns[row].tolist()) for row in rows]


def open_catalogue(table: epath.PathLike, store_path: epath.PathLike, study: Study) -> Catalogue:
    """Join a cohort table with a store, for the cohorts of a study.

    Raises:
      UserError: The table or store is absent or malformed, or lacks a cohort or every
        volume.
    """
    frame = read_table(table)
    refuse_unresolved(frame, table)
    store = VolumeStore(store_path)
    absent = [name for name in study.cohorts if not (frame["cohort"] == name).any()]
    if absent:
        found = ", ".join(sorted(set(frame["cohort"])))
        raise UserError(f"{table}: has no scan of cohort {absent[0]!r}; it has {found}")
    frame = frame[frame["cohort"].isin(study.cohorts)]
    listed = frame
    if study.data.simulated or study.data.repeated == "remove":
        frame, _ = remove_earlier(frame, study.cohorts)
    unrepeated = frame
    hashes = store.index["sha256"].reindex(pd.MultiIndex.from_frame(frame[KEY]))
    frame = frame.assign(sha256=hashes.to_numpy())
    frame = frame[frame["sha256"].notna()].sort_values(KEY).reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{store_path}: holds no volume of any scan in {table}")
    keys = tuple(map(tuple, frame[KEY].to_numpy().tolist()))
    reader = Reader(store, keys, study.data.normalisation)
    return Catalogue(frame, reader, store.info.simulated, _flow(listed, unrepeated, frame))


def check_volumes(catalogue: Catalogue, rows: list[int], threads: int) -> None:
    """Read every volume once and refuse the study if any cannot be used.

    Raises:
      UserError: One line for each such volume, the first ten in full.
    """
    reader = catalogue.reader
    chosen = Reader(reader.store, tuple(reader.keys[row] for row in rows), reader.how)
    found = chosen.problems(threads)
    if found:
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines = "\n  ".join(found[:_SHOWN])
        raise UserError(f"{len(found)} of {len(rows)} volumes cannot be used:\n  {lines}{more}")


class Feeds:
    """Hands out feeds: one for the whole study where memory allows, else one at a time."""

    def __init__(self, reader: Reader, placement: str, threads: int, prefetch: int):
        self._reader, self._threads, self._prefetch = reader, threads, prefetch
        self._placement = placement
        self._kept: tuple[tuple[int, ...], Feed] | None = None

    def of(self, rows: list[int]) -> tuple[Feed, dict[int, int]]:
        """A feed that holds the rows, and where each lies in it."""
        wanted = tuple(sorted(set(rows)))
        if self._kept is None or not set(wanted) <= set(self._kept[0]):
            self._kept = None
            self._kept = self._make(wanted)
        kept, feed = self._kept
        return feed, {row: place for place, row in enumerate(kept)}

    def hold(self, rows: list[int]) -> None:
        """Keep all of the study's rows on the device from now on, if they fit."""
        if self._placement != "stream" and self.bytes(rows) <= device_budget():
            self.of(rows)

    def bytes(self, rows: list[int]) -> int:
        """Bytes of the rows as float32."""
        return len(set(rows)) * int(np.prod(self._reader.shape)) * 4

    def _make(self, rows: tuple[int, ...]) -> tuple[tuple[int, ...], Feed]:
        reader = Reader(
            self._reader.store, tuple(self._reader.keys[row] for row in rows), self._reader.how
        )
        fits = self.bytes(list(rows)) <= device_budget()
        if self._placement == "device" or (self._placement == "auto" and fits):
            return rows, OnDevice(reader.load(self._threads))
        return rows, Streamed(reader, self._threads, self._prefetch)


def device_budget() -> int:
    """Bytes of volumes that each device may hold: half its memory, or a share of the host's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats:
        return int(stats["bytes_limit"] * 0.5)
    return int(available_memory() * 0.4 / jax.local_device_count())


def available_memory() -> int:
    """Bytes of memory the host can still give, by Linux's estimate; 4 GiB where unknown."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 4 << 30


def _flow(table: pd.DataFrame, unrepeated: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """The flow of subjects up to the scans that a study may use; see `mri_jax.cohort.flow`."""
    nobody = pd.DataFrame(columns=["cohort", "reason", "group"])
    flow = flows.start(table, nobody)
    if len(unrepeated) < len(table):
        lost = flows.lost_between(table, unrepeated, flows.EARLIER)
        flow = flows.extend(flow, "earlier cohorts", unrepeated, lost)
    lost = flows.lost_between(unrepeated, stored, "no volume in the store")
    return flows.extend(flow, "store", stored, lost)
