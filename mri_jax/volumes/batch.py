"""Many scans to a store: in processes, as a shard of a job array, or on a Dask cluster.

Every finished scan leaves a small record ``STORE/records/COHORT/SUBJECT_SESSION.json`` beside its
volume and mask. The index is made from the records, so a run that was killed loses nothing, and
shards that write to one folder are joined by `merge`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from mri_jax import __version__, files, locks
from mri_jax.cluster.independent import on_workers
from mri_jax.errors import DiskFull, UserError
from mri_jax.progress import Progress
from mri_jax.volumes.inputs import ScanEntry
from mri_jax.volumes.outliers import quality_table
from mri_jax.volumes.pipeline import PreprocessSettings, even, preprocess_scan
from mri_jax.volumes.scan_files import check_regular, companions
from mri_jax.volumes.scans import check_kind, first_is_simulated, read_scan
from mri_jax.volumes.store import (
    EXAMINED,
    INDEX_COLUMNS,
    KEY,
    StoreInfo,
    StoreWriter,
    older,
    scan_name,
)
from mri_jax.volumes.workers import in_processes

FAILED_COLUMNS = [*KEY, "cohort", "image", "reason"]


@dataclass(frozen=True)
class ScanJob:
    """One scan to do; picklable, so that any process or Dask worker can."""

    entry: ScanEntry
    settings: PreprocessSettings
    store: str
    info: StoreInfo


@dataclass(frozen=True)
class Outcome:
    """What became of a task: ``done``, ``skipped`` (done before) or ``failed`` with the reason.

    ``reading`` says what was not as usual in a scan that was done (column ``reading``).
    """

    entry: ScanEntry
    state: str
    reason: str = ""
    reading: str = ""


@dataclass(frozen=True)
class BatchSummary:
    """Counts of a run.

    Attributes:
      done: Scans preprocessed now.
      skipped: Scans done before.
      failed: Scans that failed.
      reasons: Why, with their number, the commonest first.
      readings: What was mended or declared in reading scans, all of a scan together, with the
        number of scans of which it is said.
      surplus: Scans of the store that this run was not asked for, (subject, session).
    """

    done: int
    skipped: int
    failed: int
    reasons: tuple[tuple[str, int], ...] = ()
    readings: tuple[tuple[str, int], ...] = ()
    surplus: tuple[tuple[str, str], ...] = ()


def store_info(settings: PreprocessSettings, simulated: bool = False) -> StoreInfo:
    """Returns ``store.json`` of a store made with these settings from real or simulated scans."""
    packages = ("numpy", "scipy", "nibabel", "SimpleITK")
    return StoreInfo(
        grid=settings.load_template().grid(settings.grid),
        dtype=settings.dtype,
        simulated=simulated,
        settings=settings.to_json(),
        provenance={
            "template": settings.load_template().name,
            "versions": {"mri_jax": __version__, **{name: version(name) for name in packages}},
        },
    )


def run(
    entries: Sequence[ScanEntry],
    settings: PreprocessSettings,
    store: Path,
    workers: int = 1,
    shard: tuple[int, int] | None = None,
    client: Any = None,
) -> BatchSummary:
    """Preprocess scans into a store; one bad scan never stops the rest.

    Args:
      entries: The scans, of which a shard takes every N-th.
      settings: The choices.
      store: Its folder; a store with the same settings is continued.
      workers: Processes on this machine.
      shard: (K, N) with K from 1 to N: this run does a part and leaves the index to `merge`.
      client: A Dask client, whose workers see the same files and replace ``workers``.

    Returns:
      How many were done, skipped (same input and settings before) and failed. The failed stand in
      ``failed.csv`` (``failed_K-of-N.csv``) with their reasons.

    Raises:
      UserError: The store has other settings, or another run is writing to it.
      DiskFull: There is no room; scans that are done stay so.
    """
    if workers < 1:
        raise UserError(f"workers: {workers} must be at least 1")
    info = store_info(
        settings, first_is_simulated(entry.path for entry in entries if not entry.problem)
    )
    with locked(store, shard):
        StoreWriter(store, info)
        part = list(entries)
        if shard is not None:
            part = part[shard[0] - 1 :: shard[1]]
        tasks = [ScanJob(entry, settings, str(store), info) for entry in part]
        outcomes = _follow(_execute(tasks, workers, client), len(tasks))
        failed = [outcome for outcome in outcomes if outcome.state == "failed"]
        _write_failed(store, failed, shard)
        surplus: list[tuple[str, str]] = []
        if shard is None:
            there = write_tables(store, info)[KEY].itertuples(index=False, name=None)
            surplus = sorted(set(there) - {entry.key for entry in entries})
    count = {s: sum(o.state == s for o in outcomes) for s in ("done", "skipped", "failed")}
    # The same rule broken by many files is one reason.
    said = Counter(o.reason.removeprefix(f"{o.entry.path.name}: ") for o in failed)
    readings = Counter(o.reading for o in outcomes if o.reading)
    return BatchSummary(
        **count,
        reasons=tuple(said.most_common()),
        readings=tuple(readings.most_common()),
        surplus=tuple(surplus),
    )


def merge(store: Path) -> BatchSummary:
    """Join the shards of a store: its index, quality table and table of failures.

    Raises:
      UserError: There is no store, a shard is missing or still running, or shards of different
        counts were run.
    """
    described = store / "store.json"
    files.refuse_file(store, "folder of the store", "store.json")
    if not described.exists():
        raise UserError(f"{store}: is not a volume store (no store.json)")
    info = StoreInfo.from_json(files.read_json(described, dict), str(described))
    with locked(store, None):
        tables = sorted(store.glob("failed_*-of-*.csv"))
        found = [tuple(map(int, t.stem.removeprefix("failed_").split("-of-"))) for t in tables]
        if not tables:
            raise UserError(f"{store}: no shard (preprocess --shard K/N) was run into it")
        counts = {n for _, n in found}
        if len(counts) > 1:
            raise UserError(f"{store}: holds shards of different counts: {sorted(counts)}")
        missing = sorted(set(range(1, max(counts) + 1)) - {k for k, _ in found})
        if missing:
            raise UserError(f"{store}: shard {missing[0]} of {max(counts)} has not finished")
        rows = len(write_tables(store, info))
        failed = pd.concat([files.read_csv(t) for t in tables])
        files.write_csv(store / "failed.csv", failed.sort_values(KEY))
    return BatchSummary(rows, 0, len(failed))


@contextlib.contextmanager
def locked(store: Path, shard: tuple[int, int] | None) -> Iterator[None]:
    """Hold a store for one run; shards of one array may run side by side.

    A run that is refused leaves neither its lock nor a folder that was made for it.

    Raises:
      UserError: Another run holds it.
    """
    folder = store / ".locks"
    made = locks.to_make(folder)
    with locks.files_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    whole = filelock.FileLock(folder / "run")
    own = whole if shard is None else filelock.FileLock(folder / f"shard-{shard[0]}-of-{shard[1]}")
    with locks.files_errors(folder):
        try:
            own.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(f"{store}: another run is writing to this store") from None
    try:
        # Each run first takes its own lock and then looks at the other kind, so that of a whole
        # run and a shard started together at least one sees the other.
        others = [whole] if shard else map(filelock.FileLock, sorted(folder.glob("shard-*")))
        for other in others:
            try:
                with other.acquire(timeout=5 if shard else 0):
                    pass
            except filelock.Timeout:
                raise UserError(f"{store}: another run is writing to this store") from None
        yield
    except UserError:
        locks.forget([own.lock_file, whole.lock_file], made)
        raise
    finally:
        own.release()


def process(task: ScanJob) -> Outcome:
    """Do one task; an exception becomes a failed outcome with its reason.

    Raises:
      DiskFull: No other scan could be written either.
    """
    entry = task.entry
    try:
        if entry.problem:
            raise UserError(entry.problem)
        check_kind(entry.path, task.info.simulated)
        store = Path(task.store)
        record = store / "records" / f"{scan_name(entry.cohort, *entry.key)}.json"
        checksums = _checksums(entry)
        there = _done(store, record, task.info.fingerprint, checksums)
        if there is not None and _as_now(entry, there, record):
            return Outcome(entry, "skipped")
        result = preprocess_scan(
            entry.path,
            task.settings,
            entry.mask_path,
            entry.in_template_space,
            entry.orientation,
        )
        known = {"scanner": entry.scanner} if entry.scanner else {}
        row = StoreWriter(store, task.info).add(
            *entry.key, entry.cohort, result.volume, result.mask, result.quality | known
        )
        files.write_json(
            record,
            {"fingerprint": task.info.fingerprint, "checksums": checksums, "row": _plain(row)},
        )
        return Outcome(entry, "done", reading=result.quality.get("reading", ""))
    except DiskFull:
        raise
    except UserError as error:
        return Outcome(entry, "failed", str(error))
    except MemoryError:
        return Outcome(entry, "failed", "out of memory")
    except Exception as error:
        # One strange scan must not stop thousands of others; its reason is written, with the type.
        first = (str(error).splitlines() or [""])[0]
        return Outcome(entry, "failed", f"{type(error).__name__}: {first}")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    # JSON has no NaN; an absent figure is an empty cell of the index.
    return {name: None if value != value else value for name, value in row.items()}


def _checksums(entry: ScanEntry) -> dict[str, str]:
    """Returns the digests of a volume's files, and an orientation declared for them."""
    sources = {"input_sha256": entry.path}
    sources |= {f"{p.suffix[1:].lower()}_sha256": p for p in companions(entry.path)}
    if entry.mask_path is not None:
        sources["mask_sha256"] = entry.mask_path
    found = {"declared_orientation": entry.orientation} if entry.orientation else {}
    for name, path in sources.items():
        try:
            check_regular(path)
            found[name] = files.sha256_of_file(path)
        except UserError as error:
            raise UserError(f"{path.name}: {error}") from None
        except OSError as error:
            raise UserError(f"{path.name}: cannot be read ({error.strerror})") from None
    return found


