"""The folder of stages: one folder a fingerprint, locked while built, finished or not.

::

    STAGES/source-0123456789abcdef/stage.json        written last: the stage is finished
                                                     (fingerprint, digests; `mri_jax.stage_note`)
                                   network/          the checkpoint (best epoch), by Orbax
                                   training/         the last two states of training, by Orbax
                                   history.json      a row an epoch
    STAGES/evaluate-.../stage.json, logits.csv
    STAGES/features-.../stage.json, features.npz
    STAGES/baseline-.../stage.json, logits.csv
    STAGES/damaged/NAME-1/                           set aside: not as it was when finished
    STAGES/locks/NAME.lock                           a file; in a bucket a folder (`mri_jax.leases`)
"""

import contextlib
import itertools
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from filelock import Timeout

from mri_jax import files, sealed, stage_note
from mri_jax.arrays import read_npz, write_npz
from mri_jax.errors import UserError
from mri_jax.locks import Lock, lock_of
from mri_jax.planning.plan import Stage, TrainStage
from mri_jax.problems import counted
from mri_jax.training.checkpoints import Network, load_params

_DAMAGED, _FEATURES = "damaged", "features.npz"


class StageFolders:
    """Where stages are kept.

    Each finished stage is compared with its digests once, when it is first asked for. A damaged one
    is as good as absent: it is said, and set aside when it is built again (`locked`).

    Args:
      root: The folder.
      say: Where remarks about damaged stages go.
      made_by: Who finishes stages, as their notes say; by default this machine.
    """

    def __init__(self, root: epath.PathLike, say: Callable[[str], None] = print, made_by: str = ""):
        self.root = epath.Path(root)
        self.say = say
        self._made_by = made_by or platform.node()
        self._whole: dict[str, bool] = {}
        self._held: dict[str, Lock] = {}

    def folder(self, stage: Stage) -> epath.Path:
        """Returns the folder of a stage, finished or not."""
        return self.root / stage_note.folder_name(stage.kind, stage.fingerprint)

    def has_result(self, stage: Stage) -> bool:
        """Returns whether there is a result of it, looked at or not."""
        return (self.folder(stage) / stage_note.NAME).exists()

    def finished(self, stage: Stage) -> bool:
        """Returns whether its result is there, as it was when it was finished.

        Raises:
          UserError: Its folder holds another stage.
        """
        folder = self.folder(stage)
        if folder.name not in self._whole:
            if not self.has_result(stage):
                return False  # not kept: another process may finish it
            problem = _problem(folder)
            if problem:
                self.say(
                    f"{problem}; the stage is built again, and the damaged one is moved to "
                    f"{self.root / _DAMAGED}"
                )
            else:
                stage_note.require(folder, stage.fingerprint)
            self._whole[folder.name] = problem is None
        return self._whole[folder.name]

    def note(self, stage: Stage) -> dict[str, Any]:
        """Returns what `finish` wrote about it."""
        return stage_note.require(self.folder(stage), stage.fingerprint)

    def failure(self, stage: Stage) -> str:
        """Returns why it failed, as `finish` wrote it under ``failed``; empty where it did not."""
        return str(self.note(stage).get("failed", "")) if self.finished(stage) else ""

    def require(self, stage: Stage) -> None:
        """Check, before anything of a stage is written, that its lock (`locked`) is still held.

        Raises:
          UserError: Another process has taken it over, as in a bucket it can.
        """
        if lock := self._held.get(self.folder(stage).name):
            lock.require()

    def finish(self, stage: Stage, note: dict[str, Any]) -> None:
        """Mark it as finished; everything else of it must be written before.

        Raises:
          UserError: As `require`.
        """
        self.require(stage)
        folder = self.folder(stage)
        about = {"fingerprint": stage.fingerprint, "kind": stage.kind, "made_by": self._made_by}
        stage_note.write(folder, {**about, **note})
        self._whole[folder.name] = True

    def add_digests(self, stages: Sequence[Stage]) -> None:
        """Give finished stages of earlier versions, which have none, digests of their files."""
        found = 0
        for stage in stages:
            if not self.finished(stage) or sealed.has_digests(self.note(stage)):
                continue
            with self.locked([stage], wait=False) as held:
                if held:
                    stage_note.write(self.folder(stage), self.note(stage))
                    found += 1
        if found:
            self.say(
                f"{self.root}: {counted(found, 'finished stage')} of an earlier version, without "
                "digests of the files: accepted, with digests from now on"
            )

    def _renew(self, folder: epath.Path) -> None:
        """Set the damaged result of a stage, which is locked now, out of the way.

        Saved states of its training stay: they have digests of their own.
        """
        if self._whole.get(folder.name, True):
            return
        del self._whole[folder.name]
        if not (folder / stage_note.NAME).exists() or _problem(folder) is None:
            return  # another process has built it again, or is about to
        damaged = self.root / _DAMAGED
        damaged.mkdir(parents=True, exist_ok=True)
        names = (f"{folder.name}-{number}" for number in itertools.count(1))
        place = next(damaged / name for name in names if not (damaged / name).exists())
        place.mkdir()
        for child in sorted(folder.iterdir()):
            if child.name != "training":
                files.move(child, place)

    def network(self, stage: TrainStage) -> Network:
        """Returns the network of a finished training that did not fail."""
        return load_params(self.folder(stage))

    def history(self, stage: TrainStage) -> list[dict[str, Any]]:
        """Returns a row an epoch of a finished training."""
        return files.read_json(self.folder(stage) / "history.json", list)

    def write_logits(self, stage: Stage, keys: Sequence[tuple[str, str]], logits: Any) -> None:
        """Writes (N, classes) logits for N scans, exactly; NaN for what is missing."""
        self.require(stage)
        frame = pd.DataFrame(keys, columns=["subject_id", "session_id"])
        columns = np.asarray(logits, np.float64).T
        frame = frame.assign(**{f"logit_{i}": column for i, column in enumerate(columns)})
        files.write_csv(self.folder(stage) / "logits.csv", frame)

    def logits(self, stage: Stage) -> pd.DataFrame:
        """Returns what `write_logits` wrote, indexed by (subject_id, session_id).

        Raises:
          UserError: The file is absent or damaged, in a stage without digests.
        """
        path = self.folder(stage) / "logits.csv"
        frame = files.read_csv(path, whole=True)
        try:
            # Text first: Python's own conversion gives back the very floats that were written. NaN
            # is written as an empty cell.
            names = [n for n in frame.columns if n not in ("subject_id", "session_id")]
            exact = {n: [float(x or "nan") for x in frame[n]] for n in names}
            return frame.assign(**exact).set_index(["subject_id", "session_id"])
        except (KeyError, ValueError) as error:
            raise UserError(f"{path}: is no table of logits ({error})") from None

    def write_features(self, stage: Stage, values: np.ndarray) -> None:
        """Writes (N, F) features of the stage's scans, in their order."""
        self.require(stage)
        write_npz(self.folder(stage) / _FEATURES, {"features": values})

    def features(self, stage: Stage) -> np.ndarray:
        """Returns what `write_features` wrote.

        Raises:
          UserError: The file is absent or damaged.
        """
        return read_npz(self.folder(stage) / _FEATURES)["features"]

    @contextlib.contextmanager
    def locked(self, stages: Sequence[Stage], wait: bool) -> Iterator[list[Stage]]:
        """Lock stages against other processes; yields those that could be locked.

        Damaged results among them are set aside.

        Args:
          stages: To lock, in this order.
          wait: Wait for each; otherwise leave out those that another process is building.
        """
        with contextlib.ExitStack() as stack:
            held = []
            names = [self.folder(stage).name for stage in stages]
            locks = [lock_of(self.root / "locks" / f"{name}.lock") for name in names]
            if wait:  # in turn; those behind the first are watched from now on, too
                for lock in locks[1:]:
                    lock.watch()
            for stage, name, lock in zip(stages, names, locks, strict=True):
                try:
                    stack.enter_context(lock.acquire(timeout=-1 if wait else 0))
                except Timeout:
                    continue
                self._held[name] = lock
                stack.callback(self._held.pop, name)
                self._renew(self.root / name)
                held.append(stage)
            yield held


def _problem(folder: epath.Path) -> str | None:
    """Returns why the result in a folder is not as it was when it was finished; None if it is."""
    try:
        stage_note.check(folder)
    except UserError as error:
        return str(error)
    return None
