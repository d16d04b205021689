"""From a model and scans to one table, and a page a scan."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.errors import DiskFull, UserError
from mri_jax.filenames import joined_name
from mri_jax.locks import Lock, folder_locked, require_space
from mri_jax.prediction import scans
from mri_jax.prediction.forward import NetworksOnDevice
from mri_jax.prediction.model import PortableModel
from mri_jax.prediction.opinion import judge, points_of
from mri_jax.prediction.page import page
from mri_jax.prediction.rows import row_of
from mri_jax.prediction.scans import Failure, NewScan, Wanted
from mri_jax.problems import counted
from mri_jax.progress import Progress

TABLE = "predictions.csv"
UNFINISHED = "unfinished.csv"
FAILED = "failed.csv"
PAGES = "pages"
# Generous estimates of a scan's rows and of its page, which holds pictures.
ROW_BYTES, PAGE_BYTES = 10_000, 1_000_000


@dataclass(frozen=True)
class Options:
    """How to predict.

    Attributes:
      point: The operating point, of `mri_jax.prediction.model.POINTS`.
      pages: Whether to write a page a scan.
      despite_quality: Whether a scan that fails quality control is predicted all the same.
      batch: Volumes at a time on the device.
      threads: That read stored volumes.
      forms: How conv layers are computed, of `mri_jax.models.choice.FORMS`; None: the machine's
        choice.
    """

    point: str
    pages: bool
    despite_quality: bool = False
    batch: int = 8
    threads: int = 2
    forms: str | None = None


@dataclass(frozen=True)
class PredictionSummary:
    """Counts of a call, and which scans were not predicted."""

    predicted: int
    failures: tuple[Failure, ...]
    unlike: int
    known: int

    @property
    def failed(self) -> int:
        """How many scans were not predicted."""
        return len(self.failures)


def predict(
    model: PortableModel, wanted: Wanted, out: epath.PathLike, options: Options
) -> PredictionSummary:
    """Predict every scan; one that cannot be does not stop the rest.

    Writes ``predictions.csv`` (a row a scan and stage), ``failed.csv``, and ``pages/`` where asked
    for. ``predictions.csv`` comes last: without it, the same call begins anew. What an error or an
    interruption left of it is ``unfinished.csv``.

    Args:
      model: The networks and references.
      wanted: The scans.
      out: Folder of the result.
      options: How.

    Raises:
      UserError: The operating point was not fitted, or ``out`` holds predictions, is in use by
        another process, has no room or cannot be written.
      DiskFull: There was room by the estimate, and there is none.
    """
    folder = epath.Path(out)
    points_of(model, options.point)
    with folder_locked(folder, "folder of predictions") as lock:
        if (folder / TABLE).exists():
            raise UserError(f"{folder}: holds predictions already; choose another --out")
        each = ROW_BYTES + PAGE_BYTES * options.pages
        require_space(folder, len(wanted) * each, f"results of {counted(len(wanted), 'scan')}")
        return _predict(model, wanted, folder, options, lock)


def _predict(
    model: PortableModel, wanted: Wanted, folder: epath.Path, options: Options, lock: Lock
) -> PredictionSummary:
    """Does what `predict` does, in a folder that is locked and has room."""
    forwards = [
        NetworksOnDevice(model.spec, [n.variables for n in e.networks], options.forms)
        for e in model.ensembles
    ]
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    unlike = known = 0
    try:
        with Progress(len(wanted), "scan", "predict") as progress:
            for size, part in _batches(model, wanted, options):
                usable = []
                for item in part:
                    refused = item if isinstance(item, Failure) else _refused(item, options)
                    if refused is not None:
                        failures.append(refused)
                    elif isinstance(item, NewScan):
                        usable.append(item)
                for prediction in judge(model, usable, forwards, options.point, size):
                    rows += [row_of(model, prediction, opinion) for opinion in prediction.opinions]
                    unlike += bool(prediction.flags) or any(o.far for o in prediction.opinions)
                    known += prediction.known
                    if options.pages:
                        name = page_name(prediction.scan)
                        files.write_text(folder / PAGES / name, page(model, prediction))
                progress.advance(len(part), failed=len(failures))
    except DiskFull:
        raise
    except BaseException:
        _write_tables(folder, UNFINISHED, rows, failures)
        raise
    lock.require()
    _write_tables(folder, TABLE, rows, failures)
    (folder / UNFINISHED).unlink(missing_ok=True)
    return PredictionSummary(len(rows) // len(model.ensembles), tuple(failures), unlike, known)


def _write_tables(
    folder: epath.Path, name: str, rows: list[dict[str, Any]], failures: list[Failure]
) -> None:
    who = ["subject_id", "session_id", "source"]
    told = [(f.subject_id, f.session_id, f.source, f.reason) for f in failures]
    files.write_csv(folder / FAILED, pd.DataFrame(told, columns=[*who, "reason"]))
    files.write_csv(folder / name, pd.DataFrame(rows, columns=None if rows else who))


def page_name(scan: NewScan) -> str:
    """Returns ``SUBJECT__SESSION.html``; other scans have other names."""
    return joined_name(*scan.key) + ".html"


def _batches(
    model: PortableModel, wanted: Wanted, options: Options
) -> Iterator[tuple[int, list[NewScan | Failure]]]:
    """Raw scans one by one, since each takes seconds to preprocess; stored ones in batches."""
    for entry in wanted.entries:
        yield 1, [scans.raw(model, entry, options.pages)]
    for store in wanted.stores:
        size = min(options.batch, len(store))
        stream = scans.stored(model, store, options.pages, options.threads, 2 * size)
        while part := list(islice(stream, size)):
            yield size, part


def _refused(scan: NewScan, options: Options) -> Failure | None:
    """Returns why a scan unlike any adult head is refused, unless it was asked for."""
    if options.despite_quality:
        return None
    found = scans.beyond_limits(scan)
    if not found:
        return None
    reason = f"fails quality control: {found} (--despite-quality predicts it all the same)"
    return Failure(*scan.key, scan.source, reason)
