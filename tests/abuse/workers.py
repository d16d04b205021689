"""Cases in forked children: the package is imported once, each case has a process of its own."""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mri_jax.errors import UserError

MEMORY = 4 << 30
_LOOKS_SECONDS = 0.02


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
      name: What it is, for the listing of what failed.
      act: Called in the child; what it returns is compared, so it must be JSON.
      group: The line of the table that counts it.
    """

    name: str
    act: Callable[[], Any]
    group: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
      case: Which.
      state: ``refused`` (a `UserError` or exit code 2), ``done``, ``traceback``, ``hang`` or
        ``memory``.
      result: What ``act`` returned.
      said: The refusal, or the end of the traceback.
      seconds: How long it took.
    """

    case: Case
    state: str
    result: Any = None
    said: str = ""
    seconds: float = 0.0


@dataclass
class _Child:
    case: Case
    pid: int
    answer: Path
    started: float = field(default_factory=time.monotonic)


def run_cases(cases: Iterable[Case], at_once: int, seconds: float) -> Iterator[Outcome]:
    """Run cases in children, some at once; each has so many seconds."""
    waiting, running = iter(cases), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(10**9):
            while len(running) < at_once and (case := next(waiting, None)) is not None:
                running.append(_start(case, Path(folder) / f"{number}-{len(running)}.json"))
                number += 1
            if not running:
                return
            for child in list(running):
                outcome = _look(child, seconds)
                if outcome is not None:
                    running.remove(child)
                    yield outcome
            time.sleep(_LOOKS_SECONDS)


def in_child(act: Callable[[], Any], seconds: float = 600.0) -> Outcome:
    """Run one thing in a child of its own and wait for it."""
    (outcome,) = run_cases([Case("", act)], 1, seconds)
    return outcome


def fork(act: Callable[[], Any], answer: Path) -> int:
    """Start a child that writes its answer to a file; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks; no child inherits a backend
        pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        _answer(act, answer)
    return pid


def _start(case: Case, answer: Path) -> _Child:
    return _Child(case, fork(case.act, answer), answer)


def _answer(act: Callable[[], Any], answer: Path) -> None:
    """Run in the child, which ends here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(os.devnull, "rb") as nothing, open(f"{answer}.log", "wb") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    found: dict[str, Any]
    try:
        found = {"state": "done", "result": act()}
    except UserError as error:
        found = {"state": "refused", "said": str(error)}
    except SystemExit as ended:
        state = {0: "done", None: "done", 2: "refused"}.get(ended.code, "done")
        found = {"state": state, "result": ended.code}
    except BaseException:
        found = {"state": "traceback", "said": traceback.format_exc()}
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    Path(f"{answer}.new").write_text(json.dumps(found, default=str), encoding="utf-8")
    os.replace(f"{answer}.new", answer)
    os._exit(0)


def _look(child: _Child, seconds: float) -> Outcome | None:
    took = time.monotonic() - child.started
    state = ""
    if _resident(child.pid) > MEMORY:
        state = "memory"
    elif took > seconds:
        state = "hang"
    if state:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        return Outcome(child.case, state, seconds=took)
    pid, status, used = os.wait4(child.pid, os.WNOHANG)
    if pid == 0:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # whatever it started itself
    if used.ru_maxrss * 1024 > MEMORY:
        return Outcome(child.case, "memory", seconds=took)
    log = Path(f"{child.answer}.log").read_text(encoding="utf-8", errors="replace")
    if not child.answer.exists():
        return Outcome(child.case, "traceback", said=f"ended with {status}\n{log}", seconds=took)
    found = json.loads(child.answer.read_text(encoding="utf-8"))
    if "Traceback (most recent call last)" in log:
        found |= {"state": "traceback", "said": log[-4000:]}
    elif found["state"] == "refused" and not found.get("said"):
        found["said"] = log[-4000:]
    return Outcome(child.case, found["state"], found.get("result"), found.get("said", ""), took)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0
