"""Folders that one process writes at a time, and room on the disk before anything is computed."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from etils import epath
from filelock import FileLock, Timeout

from mri_jax import files
from mri_jax.errors import DiskFull, UserError
from mri_jax.leases import Lease


class SystemLock(FileLock):
    """A lock between processes of machines that share a file system, which ends with its process.

    It has what a `Lease` has.
    """

    def claim(self, say: Callable[[str], None]) -> "SystemLock":
        """Take it; the system knows whether its holder lives.

        Raises:
          filelock.Timeout: It lives.
        """
        self.acquire(timeout=0)
        return self

    def watch(self) -> None:
        """Nothing is to be seen: who waits for it is told."""

    def require(self) -> None:
        """Nothing takes it from its process."""


Lock: TypeAlias = SystemLock | Lease


@contextlib.contextmanager
def folder_locked(
    path: epath.Path, name: str, say: Callable[[str], None] = print
) -> Iterator[Lock]:
    """Lock a folder, made if absent, for one process.

    What leaves nothing in the folder, as work that is refused, leaves no lock and no new folder; in
    a bucket the released lock stays.

    Args:
      path: The folder.
      name: What to call it in the message.
      say: Where it is said that another process is waited for.

    Yields:
      The lock.

    Raises:
      UserError: Another process is using it, or it cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; the {name} must be a folder")
    made = to_make(path)
    lock = lock_of(path / ".lock")
    with files_errors(path / ".lock"):
        try:
            held = lock.claim(say)
        except Timeout:
            raise UserError(f"{path}: the {name} is in use by another process") from None
    with held:
        try:
            yield held
        finally:
            forget([path / ".lock"], made)


def to_make(folder: epath.PathLike) -> list[epath.Path]:
    """Returns a folder and those above it that are absent, the innermost first; none in buckets."""
    if files.on_bucket(folder):
        return []
    place = epath.Path(folder)
    return [each for each in (place, *place.parents) if not each.exists()]


def forget(locks: Sequence[epath.PathLike], made: Sequence[epath.Path]) -> None:
    """Remove locks of a folder, the first of which is held, and folders made for them.

    Whatever lies beside the locks, and folders that hold anything else, stay.
    """
    places = [epath.Path(lock) for lock in locks]
    if files.on_bucket(places[0]):
        return
    with contextlib.suppress(OSError):
        if set(os.listdir(places[0].parent)) <= {place.name for place in places}:
            for place in places:
                place.unlink(missing_ok=True)
            for folder in made:
                os.rmdir(folder)  # epath's own raises ValueError where something is in it


def lock_of(path: epath.Path) -> Lock:
    """Returns a lock between processes: of the operating system, in a bucket a lease."""
    if files.on_bucket(path):
        return Lease(str(path), files.bucket_of(path))
    with files_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return SystemLock(str(path))


@contextlib.contextmanager
def files_errors(path: epath.Path) -> Iterator[None]:
    """Say in one line that a folder, or a file in it, cannot be made."""
    try:
        yield
    except OSError as error:
        if files.is_full(error):
            raise DiskFull(f"{path.parent}: the disk is full") from None
        raise UserError(f"{path.parent}: cannot be written ({error.strerror or error})") from None


def require_space(folder: epath.Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for; buckets are not asked.

    Args:
      folder: An existing folder of the result.
      needed: Bytes, by estimate.
      what: What they are needed for.

    Raises:
      UserError: Less is free.
    """
    if files.on_bucket(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free, {what} need about {needed / 1e6:,.0f} MB"
        )