def _done(
    store: Path, record: Path, fingerprint: str, checksums: dict[str, str]
) -> dict[str, Any] | None:
    """Returns the record of a scan that is done; None where it must be made."""
    if not record.exists():
        return None
    try:
        there = _read_record(record)
    except UserError:
        return None  # damaged: the scan is made anew
    done = (
        there["fingerprint"] == fingerprint
        and there["checksums"] == checksums
        and (store / there["row"]["volume"]).exists()
        and (store / there["row"]["mask"]).exists()
    )
    return there if done else None


def _as_now(entry: ScanEntry, there: dict[str, Any], record: Path) -> bool:
    """Returns whether a finished scan would be made alike now.

    Scans of an earlier version are examined once; the answer is kept in their record.
    """
    if not older(pd.DataFrame([there["row"]])).any():
        return True
    try:
        _, changes = even(read_scan(entry.path, entry.orientation))
    except UserError:
        return True  # which would be refused now; what is there stays, and stays unknown
    if changes:
        return False
    files.write_json(record, there | {"row": there["row"] | {EXAMINED: "yes"}})
    return True


def _read_record(path: Path) -> dict[str, Any]:
    """Returns the record of a scan, or a `UserError`."""
    found = files.read_json(path, dict)
    row, checksums = found.get("row"), found.get("checksums")
    texts = row if isinstance(row, dict) else {}
    named = all(isinstance(texts.get(name), str) for name in INDEX_COLUMNS)
    if not (named and isinstance(checksums, dict) and isinstance(found.get("fingerprint"), str)):
        raise UserError(
            f"{path}: is not the record of a scan; delete it to have the scan made anew"
        )
    return found


