"""The folder of stages: one folder a fingerprint, locked while built, finished or not.

::

    STAGES/source-0123456789abcdef/stage.json        written last: the stage is finished
                                   network/          the checkpoint (best epoch), by Orbax
                                   training/         the last two states of training, by Orbax
                                   history.json      a row an epoch
    STAGES/evaluate-.../stage.json, logits.csv
    STAGES/baseline-.../stage.json, logits.csv
    STAGES/locks/NAME.lock
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from filelock import FileLock, Timeout

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.study.plan import Stage

_DONE = "stage.json"


class StageFolders:
    """Where stages are kept."""

    def __init__(self, root: epath.PathLike):
        self.root = epath.Path(root)

    def folder(self, stage: Stage) -> epath.Path:
        """The folder of a stage, finished or not."""
        return self.root / f"{stage.kind}-{stage.fingerprint[:16]}"

    def finished(self, stage: Stage) -> bool:
        """Whether its result is there."""
        return (self.folder(stage) / _DONE).exists()

    def note(self, stage: Stage) -> dict[str, Any]:
        """What `finish` wrote about it."""
        return files.read_json(self.folder(stage) / _DONE)

    def finish(self, stage: Stage, note: dict[str, Any]) -> None:
        """Mark it as finished; everything else of it must be written before."""
        files.write_json(
            self.folder(stage) / _DONE,
            {"fingerprint": stage.fingerprint, "kind": stage.kind, **note},
        )

    def write_logits(self, stage: Stage, keys: Sequence[tuple[str, str]], logits: Any) -> None:
        """Write (N, 2) logits for N scans, exactly."""
        frame = pd.DataFrame(keys, columns=["subject_id", "session_id"])
        logits = np.asarray(logits, np.float64)
        frame = frame.assign(logit_0=logits[:, 0], logit_1=logits[:, 1])
        files.write_csv(self.folder(stage) / "logits.csv", frame)

    def logits(self, stage: Stage) -> pd.DataFrame:
        """What `write_logits` wrote, indexed by (subject_id, session_id)."""
        # Text first: Python's own conversion gives back the very floats that were written.
        frame = files.read_csv(self.folder(stage) / "logits.csv", whole=True)
        exact = {name: [float(x) for x in frame[name]] for name in ("logit_0", "logit_1")}
        return frame.assign(**exact).set_index(["subject_id", "session_id"])

    @contextlib.contextmanager
    def locked(self, stages: Sequence[Stage], wait: bool) -> Iterator[list[Stage]]:
        """Lock stages against other processes; yields those that could be locked.

        Args:
          stages: To lock, in this order.
          wait: Wait for each; otherwise leave out those that another process is building.
        """
        with contextlib.ExitStack() as stack:
            held = []
            for stage in stages:
                lock = lock_of(self.root / "locks" / f"{self.folder(stage).name}.lock")
                try:
                    stack.enter_context(lock.acquire(timeout=-1 if wait else 0))
                except Timeout:
                    continue
                held.append(stage)
            yield held


@contextlib.contextmanager
def work_directory_locked(path: epath.Path) -> Iterator[None]:
    """Lock a work directory for one process.

    Raises:
      UserError: Another process is using it.
    """
    lock = lock_of(path / ".lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise UserError(f"{path}: the work directory is in use by another process") from None


def lock_of(path: epath.Path) -> Any:
    """A lock between processes of one machine; none on a bucket, where there are no locks."""
    if files.on_bucket(path):
        return _NoLock()
    with files_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(str(path))


@contextlib.contextmanager
def files_errors(path: epath.Path) -> Iterator[None]:
    """Say in one line that a folder cannot be made."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror})") from None


class _NoLock:
    @contextlib.contextmanager
    def acquire(self, timeout: float) -> Iterator[None]:
        yield
