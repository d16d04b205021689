"""Checkpoints by Orbax: the only door to it.

Everything is stored as host NumPy arrays, so that a checkpoint written on any number of devices
opens on any other. A checkpoint appears whole or not at all.
"""

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from mri_jax import files, sealed, stage_note
from mri_jax.errors import DiskFull, UserError
from mri_jax.models import CNNSpec, choice
from mri_jax.training import hosts

FORMAT = 1
_WAY = (
    "the folder of a network of the results folder RUN is "
    "mri_jax.runs.results.load(RUN).network('cnn5-w1', 'source', fold=0)"
)
# Of states of a training; 1, without a number, held its arrays by their count alone, 2 did not say
# how conv layers were computed, 3 held the optimizer's state parameter by parameter.
STATE_FORMAT = 4
# What TensorStore says where there is no room, or none within the largest size of a file.
_FULL = ("RESOURCE_EXHAUSTED", "No space left", "File too large")
_ARRAYS, _STATE = "arrays", "state.json"
_STAGE_CHECKPOINT = "network"


class Network(NamedTuple):
    """A network as read from a checkpoint.

    Attributes:
      params: ``{"conv1": {"kernel": ...}, "bn1": {"scale": ..., "bias": ...}, ...}``, NumPy.
      batch_stats: ``{"bn1": {"mean": ..., "var": ...}, ...}``, NumPy.
      spec: The architecture; ``CNN(spec).apply(network.variables, x, train=False)``.
      info: What the writer noted beside it (run, stage, fold, best epoch, ...).
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    spec: CNNSpec
    info: dict[str, Any]

    @property
    def variables(self) -> dict[str, Any]:
        """``{"params": ..., "batch_stats": ...}``, the form that Flax takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def save_network(
    path: epath.PathLike,
    variables: Mapping[str, Any],
    spec: CNNSpec,
    info: Mapping[str, Any],
) -> None:
    """Write parameters, statistics and spec as one checkpoint, replacing an earlier one.

    Where there are several processes all must call it; the first one writes.

    Args:
      path: The checkpoint's folder.
      variables: ``{"params": ..., "batch_stats": ...}``.
      spec: The architecture.
      info: JSON-serialisable notes.
    """
    with _disk_errors_in_one_line(path), _late_reports_untold():
        ocp.save(
            files.absolute(path),
            _to_host(dict(variables)),
            overwrite=True,
            custom_metadata={"format": FORMAT, "spec": spec.to_dict(), "info": dict(info)},
        )


def load_params(checkpoint: epath.PathLike) -> Network:
    """Returns parameters, statistics and spec of a trained network, on any machine.

    Args:
      checkpoint: A checkpoint's folder, or the folder of the stage that holds it (``plan.json`` of
        a results folder lists the stages' folders).

    Returns:
      A `Network` of NumPy arrays.

    Raises:
      UserError: There is no checkpoint, it is of another format, damaged, or not as its stage was
        when it was finished.

    Example:
      The networks of a run, whose folders its plan lists:

      >>> import mri_jax, mri_jax.runs.results
      >>> plan = mri_jax.runs.results.load("runs/finetune_high-smoke").plan
      >>> folders = plan.loc[plan["stage"] == "source", "folder"]
      >>> network = mri_jax.load_params(folders.iloc[0])
      >>> network.params["conv1"]["kernel"].shape
      (3, 3, 3, 1, 4)
      >>> network.info["best_epoch"] in (1, 2, 3, 4)
      True
    """
    path = files.absolute(checkpoint)
    if (path / _STAGE_CHECKPOINT).exists():
        path = path / _STAGE_CHECKPOINT
    if path.name == _STAGE_CHECKPOINT and (path.parent / stage_note.NAME).exists():
        stage_note.check(path.parent, below=f"{_STAGE_CHECKPOINT}/")
    try:
        with _reading():
            metadata = ocp.metadata(path).custom_metadata
    except (FileNotFoundError, ValueError):  # Orbax's InvalidLayoutError is a ValueError
        what = "holds no checkpoint" if path.exists() else "no such folder"
        raise UserError(f"{checkpoint}: {what}; {_WAY}") from None
    except Exception as error:  # TensorStore and Orbax raise many kinds for damaged files
        raise UserError(f"{checkpoint}: cannot be read ({_first_line(error)})") from None
    if not metadata or metadata.get("format") != FORMAT:
        raise UserError(f"{checkpoint}: is a checkpoint of another format than {FORMAT}")
    try:
        with _reading():
            tree = ocp.load(path)
        spec = CNNSpec.from_dict(metadata["spec"])
        return Network(tree["params"], tree["batch_stats"], spec, metadata["info"])
    except Exception as error:
        raise UserError(f"{checkpoint}: cannot be read ({_first_line(error)})") from None