def _execute(tasks: Sequence[ScanJob], workers: int, client: Any) -> Iterator[Outcome]:
    if client is not None:
        yield from on_workers(process, tasks, client, _lost)
    elif workers == 1:
        yield from map(process, tasks)
    else:
        yield from in_processes(process, tasks, workers, _lost)


def _lost(task: ScanJob, reason: str) -> Outcome:
    return Outcome(task.entry, "failed", reason)


def _follow(outcomes: Iterable[Outcome], total: int) -> list[Outcome]:
    count = {"done": 0, "skipped": 0, "failed": 0}
    result = []
    with Progress(total, "scan", "preprocess") as progress:
        for outcome in outcomes:
            count[outcome.state] += 1
            result.append(outcome)
            progress.advance(1, **count)
    return result


def _write_failed(store: Path, failed: list[Outcome], shard: tuple[int, int] | None) -> None:
    rows = [
        (*o.entry.key, o.entry.cohort, o.entry.path.name, " ".join(o.reason.split()))
        for o in sorted(failed, key=lambda o: (o.entry.key, str(o.entry.path)))
    ]
    name = "failed.csv" if shard is None else f"failed_{shard[0]}-of-{shard[1]}.csv"
    files.write_csv(store / name, pd.DataFrame(rows, columns=FAILED_COLUMNS))


def write_tables(store: Path, info: StoreInfo) -> pd.DataFrame:
    """Write ``index.csv`` and ``quality.csv`` from the records; returns the index."""
    rows = []
    for path in sorted((store / "records").glob("*/*.json")):
        record = _read_record(path)
        if record["fingerprint"] == info.fingerprint:
            rows.append(record["row"] | record["checksums"])
    index = pd.DataFrame(rows, columns=None if rows else INDEX_COLUMNS)
    StoreWriter(store, info).write_index(index)
    files.write_csv(store / "quality.csv", quality_table(index.sort_values(KEY)))
    return index
