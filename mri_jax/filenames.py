"""Names of files: those made for people, cohorts and networks, and those from Windows."""

import hashlib
import re
from collections.abc import Iterable

from mri_jax.errors import UserError

LONGEST_NAME = 110
"""The longest `safe_name`: two, an ending and letters of `files.replacing` fit into 255 bytes."""
# Names that Windows keeps for devices, whatever their ending.
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def safe_name(text: str, keep: str = "") -> str:
    """Returns a file name for an identifier, other than that of every other identifier.

    Letters, digits, ``.`` and ``-`` stay, and ``_`` if it is in ``keep``; other characters become
    ``%xx``, and so does the first character of what would be hidden, ``..``, or a device of
    Windows, and a dot at the end. Of what then is longer than `LONGEST_NAME` the beginning stays,
    followed by ``~`` and a digest. Case is kept, as stores and results have it: names that differ
    by case alone are one file on macOS and Windows, and refused where they meet (`refuse_alike`).
    """
    name = re.sub(rf"[^A-Za-z0-9.\-{keep}]", lambda m: _quoted(m[0]), text) or "%"
    if name.startswith(".") or _RESERVED.match(name):
        name = _quoted(name[0]) + name[1:]
    if name.endswith("."):
        name = name[:-1] + _quoted(".")
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]
        name = f"{name[: LONGEST_NAME - 25]}~{digest}"
    return name


def joined_name(*parts: str) -> str:
    """Returns one file name for several identifiers, unlike any others': ``ONE__OTHER``."""
    # Underscores stay where they cannot be taken for those between two parts.
    names = (re.sub(r"(?<=.)(?<!%5f)%5f(?!%5f|$)", "_", safe_name(part)) for part in parts)
    return "__".join(names)


def _quoted(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))


def where_folders_end(path: str) -> str:
    r"""Returns what to say of a path that is not there and has Windows' separators, else nothing.

    >>> where_folders_end("scans/a.nii.gz"), where_folders_end(r"scans\a.nii.gz")
    ('', 'folders are separated by / here, not by \\; write /')
    """
    return r"folders are separated by / here, not by \; write /" if "\\" in path else ""


def alike(names: Iterable[str]) -> list[list[str]]:
    """Returns names whose files would be one where case does not count, each set in order."""
    sets: dict[str, dict[str, None]] = {}
    for name in names:
        sets.setdefault(safe_name(name).casefold(), {})[name] = None
    return [list(found) for found in sets.values() if len(found) > 1]


def refuse_alike(names: Iterable[str], field: str) -> None:
    """Refuse names that differ by case alone: on macOS and Windows their files would be one.

    Args:
      names: To become names of files.
      field: Where they are from, for the message.

    Raises:
      UserError: Two such names.
    """
    for found in alike(names):
        raise UserError(
            f"{field}: {' and '.join(map(repr, found))} differ by case alone, and would be one "
            "file on macOS and Windows; rename all but one"
        )
