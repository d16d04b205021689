"""Notes that know the bytes they speak of: JSON with the SHA-256 of files beside it, and of itself.

A note is written last, so what has one is whole; what is not as its note says was damaged since.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from mri_jax import files
from mri_jax.errors import UserError

OWN = ("files", "sha256")
"""What `write` adds to a note."""
_FILES, _SEAL = OWN


def write(path: epath.Path, note: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Write a note about files that are beside it already.

    Args:
      path: Path of the note.
      note: JSON-serialisable.
      parts: Names of files, or of folders with all that is in them; those absent are left out.
    """
    found = {name: files.sha256_of_file(file) for name, file in _files(path.parent, parts)}
    value = {**note, _FILES: found}
    files.write_json(path, {**value, _SEAL: files.fingerprint(value)})


def read(path: epath.Path) -> dict[str, Any]:
    """Returns a note; one that `write` did not write (`has_digests`) is taken as it is.

    Raises:
      UserError: It is absent, or not as it was written.
    """
    note = files.read_json(path, dict)
    value = {name: part for name, part in note.items() if name != _SEAL}
    if _SEAL in note or _FILES in note:
        whole = note.get(_SEAL) == files.fingerprint(value)
        if not whole or not isinstance(note.get(_FILES), dict):
            _refuse(path)
    return note


def kept(path: epath.Path, make: Callable[[], Any]) -> Any:
    """Returns a JSON value that a note keeps; one that is absent or damaged is made anew."""
    try:
        return read(path)["value"]
    except (UserError, KeyError):
        write(path, {"value": make()}, ())
    return read(path)["value"]


def has_digests(note: Mapping[str, Any]) -> bool:
    """Returns whether a note that was read holds digests."""
    return _FILES in note


def check(path: epath.Path, note: Mapping[str, Any], below: str = "") -> None:
    """Compare files with the digests in the note beside them, if it has any.

    Args:
      path: Path of the note.
      note: From `read`.
      below: Only files whose name begins so, relative to the note's folder.

    Raises:
      UserError: One is absent, unreadable, or not as it was written; the first is named.
    """
    for name, digest in note.get(_FILES, {}).items():
        file = path.parent / name
        if name.startswith(below) and files.sha256_of_file(file) != digest:
            _refuse(file)


def _refuse(path: epath.Path) -> None:
    raise UserError(f"{path}: is not as it was written (its SHA-256 differs)")


def _files(folder: epath.Path, names: Sequence[str]) -> Iterator[tuple[str, epath.Path]]:
    """Yields (name relative to the folder, path) of the files and of all in named folders."""
    for name in names:
        path = folder / name
        if path.is_dir():
            below = [f"{name}/{child.name}" for child in path.iterdir()]
            yield from _files(folder, below)
        elif path.exists():
            yield name, path
