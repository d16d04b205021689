"""Several processes, on one host or many, that compute one study together by JAX's own runtime.

All of them run the same program over the devices of all. What must not differ between them (which
stages are finished, whether to stop) is decided by the first and told to the others; it alone
writes. In one process nothing here does anything.
"""

import contextlib
import io
import itertools
import os
import pickle
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from jax._src import distributed
from jax.experimental import multihost_utils

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.supervision import COORDINATOR, COUNT, INDEX

T = TypeVar("T")
# Seconds without a sign of life after which a process is given up, and with it all others.
_HEARTBEAT = 60
_BEGIN = 300  # seconds in which all processes must have started
# Where the number of this process may stand, which needs not be told where JAX finds it itself.
_INDICES = (INDEX, "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
_FOR_EVER = 30 * 24 * 3600 * 1000  # in ms
_COUNTED = "mri_jax/count"
# Calls of `agreed`, which have the same numbers in all processes.
_ASKED = itertools.count()
# What JAX raises where a collective operation finds nobody at the other end.
_GONE = re.compile(
    "gloo|coordination|heartbeat|connection (closed|reset)|peer|barrier", re.IGNORECASE
)


def join() -> None:
    """Find the other processes; JAX must not have been used yet.

    Raises:
      UserError: They are not there within five minutes, or their number is not told.
    """
    told: dict[str, Any] = {}
    if COORDINATOR in os.environ:
        if not re.fullmatch(r"\S+:\d+", os.environ[COORDINATOR]):
            raise UserError(
                f"{COORDINATOR}: {os.environ[COORDINATOR]!r} must be HOST:PORT of the first process"
            )
        told = {"num_processes": _number(COUNT), "process_id": _number(INDEX)}
        if told["process_id"] >= told["num_processes"]:
            raise UserError(
                f"{INDEX}: {told['process_id']} must be from 0 to {told['num_processes'] - 1}, as "
                f"{COUNT} is {told['num_processes']}"
            )
    if next((os.environ[name] for name in _INDICES if name in os.environ), "0") == "0":
        others = f"{told['num_processes'] - 1} other" if told else "other"
        print(f"waiting for the {others} processes of this study, at most {_BEGIN // 60} min")
    try:
        # SIGTERM is answered by this program (`mri_jax.interruption`).
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            **told,
            initialization_timeout=_BEGIN,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"the other processes of this study cannot be reached ({line})") from None
    if told:
        _require_count(told["num_processes"], told["process_id"])


def _require_count(count: int, index: int) -> None:
    """Refuses a process that was told of more or fewer processes than the first one.

    It asks no device, which would start them before they are configured.

    Args:
      count: How many processes this one was told of.
      index: Which of them it is.
    """
    if index == 0:
        _store().key_value_set_bytes(_COUNTED, str(count).encode())
        return
    expected = int(_store().blocking_key_value_get_bytes(_COUNTED, _FOR_EVER))
    if expected != count:
        raise UserError(f"{COUNT}: is {count} here and {expected} in the first process")


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise UserError(f"{name}: {text!r} must be a whole number, beside {COORDINATOR}")
    return int(text)


def lost(error: Exception) -> bool:
    """Returns whether an error says that another process is gone."""
    return several() and _GONE.search(str(error)) is not None


def several() -> bool:
    """Returns whether there are other processes."""
    return jax.distributed.is_initialized()


def first() -> bool:
    """Returns whether this process decides and writes."""
    return not several() or jax.process_index() == 0


@contextlib.contextmanager
def one_speaks() -> Iterator[None]:
    """Keeps what other processes than the first would print within the block."""
    with contextlib.ExitStack() as stack:
        if not first():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def agreed(make: Callable[[], T]) -> T:
    """Returns what the first process makes, in all of them; what it raises is raised in all.

    The others wait for as long as it takes: a collective operation would give up after half a
    minute. All processes must ask for the same things in the same order.
    """
    if not several():
        return make()
    key = f"mri_jax/agreed/{next(_ASKED)}"
    if not first():
        told = _store().blocking_key_value_get_bytes(key, _FOR_EVER)
        found, raised = pickle.loads(told)
        if raised is not None:
            raise raised
        return found
    try:
        found = make()
    except Exception as error:
        _store().key_value_set_bytes(key, pickle.dumps((None, _portable(error))))
        raise
    _store().key_value_set_bytes(key, pickle.dumps((found, None)))
    return found


def _store() -> Any:
    """Returns the keys and values that JAX's processes share, of which it has no public door."""
    return distributed.global_state.client


def _portable(error: Exception) -> Exception:
    """Returns an error that other processes can raise: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # of an error that is made of other things than it tells of
        return UserError(str(error)) if isinstance(error, UserError) else RuntimeError(repr(error))


def any_of(flag: bool) -> bool:
    """Returns whether a flag is set in any of the processes."""
    if not several():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def require_shared(folder: epath.Path) -> None:
    """Refuse a folder that is not one and the same in all processes.

    Raises:
      UserError: In all of them.
    """
    if not several():
        return

    def written() -> epath.Path:
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / f".shared-{secrets.token_hex(8)}"
        files.write_text(token, "processes of one study look for this file\n")
        return token

    token = agreed(written)
    missing = any_of(not token.exists())
    agreed(lambda: token.unlink(missing_ok=True))
    if missing:
        raise UserError(
            f"{folder}: is not the same folder in all {jax.process_count()} processes; --workdir "
            "and --stages must be on a file system, or in a bucket, that all of them share"
        )
