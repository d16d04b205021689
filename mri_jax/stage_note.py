"""``stage.json``: what a finished stage says about itself, its fingerprint and its files' digests.

A stage is what its note says, whatever its folder is called. Notes of versions before digests hold
none; they are taken as they are.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from mri_jax import sealed
from mri_jax.errors import UserError

NAME = "stage.json"
# Files and folders of a result. Saved states of a training have digests of their own.
_RESULT = ("network", "history.json", "logits.csv", "features.npz")


def folder_name(kind: str, fingerprint: str) -> str:
    """Returns the name of a stage's folder."""
    return f"{kind}-{fingerprint[:16]}"


def write(folder: epath.Path, note: Mapping[str, Any]) -> None:
    """Write the note of a stage whose other files are written.

    Args:
      folder: Folder of the stage.
      note: JSON-serialisable, with ``fingerprint`` and ``kind``.
    """
    sealed.write(folder / NAME, note, _RESULT)


def read(folder: epath.Path) -> dict[str, Any]:
    """Returns the note of a finished stage.

    Raises:
      UserError: It is absent, or not as it was written.
    """
    note = sealed.read(folder / NAME)
    if not isinstance(note.get("fingerprint"), str) or not isinstance(note.get("kind"), str):
        raise UserError(f"{folder / NAME}: names no stage")
    return note


def require(folder: epath.Path, fingerprint: str) -> dict[str, Any]:
    """Returns the note of a finished stage that is the one asked for.

    Raises:
      UserError: As `read`, or the folder holds another stage.
    """
    note = read(folder)
    if note["fingerprint"] != fingerprint:
        own = folder_name(note["kind"], note["fingerprint"])
        raise UserError(
            f"{folder}: holds another stage, {own} by its {NAME}; was it renamed? Give it that "
            "name again, or move it out of the folder of stages"
        )
    return note


def check(folder: epath.Path, below: str = "") -> None:
    """Compare a finished stage with its note.

    Args:
      folder: Folder of the stage.
      below: Only files whose name begins so, relative to the folder.

    Raises:
      UserError: The note or a file is not as it was when the stage was finished.
    """
    sealed.check(folder / NAME, read(folder), below)
