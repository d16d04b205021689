"""Making cohorts: every scan once, kept when finished, the tables last."""

import concurrent.futures
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.cohort.table import write_table
from mri_jax.errors import UserError
from mri_jax.progress import Progress
from mri_jax.simulation import raw, truth
from mri_jax.simulation.people import Scan, scans_of
from mri_jax.simulation.render import renderer
from mri_jax.simulation.settings import SimulationSettings
from mri_jax.volumes.store import StoreInfo, StoreWriter, safe_name

_DESCRIPTION = "simulation.json"
# Folders above a raw image: rawdata/COHORT/sub-/ses-/anat.
_DEPTH = 5


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
) -> SimulatedCohorts:
    """Make the cohorts, or return at once if the folder already holds them.

    Finished scans are kept, so a killed run goes on where it stopped; equal settings give equal
    bytes whatever the number of workers and runs.

    Args:
      settings: What to make.
      out: Folder of the result; made if absent.
      progress: Whether to show a bar (or lines) on stderr.
      workers: Scans in work at once; by default the processors at hand, four at most. Memory
        depends on it and on the grid, not on the number of scans.

    Raises:
      UserError: The folder holds something else, or cannot be written; the disk is too small.
    """
    folder, started = epath.Path(out), time.time()
    result = paths_in(folder, settings.raw)
    if _claim(folder, settings) and result.table_path.exists():
        return result
    make = _make_raw(settings, folder) if settings.raw else _make_volume(settings, folder)
    scans = scans_of(settings)
    missing = [scan for scan in scans if not _part(folder, scan).exists()]
    _check_room(folder, settings, len(missing))
    if not settings.raw:
        truth.write_maps(folder / "truth", settings.volume_grid)
    for _ in _counted(_in_parallel(make, missing, workers), len(scans), len(missing), progress):
        pass
    _sweep(folder, started)
    _write_tables([files.read_json(_part(folder, scan)) for scan in scans], result, settings)
    (folder / "parts").rmtree()
    return result


def paths_in(out: epath.PathLike, raw: bool = False) -> SimulatedCohorts:
    """The files of a folder of simulated cohorts, whether or not they exist."""
    folder = epath.Path(out)
    return SimulatedCohorts(
        table_path=folder / "cohort.csv",
        store_path=folder / ("rawdata" if raw else "store"),
        truth_path=folder / "truth.csv",
    )


def settings_in(out: epath.PathLike) -> SimulationSettings:
    """The settings with which a folder was made.

    Raises:
      UserError: The folder holds no simulated cohorts.
    """
    path = epath.Path(out) / _DESCRIPTION
    if not path.exists():
        raise UserError(f"{out}: holds no simulated cohorts (no {_DESCRIPTION})")
    return SimulationSettings.from_json(files.read_json(path)["settings"])


def _claim(folder: epath.Path, settings: SimulationSettings) -> bool:
    """Whether the folder was claimed for these settings before; claims it if it is free."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")
    path = folder / _DESCRIPTION
    here = settings.to_json()
    if path.exists():
        there = files.read_json(path)["settings"]
        other = [
            f"{k} is {there.get(k)!r}, not {v!r}" for k, v in here.items() if there.get(k) != v
        ]
        if other:
            raise UserError(f"{folder}: holds cohorts of other settings: {'; '.join(other)}")
        return True
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty and holds no simulated cohorts")
    files.write_json(path, {"settings": here, "fingerprint": settings.fingerprint})
    return False


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
    if os.path.isdir(folder):
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"{folder}: {scans} scans need {needed / 1e9:.1f} GB and the disk has "
                f"{free / 1e9:.1f} GB free"
            )


def _make_volume(settings: SimulationSettings, folder: epath.Path) -> Callable[[Scan], None]:
    """A function that renders, stores and records one scan."""
    store = _store(folder / "store", settings)
    render = renderer(settings.volume_grid)

    def make(scan: Scan) -> None:
        rendered = render(scan)
        index = store.add(
            scan.subject_id, scan.session_id, scan.cohort, rendered.volume, rendered.mask
        )
        record = {
            "index": index,
            "table": truth.table_row(scan, rendered, "", settings.seed),
            "truth": truth.truth_row(scan, rendered),
        }
        files.write_json(_part(folder, scan), record)

    return make


def _store(path: epath.Path, settings: SimulationSettings) -> StoreWriter:
    info = StoreInfo(
        grid=settings.volume_grid,
        dtype="float16",
        simulated=True,
        settings={"simulation": settings.to_json()},
        provenance={name: version(name) for name in ("jax", "numpy", "nilearn")},
    )
    return StoreWriter(path, info)


def _make_raw(settings: SimulationSettings, folder: epath.Path) -> Callable[[Scan], None]:
    """A function that renders a head, writes it into its cohort's BIDS tree and records it."""
    render = raw.head_renderer()

    def make(scan: Scan) -> None:
        head = render(scan)
        path = f"rawdata/{raw.image_path(scan)}"
        raw.write_head(folder / path, head, scan)
        record = {
            "table": truth.table_row(scan, head.rendered, path, settings.seed),
            "truth": truth.truth_row(scan, head.rendered),
        }
        files.write_json(_part(folder, scan), record)

    return make


def _part(folder: epath.Path, scan: Scan) -> epath.Path:
    return folder / "parts" / safe_name(scan.cohort) / f"{safe_name(scan.name)}.json"


def _in_parallel(
    make: Callable[[Scan], None], scans: list[Scan], workers: int | None
) -> Iterator[None]:
    """Make the scans on threads (the numerics release the interpreter); stop at the first error."""
    count = workers if workers is not None else min(os.cpu_count() or 1, 4)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(make, scan) for scan in scans]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


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
    table = pd.DataFrame([record["table"] for record in records])[list(truth.TABLE_COLUMNS)]
    table["shared_with"] = shared_with(table)
    if settings.raw:
        for cohort, rows in table.groupby("cohort"):
            raw.write_description(result.store_path / str(cohort), rows)
    else:
        index = pd.DataFrame([record["index"] for record in records])
        _store(result.store_path, settings).write_index(index)
    known = pd.DataFrame([record["truth"] for record in records])
    files.write_csv(result.truth_path, known[list(truth.COLUMNS)])
    write_table(result.table_path, table)


def shared_with(table: pd.DataFrame) -> list[str]:
    """For every row the other cohorts in which its person occurs, ``+`` between names."""
    cohorts = table.groupby("subject_id")["cohort"].agg(set)
    return [
        "+".join(sorted(cohorts[subject] - {cohort}))
        for subject, cohort in zip(table["subject_id"], table["cohort"], strict=True)
    ]


__all__ = ["SimulatedCohorts", "paths_in", "settings_in", "shared_with", "simulate"]