def network_path(stage_folder: epath.PathLike) -> epath.Path:
    """Returns where a stage keeps its finished network."""
    return epath.Path(stage_folder) / _STAGE_CHECKPOINT


class TrainingCheckpoints:
    """The states of one training, the last two kept, so that a killed run can go on.

    A state is a pytree of arrays, PRNG keys as their key data. Each array is saved by its path in
    the tree (``state/params/conv1/kernel``). A note written last lists shapes and dtypes, and
    digests of the files. The structure comes from the caller when loading (`load_last`), so that
    named tuples and optimizer states come back as they were. A training goes on only with the forms
    of its conv layers that it was begun with: others round otherwise.

    ::

        FOLDER/17/arrays/       by Orbax
        FOLDER/17/state.json    written last: the state is whole

    Args:
      folder: Of the states.
      say: Where remarks about states that cannot be used go.
      forms: How conv layers are computed, as `mri_jax.models.chosen.recorded` has it; None: as is
        the machine's choice.
      require: Called before a state is written; raises where the folder is no longer this
        process's.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        say: Callable[[str], None] = print,
        forms: str | None = None,
        require: Callable[[], None] = lambda: None,
    ):
        self.folder = files.absolute(folder)
        self._say, self._require = say, require
        self._forms = choice.name(None) if forms is None else forms
        self._usable: list[int] = []
        with _disk_errors_in_one_line(self.folder):
            if self.folder.exists() and not self.folder.is_dir():
                self.folder.unlink()
            self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: Any) -> None:
        """Write the state as the newest; returns when it is on disk.

        Where there are several processes all must call it, for Orbax waits for them, and the first
        one writes.
        """
        number = hosts.agreed(self._next)
        named = _named(_to_host(state))
        place = self.folder / str(number)
        with _disk_errors_in_one_line(self.folder):
            if hosts.first():
                place.mkdir(parents=True, exist_ok=True)
            with _late_reports_untold():
                ocp.save(place / _ARRAYS, named)
        if not hosts.first():
            return
        arrays = {name: _kind(leaf) for name, leaf in named.items()}
        note = {"format": STATE_FORMAT, "forms": self._forms, "arrays": arrays}
        sealed.write(place / _STATE, note, [_ARRAYS])
        self._usable = [*self._usable, number][-2:]
        self._remove_others()

    def load_last(self, like: Any) -> Any | None:
        """Returns the newest state that is whole and fits ``like``, of NumPy arrays, like it.

        States that are not whole, or do not match by name, shape and dtype, are passed over with a
        line each, and without one where a save was not finished. Where the training was begun with
        other forms, one line says so. Where there are several processes all must call it.

        Returns:
          The state; None where the training has to start anew.
        """
        passed: set[int] = set()
        while (number := hosts.agreed(lambda: self._newest(like, passed))) is not None:
            try:
                found = _load_state(self.folder / str(number), like)
            except UserError as error:
                self._pass_over(error)
                passed.add(number)
                continue
            self._usable = [number]
            return found
        return None

    def _newest(self, like: Any, passed: set[int]) -> int | None:
        """Returns the number of the newest state that is whole and fits, but for those passed."""
        known = len(passed)
        for number in sorted(set(self._numbers()) - passed, reverse=True):
            place = self.folder / str(number)
            if _unfinished(place):
                continue
            try:
                note = _read_note(place)
                if note["forms"] != self._forms:
                    self._say(
                        f"{self.folder}: was begun with {_flag(note['forms'])}, and goes on only "
                        f"with these; with {_flag(self._forms)} this network starts anew"
                    )
                    return None
                _check_state(place, note, like)
                return number
            except UserError as error:
                self._pass_over(error)
                known += 1
        if known:
            self._say(f"{self.folder}: none of its states can be used; this network starts anew")
        return None

    def _pass_over(self, error: UserError) -> None:
        self._say(f"{error}; this saved state of training is passed over")

    def _numbers(self) -> list[int]:
        names = [path.name for path in files.children(self.folder)]
        return [int(name) for name in names if re.fullmatch("[0-9]{1,9}", name)]

    def _next(self) -> int:
        self._require()
        return max(self._numbers(), default=-1) + 1

    def _remove_others(self) -> None:
        """Remove all but the last two states; what cannot be removed does no harm."""
        kept = {str(number) for number in self._usable}
        for path in files.children(self.folder):
            if path.name not in kept:
                with contextlib.suppress(OSError):
                    path.rmtree() if path.is_dir() else path.unlink()


def _flag(forms: str) -> str:
    """Returns how a user asks for some forms: one for all layers by name, others by measuring."""
    return f"measured forms ({forms})" if "," in forms else f"--forms={forms}"


def _unfinished(place: epath.Path) -> bool:
    """Returns whether a folder is what a save leaves that was killed before its end."""
    if not place.is_dir() or (place / _STATE).exists():
        return False
    return {path.name.split(".")[0] for path in place.iterdir()} <= {_ARRAYS, ""}


def _read_note(place: epath.Path) -> dict[str, Any]:
    """Returns what is noted of a state: its arrays, and the forms that it was computed by.

    Raises:
      UserError: It is damaged or of another version.
    """
    if not (place / _STATE).exists():
        raise UserError(f"{place}: is of an earlier version, or lacks its {_STATE}")
    note = sealed.read(place / _STATE)
    whole = isinstance(note.get("arrays"), dict) and isinstance(note.get("forms"), str)
    if note.get("format") != STATE_FORMAT or not whole:
        raise UserError(f"{place}: is of format {note.get('format')!r}, not {STATE_FORMAT}")
    return note


def _check_state(place: epath.Path, note: dict[str, Any], like: Any) -> None:
    """Compares a state with its note, and with the training that wants it.

    Raises:
      UserError: It is damaged or of another training.
    """
    there, here = note["arrays"], {name: _kind(leaf) for name, leaf in _named(like).items()}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"{place}: its {name} is {there.get(name, 'absent')}, this training's is "
                f"{here.get(name, 'absent')}"
            )
    sealed.check(place / _STATE, note)


def _load_state(place: epath.Path, like: Any) -> Any:
    """Returns a state that was checked, in the structure of ``like``.

    Raises:
      UserError: It cannot be read.
    """
    try:
        with _reading():
            named = ocp.load(place / _ARRAYS)
        leaves = [named[name] for name in _named(like)]
    except Exception as error:  # of many kinds, from Orbax and TensorStore
        raise UserError(f"{place}: cannot be read ({_first_line(error)})") from None
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree, in its order, by their paths: ``state/params/conv1/kernel``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _kind(leaf: Any) -> str:
    """Shape and dtype of an array: ``float32 (3, 3, 3, 1, 8)``."""
    return f"{np.asarray(leaf).dtype} {np.shape(leaf)}"


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


@contextlib.contextmanager
def _disk_errors_in_one_line(path: epath.PathLike) -> Iterator[None]:
    """TensorStore tells of a full disk by a ValueError, in many lines."""
    try:
        yield
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        full = isinstance(error, OSError) and files.is_full(error)
        if full or any(words in str(error) for words in _FULL):
            raise DiskFull(f"{path}: the disk is full") from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise UserError(f"{path}: cannot be written ({os.strerror(number)})") from error
        raise


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Has Orbax read without waiting for other processes, and keep late reports to itself.

    It counts what it does, and what processes do together must have one number in all of them: what
    is read before the last save, all must read.
    """
    with contextlib.ExitStack() as stack:
        if hosts.several():
            mine = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"of{mine}"
            )
            stack.enter_context(ocp.Context(multiprocessing_options=alone))
        stack.enter_context(_late_reports_untold())
        yield


@contextlib.contextmanager
def _late_reports_untold() -> Iterator[None]:
    """Keep those reads and writes silent that end after the first one that failed.

    TensorStore's threads report each of them to an event loop. While it runs, asyncio logs those
    that nobody waited for; once it is closed, every later report would print a traceback. They go
    on after the block, and so does the silence.
    """
    told = sys.unraisablehook

    def hook(raised: "sys.UnraisableHookArgs") -> None:
        late = isinstance(raised.exc_value, RuntimeError) and raised.object is None
        if not (late and str(raised.exc_value) == "Event loop is closed"):
            told(raised)

    logging.getLogger("asyncio").addFilter(_is_others)  # of equal filters a logger keeps one
    sys.unraisablehook = hook
    yield
    sys.unraisablehook = told


def _is_others(record: logging.LogRecord) -> bool:
    """Returns whether a record is not of TensorStore's reads and writes that nobody waited for."""
    error = record.exc_info[1] if record.exc_info else None
    unwaited = "exception was never retrieved" in record.getMessage()  # of a task, or of a future
    return not (unwaited and "tensorstore" in str(error))


def _to_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, jax.device_get(tree))
