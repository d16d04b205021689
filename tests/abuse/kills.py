"""SIGKILL at random moments; the same command again must give the same bytes."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.abuse import actions
from tests.abuse.actions import Action
from tests.abuse.workers import Case, Outcome, fork, in_child

IN_A_ROW = 10
PATIENCE_SECONDS = 300


def shares(kills: int) -> list[tuple[str, Action, int]]:
    """How many kills each moment gets; a single one goes to preprocessing."""
    if kills == 1:
        return [("in preprocessing", actions.PREPROCESS, 1)]
    parts = (
        ("in training", actions.STUDY, 0.30),
        ("while saving", actions.STUDY, 0.15),
        ("between stages", actions.STUDY, 0.15),
        ("in preprocessing", actions.PREPROCESS, 0.15),
        ("in the report", actions.REPORT, 0.10),
        ("in prediction", actions.PREDICT, 0.15),
    )
    return [(name, action, max(1, round(kills * share))) for name, action, share in parts]


def kill(
    name: str, action: Action, count: int, base: Path, work: Path, draw: random.Random
) -> list[Outcome]:
    """So many kills at one kind of moment; an outcome each, ``silent`` where bytes differ."""
    undisturbed = actions.whole(action, base)
    wanted, length = undisturbed.written, undisturbed.seconds
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        folder = action.prepare(base, work / f"{len(outcomes)}")
        tried = 0
        for _ in range(3 * IN_A_ROW):
            if tried == min(IN_A_ROW, count - len(outcomes)):
                break
            hit = _killed(name, action, folder, length, draw, work / "answer")
            tried += hit is True
            if hit is None:  # it had finished
                break
        last = in_child(action.command(folder), PATIENCE_SECONDS)
        state, said = last.state, last.said
        found = action.written(folder)
        if action is actions.PREDICT and state == "refused" and found == wanted:
            state = "done"  # killed after its last file
        if state == "done" and found != wanted:
            differ = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
            state, said = "silent", f"other bytes: {', '.join(differ[:5])}"
        elif state == "refused":
            state = "traceback"  # nothing of a killed run may be refused
        case = Case(f"killed {tried} times {name}", lambda: None, f"kills {name}")
        outcomes += [Outcome(case, state, said=said)] * tried
        shutil.rmtree(folder)
    return outcomes[:count]


def _killed(
    name: str, action: Action, folder: Path, length: float, draw: random.Random, answer: Path
) -> bool | None:
    """Whether a start of the command was killed at its moment; None if it ended before."""
    moment = _moment(name, folder, length, draw)
    pid = fork(action.command(folder), answer)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not moment() and time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return None
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def _moment(name: str, folder: Path, length: float, draw: random.Random) -> Callable[[], Any]:
    """Whether the moment to kill has come; asked every millisecond."""
    started, stages = time.monotonic(), folder / "stages"
    if name == "while saving":
        before = set(stages.glob("*/training/*tmp*")) | set(stages.glob("*/*orbax*tmp*"))
        return lambda: (
            (set(stages.glob("*/training/*tmp*")) | set(stages.glob("*/*orbax*tmp*"))) - before
        )
    if name == "between stages":
        done = len(list(stages.glob("*/stage.json")))
        more = draw.randint(1, 3)
        return lambda: len(list(stages.glob("*/stage.json"))) >= done + more
    if name == "in training":
        history = folder / "run" / "metrics.jsonl"
        there = _lines(history)
        more, wait = draw.randint(1, 3), draw.uniform(0, 0.1)
        reached: list[float] = []

        def trained() -> bool:
            if not reached and _lines(history) >= there + more:
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() > reached[0] + wait

        return trained
    wait = draw.uniform(0, length)
    return lambda: time.monotonic() > started + wait


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
