"""The journal of a search: lines of JSON that processes append to one file, whole or not at all.

A process may be killed in the middle of a line. What follows the last line end is never read, and
is cut off under the lock before anything is appended. The locks are those of the operating system,
which a process that ends gives back, however it ends.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from etils import epath
from optuna.storages.journal import BaseJournalBackend

from mri_jax.errors import UserError
from mri_jax.locks import files_errors, lock_of

NAME = "journal.jsonl"


class Journal(BaseJournalBackend):
    """A file of a folder, as Optuna's `JournalStorage` wants it.

    Args:
      folder: The folder, on a file system.
    """

    def __init__(self, folder: epath.Path):
        self._path = Path(folder / NAME)
        self._lock = lock_of(folder / f"{NAME}.lock")
        self._starts = [0]  # where each line that was read begins, and the next one

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yields the lines from a number on, which others may be appending to."""
        if not self._path.exists():
            return
        known = min(log_number_from, len(self._starts) - 1)
        with self._path.open("rb") as file:
            file.seek(self._starts[known])
            content = file.read()
        position = self._starts[known]
        for number, line in enumerate(content.splitlines(keepends=True), start=known):
            if not line.endswith(b"\n"):
                return
            position += len(line)
            if len(self._starts) == number + 1:
                self._starts.append(position)
            if number >= log_number_from:
                yield self._parsed(line, number + 1)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends lines, and waits until they are on the disk."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._lock.acquire(timeout=-1), files_errors(epath.Path(self._path)):
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            with os.fdopen(handle, "r+b") as file:
                _cut(file)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(
                f"{self._path}: line {number}: is not as it was written; move the folder away to "
                "begin anew (finished stages are found all the same)"
            )
        return found


def _cut(file: IO[bytes]) -> None:
    """Cuts a journal after its last line end, and leaves the position there."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
