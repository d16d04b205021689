"""Several processes, on one host or many, that compute one study together by JAX's own runtime.

All of them run the same program over the devices of all. What must not differ between them (which
stages are finished, whether to stop) is decided by the first and told to the others; it alone
writes. In one process nothing here does anything.
"""

import contextlib
import io
import os
import pickle
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.supervision import COORDINATOR, COUNT, INDEX

T = TypeVar("T")
# Seconds without a sign of life after which a process is given up, and with it all others.
_HEARTBEAT = 60
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
        told = {"num_processes": _number(COUNT), "process_id": _number(INDEX)}
    try:
        # SIGTERM is answered by this program (`mri_jax.interruption`).
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            **told, heartbeat_timeout_seconds=_HEARTBEAT, shutdown_timeout_seconds=_HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"the other processes of this study cannot be reached ({line})") from None


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
    """Returns what the first process makes, in all of them; what it raises is raised in all."""
    if not several():
        return make()
    told = b""
    if first():
        try:
            told = pickle.dumps((make(), None))
        except Exception as error:
            told = pickle.dumps((None, error))
    found, raised = pickle.loads(_from_first(told))
    if raised is not None:
        raise raised
    return found


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


def _from_first(data: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(data), np.int32)))
    # One program for all messages of about one size.
    room = 1 << max(10, (size - 1).bit_length())
    padded = np.zeros(room, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes()[:size]
