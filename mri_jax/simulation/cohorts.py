"""Making cohorts: every scan once, kept when finished, the tables last."""

import concurrent.futures
import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from mri_jax import backend, files
from mri_jax.cluster.independent import on_workers
from mri_jax.cohort.table import write_table
from mri_jax.errors import UserError
from mri_jax.problems import counted
from mri_jax.progress import Progress
from mri_jax.simulation import raw, truth
from mri_jax.simulation.making import part_of, raw_maker, store_of, volume_maker
from mri_jax.simulation.people import SimulatedScan, scans_of
from mri_jax.simulation.settings import SimulationSettings
from mri_jax.simulation.table import table_of
from mri_jax.volumes.grids import GRIDS

_DESCRIPTION = "simulation.json"
# Folders above a raw image: rawdata/COHORT/sub-/ses-/anat.
_DEPTH = 5
# So many that what a worker prepares for a task is little beside them.
_SCANS_OF_A_TASK = 16


@dataclasses.dataclass(frozen=True)
class SimulatedCohorts:
    """Where finished cohorts lie.

    Attributes:
      table_path: ``cohort.csv``, a cohort table.
      store_path: ``store/``, a volume store (``rawdata/``, a BIDS tree, for raw cohorts).
      truth_path: ``truth.csv``; the maps lie in ``truth/`` beside it.
    """

    table_path: epath.Path
    store_path: epath.Path
    truth_path: epath.Path


def simulate(
    settings: SimulationSettings,
    out: epath.PathLike,
    progress: bool = True,
    workers: int | None = None,
    after_scan: Callable[[], None] = lambda: None,
    client: Any = None,
) -> SimulatedCohorts:
    """Make the cohorts, or return at once if the folder already holds them.

    Finished scans are kept, so a killed run goes on where it stopped; equal settings give equal
    bytes whatever the number of workers and runs, where as many processors are at hand.

    Args:
      settings: What to make.
      out: Folder of the result; made if absent.
      progress: Whether to show a bar (or lines) on stderr.
      workers: Scans in work at once; by default the processors at hand, four at most. Memory
        depends on it and on the grid, not on the number of scans.
      after_scan: Called after every scan; what it raises stops the simulation, and finished scans
        are kept.
      client: A Dask client, whose workers see the folder and replace ``workers``.

    Raises:
      UserError: The folder holds something else, cannot be written, or is being written by another
        process; the disk is too small.

    Example:
      >>> from mri_jax.cohort.table import read_table
      >>> from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
      >>> asked = CohortRequest("ADNI1", {"AD": 1, "CN": 1})
      >>> settings = SimulationSettings(grid="demo", seed=0, cohorts=(asked,))
      >>> made = simulate(settings, "simulated", progress=False)
      >>> read_table(made.table_path)["diagnosis"].tolist()
      ['CN', 'AD']
    """
    folder, started = epath.Path(out), time.time()
    result = paths_in(folder, settings.raw)
    claimed = _is_claimed(folder, settings)
    if claimed and result.table_path.exists():
        return result
    scans = scans_of(settings)
    missing = [scan for scan in scans if not part_of(folder, scan).exists()]
    _check_room(folder, settings, len(missing))
    if not claimed:
        description = {"settings": settings.to_json(), "fingerprint": settings.fingerprint}
        files.write_json(folder / _DESCRIPTION, description)
    with _alone(folder):
        truth.write_maps(folder / "truth", GRIDS["paper"] if settings.raw else settings.volume_grid)
        if client is None:
            done = _in_parallel(_maker(settings, folder), missing, workers)
        else:
            done = _on_cluster(settings, folder, missing, client)
        for _ in _counted(done, len(scans), len(missing), progress):
            after_scan()
        _sweep(folder, started)
        records = [files.read_json(part_of(folder, scan)) for scan in scans]
        _write_tables(records, result, settings)
        (folder / "parts").rmtree()
    return result


def paths_in(out: epath.PathLike, raw: bool = False) -> SimulatedCohorts:
    """Returns the files of a folder of simulated cohorts, whether or not they exist."""
    folder = epath.Path(out)
    return SimulatedCohorts(
        table_path=folder / "cohort.csv",
        store_path=folder / ("rawdata" if raw else "store"),
        truth_path=folder / "truth.csv",
    )


def settings_in(out: epath.PathLike) -> SimulationSettings:
    """Returns the settings with which a folder was made.

    Raises:
      UserError: The folder holds no simulated cohorts.
    """
    path = epath.Path(out) / _DESCRIPTION
    if not path.exists():
        raise UserError(f"{out}: holds no simulated cohorts (no {_DESCRIPTION})")
    return SimulationSettings.from_json(files.read_json(path, dict).get("settings"), str(path))


