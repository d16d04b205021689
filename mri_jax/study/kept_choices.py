"""Choices that were made by measurement, kept in a folder beside the stages, a file each.

So a study that is resumed, and every other one that shares the folder, computes as the first did.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

from etils import epath

from mri_jax import locks, sealed
from mri_jax.errors import UserError
from mri_jax.typed import build

FOLDER = "forms"
T = TypeVar("T")


class KeptChoices:
    """Choices in a folder.

    Args:
      folder: The folder.
      say: Where remarks go.
    """

    def __init__(self, folder: epath.Path, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._damaged: set[str] = set()

    def read(self, name: str, kind: type[T], damaged: str) -> T | None:
        """Returns a choice; None where it is absent or not as it was written, which is said once.

        Args:
          name: Of its file.
          kind: Its type.
          damaged: What is said of a damaged one.
        """
        path = self._folder / name
        if not path.exists():
            return None
        try:
            return build(kind, sealed.read(path)["value"], str(path))
        except (UserError, KeyError) as error:
            if name not in self._damaged:
                self._say(f"{error}; {damaged}")
            self._damaged.add(name)
            return None

    def write(self, name: str, choice: Any) -> None:
        """Writes a choice, a dataclass."""
        sealed.write(self._folder / name, {"value": asdict(choice)}, ())

    @contextlib.contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Lets one process at a time measure; yields what requires, before writing, that it may.

        A process that writes nothing leaves no folder.
        """
        made, lock = locks.to_make(self._folder), self._folder / ".lock"
        with locks.lock_of(lock).acquire(timeout=-1) as held:
            try:
                yield held.require
            finally:
                locks.forget([lock], made)
