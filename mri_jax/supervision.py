"""A parent for a process that is one of several: it says in one line that another one is gone.

JAX ends a process, by SIGABRT, whose peers have ended or cannot be reached, and nothing inside the
process can prevent that or say what it means.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TextIO

from mri_jax.interruption import CODE

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_KEPT = "finished stages and saved states are kept, and the same command on every host goes on"
LINE = f"another process of this study has ended or cannot be reached; {_KEPT}"
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", COUNT)
_CHILD = "MRI_JAX_SUPERVISED"
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl
# What JAX's runtime says on standard error.
_CONNECTED = "[Gloo] Rank "
_ENDING = ("coordination_service_agent.cc", "the JAX distributed service detected fatal errors")


def several(environment: Mapping[str, str]) -> bool:
    """Returns whether the environment says that this process is one of several.

    That is so in a step of ``srun`` or ``mpirun`` with several tasks, on a host of a TPU pod slice,
    and where JAX_COORDINATOR_ADDRESS is set, JAX_NUM_PROCESSES (which is needed then) not being 1.
    """
    if COORDINATOR in environment:
        return environment.get(COUNT) != "1"
    counts = [environment.get(name, "") for name in _COUNTS]
    more = any(text.isdecimal() and int(text) > 1 for text in counts)
    return more or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def supervise(argv: Sequence[str]) -> None:
    """Does the work in a child, where this process is one of several, and ends as the child does.

    Signals that ask to end go to the child, which saves its state. Where this process is killed the
    child is asked to end, too (Linux): nobody would know of it.

    Args:
      argv: The command, without the interpreter.
    """
    if parent := os.environ.get(_CHILD):
        _end_with(int(parent))
        return
    if not several(os.environ) or os.name != "posix":
        return
    child: list[subprocess.Popen[str]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in child:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    environment = {**os.environ, _CHILD: str(os.getpid())}
    process = subprocess.Popen(
        [sys.executable, *argv],
        env=environment,
        process_group=0,  # of its own: Ctrl-C reaches it once, from here
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    child.append(process)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    streams = (process.stdout, sys.stdout), (process.stderr, sys.stderr)
    pumps = [threading.Thread(target=_pass_on, args=pair) for pair in streams]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    code = process.wait()
    if code < 0:  # ended by a signal
        by = signal.Signals(-code)
        # JAX aborts where it misses another process.
        line = LINE if by == signal.SIGABRT else f"this process was ended by {by.name}; {_KEPT}"
        print(line, file=sys.stderr)
        code = CODE
    sys.exit(code)


def _end_with(parent: int) -> None:
    """Has this process asked to end (SIGTERM) when its parent has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGTERM)
        if not os.path.exists(f"/proc/{parent}"):  # it has ended by now
            os.kill(os.getpid(), signal.SIGTERM)


def _pass_on(said: Iterable[str], to: TextIO) -> None:
    for line in of_use(said):
        to.write(line)
        to.flush()


def of_use(lines: Iterable[str]) -> Iterator[str]:
    """Yields what a process says, without how its peers were connected and how JAX ends it."""
    ending = False
    for line in lines:
        ending = ending or any(words in line for words in _ENDING)
        if not (ending or line.startswith(_CONNECTED)):
            yield line
