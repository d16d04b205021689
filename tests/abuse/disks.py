"""Full disks: a small file system of its own for each try, grown afterwards."""

import contextlib
import ctypes
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.abuse import actions
from tests.abuse.actions import Action
from tests.abuse.workers import Case, Outcome, in_child

# What `predict` asks for in advance, by estimate.
PROMISED = 32 << 20
TOLD = ("the disk is full", "MB are free")
_NEW_MOUNTS, _NEW_USERS, _REMOUNT = 0x20000, 0x10000000, 32


def fill(count: int, base: Path, work: Path, draw: random.Random) -> list[Outcome]:
    """So many tries on disks that are too small, shared out over the commands."""
    outcomes = []
    for number, action in enumerate(actions.ACTIONS):
        share = count // len(actions.ACTIONS) + (number < count % len(actions.ACTIONS))
        whole = actions.whole(action, base)
        wanted, given, used = whole.written, whole.given, whole.used
        for turn in range(share):
            room = given + int((used - given) * draw.uniform(0.02, 0.85))
            pages = 0
            if action is actions.PREDICT and turn % 2:  # which asks for room before it begins
                room, pages = used + PROMISED, draw.randint(1, 5)
            place = work / "disk"
            place.mkdir(parents=True)
            said = in_child(
                lambda a=action, w=wanted, p=place, r=room, u=used, n=pages: _tried(
                    a, base, w, p, r, u, n
                ),
                900,
            )
            shutil.rmtree(place)
            state, words = said.result if said.state == "done" else (said.state, said.said)
            name = f"{action.name} on a disk of {room >> 10} KiB"
            name += f", filled after {pages} pages" if pages else ""
            case = Case(name, lambda: None, "full disks")
            outcomes.append(Outcome(case, state, said=words))
    return outcomes


def how() -> str:
    """What stands in for a full disk on this machine."""
    works = in_child(lambda: _mount(Path("/mnt"), actions.PAGE * 64)).result
    return "a tmpfs" if works else "a limit on the size of a file (no tmpfs without more rights)"


def _tried(
    action: Action,
    base: Path,
    wanted: dict[str, str],
    place: Path,
    room: int,
    used: int,
    pages: int,
) -> tuple[str, str]:
    """Fill the disk, free it, run again; the state and what was said.

    With ``pages``, something else fills the disk once so many are written.
    """
    small = _mount(place, room)
    folder = action.prepare(base, place / "w")
    if small:
        if pages:
            threading.Thread(target=_fill_after, args=(folder, pages), daemon=True).start()
        first = in_child(action.command(folder))
        (folder / "ballast").unlink(missing_ok=True)
        size = 4 * used + PROMISED
        _libc().mount(b"tmpfs", os.fsencode(place), b"tmpfs", _REMOUNT, f"size={size}".encode())
    else:
        limit = (room - actions.size(base / action.inputs[0])) // 40
        first = _after_limit(action.command(folder), max(limit, actions.PAGE))
    if first.state == "done":
        if action.written(folder) == wanted:
            return "done", ""
        return "silent", "done on a full disk, with other bytes"
    if first.state != "refused":
        return first.state, first.said
    if not any(words in first.said for words in TOLD):
        return "traceback", f"not told that the disk is full: {first.said}"
    again = in_child(action.command(folder))
    if again.state != "done":
        return "traceback", f"not mended by room: {again.state} {again.said}"
    if (found := action.written(folder)) != wanted:
        differ = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        return "silent", f"other bytes once there was room: {', '.join(differ[:5])}"
    return "refused", first.said


def _fill_after(folder: Path, pages: int) -> None:
    while len(list((folder / "out" / "pages").glob("*.html"))) < pages:
        time.sleep(0.001)
    with contextlib.suppress(OSError), open(folder / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(actions.PAGE << 4 if file.tell() < PROMISED else actions.PAGE))


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
