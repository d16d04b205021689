"""Full disks: a small file system of its own for each try, grown afterwards."""

import ctypes
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.abuse import actions
from tests.abuse.actions import Action
from tests.abuse.workers import Case, Outcome, in_child

_NEW_MOUNTS, _NEW_USERS, _REMOUNT = 0x20000, 0x10000000, 32


def fill(count: int, base: Path, work: Path, draw: random.Random) -> list[Outcome]:
    """So many tries on disks that are too small, shared out over the commands."""
    outcomes = []
    for number, action in enumerate(actions.ACTIONS):
        share = count // len(actions.ACTIONS) + (number < count % len(actions.ACTIONS))
        whole = actions.whole(action, base)
        wanted, given, used = whole.written, whole.given, whole.used
        for _ in range(share):
            room = given + int((used - given) * draw.uniform(0.02, 0.85))
            place = work / "disk"
            place.mkdir(parents=True)
            said = in_child(
                lambda a=action, w=wanted, p=place, r=room, u=used: _tried(a, base, w, p, r, u), 900
            )
            shutil.rmtree(place)
            state, words = said.result if said.state == "done" else (said.state, said.said)
            case = Case(f"{action.name} on a disk of {room >> 10} KiB", lambda: None, "full disks")
            outcomes.append(Outcome(case, state, said=words))
    return outcomes


def how() -> str:
    """What stands in for a full disk on this machine."""
    works = in_child(lambda: _mount(Path("/mnt"), actions.PAGE * 64)).result
    return "a tmpfs" if works else "a limit on the size of a file (no tmpfs without more rights)"


def _tried(
    action: Action, base: Path, wanted: dict[str, str], place: Path, room: int, used: int
) -> tuple[str, str]:
    """Fill the disk, free it, run again; the state and what was said."""
    if not _mount(place, room):
        limit = (room - actions.size(base / action.inputs[0])) // 40
        first = _after_limit(lambda: action.act(folder), max(limit, actions.PAGE))
        folder = action.prepare(base, place / "w")
    else:
        folder = action.prepare(base, place / "w")
        first = in_child(lambda: action.act(folder))
        _libc().mount(b"tmpfs", os.fsencode(place), b"tmpfs", _REMOUNT, f"size={4 * used}".encode())
    if first.state not in ("refused", "done"):
        return first.state, first.said
    if first.state == "refused" and "disk is full" not in first.said:
        return "traceback", f"not told that the disk is full: {first.said}"
    if action is actions.PREDICT and first.state == "refused":
        (folder / "out" / "predictions.csv").unlink(missing_ok=True)
    again = in_child(lambda: action.act(folder))
    if again.state != "done" or action.written(folder) != wanted:
        return "silent", f"not mended by room: {again.state} {again.said}"
    return ("refused" if first.state == "refused" else "done"), first.said


def _after_limit(act: Callable[[], Any], limit: int) -> Outcome:
    def limited() -> Any:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return act()

    return in_child(limited)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(place: Path, size: int) -> bool:
    """Mount a small file system that this process and its children alone see."""
    libc, user = _libc(), os.getuid()
    flags = _NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USERS
    if libc.unshare(flags) != 0:
        return False
    if user != 0:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
    libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)  # private, with all below
    options = f"size={max(size, 16 * actions.PAGE)}".encode()
    return libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options) == 0
