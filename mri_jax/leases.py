"""Leases: locks in object storage, where the operating system has none.

::

    LOCK/000007     JSON: who took it, how often it was renewed, whether it was released

The object with the highest number is the lock, and who created it holds it. Nobody can create one
that is there (create-if-absent, one request), so of several one alone takes the next number. It may
be taken where there is none yet, where the highest is released, and where its holder is silent: who
holds a lease writes its object anew every quarter of `LEASE`, and one that has not changed for
`LEASE` seconds has lost its holder. Each process judges that by its own clock; no two are compared.

A holder that is slower than that may lose its lease and not know. So whatever it writes for others
to find, it writes only after `Lease.require`, which looks.
"""

import contextlib
import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from filelock import Timeout

from mri_jax.errors import UserError

LEASE = 60.0
"""Seconds without a sign of life after which a lease may be taken over."""

# Leases of others as they were last seen, by path, and since when by this process's clock: looks of
# several `Lease` objects add up.
_SEEN: dict[str, tuple[tuple[int, bytes], float]] = {}


class Lease:
    """A lock between processes of any machines that see one bucket.

    Args:
      path: Folder of its objects, in the bucket.
      storage: The bucket's file system, by fsspec, which keeps no listings.
    """

    def __init__(self, path: str, storage: Any):
        self._path, self._storage = path, storage
        self._number, self._content = 0, dict[str, Any]()  # of the object that is held
        self._sure_until, self._lost = 0.0, ""  # when others may take it; why it is lost
        self._writing, self._ended = threading.Lock(), threading.Event()

    def acquire(self, timeout: float = -1) -> "Lease":
        """Take it, to be released at the end of a ``with`` block or by `release`.

        Args:
          timeout: Seconds to wait; 0 to look once, negative for ever.

        Raises:
          filelock.Timeout: Another one holds it.
        """
        begun = time.monotonic()
        while self._taken_or_seen() is not None:
            if 0 <= timeout <= time.monotonic() - begun:
                raise Timeout(self._path)
            time.sleep(LEASE / 20)
        return self

    def claim(self, say: Callable[[str], None]) -> "Lease":
        """As `acquire`, once it is known whether a holder lives; that may take `LEASE` seconds.

        Args:
          say: Where it is said that this is waited for.

        Raises:
          filelock.Timeout: It lives.
        """
        first = seen = self._taken_or_seen()
        if first is not None:
            say(f"{self._path}: {_holder(first[1])}; waiting {LEASE:.0f} s for a sign of life")
        while seen is not None:
            if seen != first:
                raise Timeout(self._path)
            time.sleep(LEASE / 20)
            seen = self._taken_or_seen()
        return self

    def watch(self) -> None:
        """Look at its holder, so that waiting for it, begun later, counts from now."""
        self._look()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def require(self) -> None:
        """Check that it is held still, and be sure of it for most of `LEASE` from now.

        Raises:
          UserError: Another one has taken it over, or may have.
        """
        why = "it could not be renewed in time"
        try:
            self._renew()
        except Exception as error:  # of many kinds, from networks
            why += f" ({str(error).strip() or type(error).__name__})"
        if self._lost or time.monotonic() >= self._sure_until:
            raise UserError(
                f"{self._path}: {self._lost or why}; this process does not finish what it did "
                "under this lease. The same command goes on"
            )

    def release(self) -> None:
        """Give it back; if that fails, it ends by itself."""
        self._ended.set()
        with self._writing, contextlib.suppress(Exception):
            number, self._number = self._number, 0
            if number and not self._lost and self._highest()[0] == number:
                self._write(number, released=True)
                for lower in self._numbers():
                    if lower < number:
                        self._storage.rm_file(self._place(lower))

    def _taken_or_seen(self) -> tuple[int, bytes] | None:
        """Takes it if it may be taken, and returns None; else what `_look` saw of its holder."""
        while True:
            seen, free = self._look()
            if not free:
                return seen
            if self._create(seen[0] + 1):
                _SEEN.pop(self._path, None)
                self._ended = threading.Event()
                threading.Thread(target=self._keep, args=(self._ended,), daemon=True).start()
                return None

    def _look(self) -> tuple[tuple[int, bytes], bool]:
        """Returns number and content of the highest object, and whether the next may be created."""
        seen = self._highest()
        if not seen[0] or _read(seen[1]).get("released"):
            return seen, True
        before, since = _SEEN.get(self._path, (None, 0.0))
        if seen != before:
            _SEEN[self._path] = seen, time.monotonic()
            return seen, False
        return seen, time.monotonic() - since >= LEASE

    def _create(self, number: int) -> bool:
        """Creates an object, and returns whether the lease is held by it."""
        self._content = {
            "owner": secrets.token_hex(8),
            "host": platform.node(),
            "process": os.getpid(),
            "renewed": 0,
            "released": False,
        }
        data, begun, created = _written(self._content), time.monotonic(), True
        try:
            self._storage.pipe_file(self._place(number), data, mode="create")
        except FileExistsError:
            created = False
        # It may be ours all the same, if an answer was lost and the request repeated. And the
        # number may be an old one, which was removed while this process slept.
        highest = self._highest()
        if highest == (number, data) and time.monotonic() < begun + LEASE:
            self._number, self._sure_until, self._lost = number, begun + LEASE, ""
            return True
        if created and highest[0] > number:
            self._storage.rm_file(self._place(number))
        return False

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(LEASE / 4):
            with contextlib.suppress(Exception):  # who needs the lease looks again
                self._renew()

    def _renew(self) -> None:
        """Writes the object anew, unless that was just done; finds whether it is another's now."""
        with self._writing:
            if not self._number or self._lost:
                return
            begun = time.monotonic()
            highest, found = self._highest()
            if highest != self._number:
                self._lost = f"{_holder(found)} since this one was silent for too long"
            elif begun >= self._sure_until:
                # Others may take it by now, and so may this process, in the same way.
                if not self._create(self._number + 1):
                    self._lost = "it was not renewed in time, and could not be taken anew"
            elif self._sure_until - begun < LEASE * 7 / 8:
                self._content["renewed"] += 1
                self._write(self._number)
                if time.monotonic() < self._sure_until:  # else others may have seen it silent
                    self._sure_until = begun + LEASE

    def _write(self, number: int, released: bool = False) -> None:
        self._content["released"] = released
        self._storage.pipe_file(self._place(number), _written(self._content))

    def _highest(self) -> tuple[int, bytes]:
        """Returns number and content of the object that is the lock; (0, b"") if there is none."""
        while True:
            number = max(self._numbers(), default=0)
            if not number:
                return 0, b""
            with contextlib.suppress(FileNotFoundError):  # a higher one is there, and it is removed
                return number, self._storage.cat_file(self._place(number))

    def _numbers(self) -> list[int]:
        try:
            names = self._storage.ls(self._path, detail=False)
        except FileNotFoundError:
            return []
        last = (name.rstrip("/").rsplit("/", 1)[-1] for name in names)
        return [int(name) for name in last if re.fullmatch("[0-9]{6,12}", name)]

    def _place(self, number: int) -> str:
        return f"{self._path}/{number:06d}"


def _written(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _read(data: bytes) -> dict[str, Any]:
    """Returns what a holder has written; nothing where it is none of ours."""
    with contextlib.suppress(ValueError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {}


def _holder(data: bytes) -> str:
    """Returns who holds a lease, as a clause."""
    found = _read(data)
    return f"process {found.get('process', '?')} on {found.get('host', '?')} holds it"