def _is_claimed(folder: epath.Path, settings: SimulationSettings) -> bool:
    """Returns whether the folder was begun with these settings; if not, it must be free."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")
    path = folder / _DESCRIPTION
    if path.exists():
        there = files.read_json(path, dict).get("settings")
        if not isinstance(there, dict):
            raise UserError(f"{path}: states no settings")
        other = [
            f"{k} is {there.get(k)!r}, not {v!r}"
            for k, v in settings.to_json().items()
            if there.get(k) != v
        ]
        if other:
            raise UserError(f"{folder}: holds cohorts of other settings: {'; '.join(other)}")
        return True
    if folder.exists() and any(not path.name.endswith(".tmp") for path in folder.iterdir()):
        raise UserError(f"{folder}: is not empty and holds no simulated cohorts")
    return False


@contextlib.contextmanager
def _alone(folder: epath.Path) -> Iterator[None]:
    """Keep other processes out of a local folder while it is written."""
    if "://" in os.fspath(folder):
        yield
        return
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(parts / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{folder}: another process is making these cohorts") from None


def _sweep(folder: epath.Path, before: float) -> None:
    """Remove what a killed run was writing: temporary files older than this run."""
    for depth in range(_DEPTH + 1):
        for path in folder.glob("*/" * depth + ".*.tmp"):
            if path.stat().mtime < before:
                path.unlink(missing_ok=True)


def _check_room(folder: epath.Path, settings: SimulationSettings, scans: int) -> None:
    """Refuse at the start what a local disk cannot hold."""
    # Two bytes an intensity and one a mask's voxel; a raw head is about 13 MB compressed.
    needed = scans * (14_000_000 if settings.raw else 3 * int(np.prod(settings.volume_grid.shape)))
    above = [path for path in (folder, *folder.parents) if os.path.isdir(path)]
    if above and "://" not in os.fspath(folder):
        free = shutil.disk_usage(above[0]).free
        if needed > free:
            raise UserError(
                f"{folder}: {counted(scans, 'scan needs', 'scans need')} {needed / 1e9:.3g} GB and "
                f"the disk has {free / 1e9:.3g} GB free"
            )


def _in_parallel(
    make: Callable[[SimulatedScan], None], scans: list[SimulatedScan], workers: int | None
) -> Iterator[None]:
    """Make the scans on threads (the numerics release the interpreter); stop at the first error."""
    count = workers if workers is not None else min(os.cpu_count() or 1, 4)
    # BLAS in each of them would wake threads of its own, which wait longer than they save.
    with threadpool_limits(1, "blas"), concurrent.futures.ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(make, scan) for scan in scans]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _maker(settings: SimulationSettings, folder: epath.Path) -> Callable[[SimulatedScan], None]:
    return raw_maker(settings, folder) if settings.raw else volume_maker(settings, folder)


@dataclasses.dataclass(frozen=True)
class _Part:
    settings: SimulationSettings
    folder: str
    scans: tuple[SimulatedScan, ...]


def _on_cluster(
    settings: SimulationSettings, folder: epath.Path, scans: list[SimulatedScan], client: Any
) -> Iterator[None]:
    parts = [
        _Part(settings, os.fspath(folder), tuple(scans[i : i + _SCANS_OF_A_TASK]))
        for i in range(0, len(scans), _SCANS_OF_A_TASK)
    ]
    for count in on_workers(_make_part, parts, client, _lost):
        yield from [None] * count


def _make_part(part: _Part) -> int:
    backend.settle()
    make = _maker(part.settings, epath.Path(part.folder))
    with threadpool_limits(1, "blas"):
        for scan in part.scans:
            make(scan)
    return len(part.scans)


def _lost(part: _Part, reason: str) -> int:
    raise UserError(f"{part.scans[0].subject_id} and those after it were not made ({reason})")


def _counted(done: Iterator[None], total: int, missing: int, show: bool) -> Iterator[None]:
    if not show:
        yield from done
        return
    with Progress(total, "scan", "simulate") as bar:
        if total > missing:
            bar.advance(total - missing)
        for item in done:
            bar.advance()
            yield item


def _write_tables(
    records: list[dict[str, Any]], result: SimulatedCohorts, settings: SimulationSettings
) -> None:
    """Index (or BIDS tables) and truth, and last the cohort table, which says that all is there."""
    table = table_of([record["table"] for record in records])
    if settings.raw:
        for cohort, rows in table.groupby("cohort"):
            raw.write_description(result.store_path / str(cohort), rows)
    else:
        index = pd.DataFrame([record["index"] for record in records])
        store_of(result.store_path, settings).write_index(index)
    known = pd.DataFrame([record["truth"] for record in records])
    files.write_csv(result.truth_path, known[list(truth.COLUMNS)])
    write_table(result.table_path, table)


__all__ = ["SimulatedCohorts", "paths_in", "settings_in", "simulate"]
