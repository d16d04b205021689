"""Files of an archive's study data, by the names under which people have them."""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from mri_jax import files
from mri_jax.cohort.dates import read_date
from mri_jax.cohort.reading import header_of
from mri_jax.errors import UserError
from mri_jax.problems import listed

# What stands after a table's name: the date of the download, and the mark of a second copy as
# browsers and file managers write it.
_DATED = r"(?:[_-](?P<date>\d{1,2}-?[A-Za-z]{3}-?\d{4}|\d{4}-\d{2}-\d{2}))?"
_COPY = r"(?:\s?\(\d+\)|(?: -)? copy(?: ?\(?\d+\)?)?)?"
# Columns that tell whose a table is: the command that reads it.
_OWN = {
    "abide": ("SUB_ID", "DX_GROUP"),
    "ppmi": ("PATNO",),
    "oasis3": ("OASISID",),
    "nacc": ("NACCID",),
    "adni": ("RID", "PTID"),
    "aibl": ("RID", "SITEID"),
}


def whose(header: Iterable[str]) -> str:
    """Returns the archive whose table has these columns, as its command is called, or empty."""
    names = {name.strip().upper() for name in header}
    return next((archive for archive, own in _OWN.items() if names >= set(own)), "")


def tables_of(folder: Path, deep: bool = False) -> list[Path]:
    """Returns the CSV files of a folder in order of their names; hidden files are none.

    Args:
      folder: The folder.
      deep: Whether those of the folders in it count as well.

    Raises:
      UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of tables")
    return sorted(
        path
        for path in (folder.rglob("*") if deep else folder.iterdir())
        if path.suffix.lower() == ".csv" and not path.name.startswith(".")
    )


def find_table(
    folder: Path, pattern: str, called: str, own: str, needed: bool = True, deep: bool = False
) -> Path | None:
    """Returns the file of a folder whose name, without date, mark of a copy and ``.csv``, matches.

    Where the pattern has a group ``release`` (a number), the newest release is taken; two files of
    one release must be the same.

    Args:
      folder: The folder.
      pattern: A regular expression, whatever the case.
      called: The table in words (``Participant_Status.csv``).
      own: The command that looks for it.
      needed: Whether it is an error that there is none.
      deep: Whether folders in the folder are searched as well.

    Raises:
      UserError: There is no such folder, no such table, or two that differ.
    """
    whole = re.compile(rf"(?:All_Subjects_)?(?:{pattern}){_DATED}{_COPY}\.csv", re.IGNORECASE)
    found: dict[tuple[int, date], list[Path]] = {}
    for path in tables_of(folder, deep):
        if match := whole.fullmatch(path.name):
            said = match.groupdict()
            day = read_date(said["date"], date.max) if said["date"] else date.min
            if isinstance(day, date):
                found.setdefault((int(said.get("release") or 0), day), []).append(path)
    if found:
        return one_of(found[max(found)])
    if needed:
        raise nothing_found(folder, called, (called.split("_")[0],), own)
    return None


def find_export(folder: Path, *names: str) -> Path | None:
    """Returns the newest file of a table that goes by one of several names; None if there is none.

    ``NAME.csv``, ``NAME_1Jan2025.csv``, ``All_Subjects_NAME_01Jan2025.csv`` and a browser's
    ``NAME (1).csv`` are all the table ``NAME``. A dated file goes before one without a date, and
    of those without a date an earlier name before a later one.

    Raises:
      UserError: There is no such folder, or two different files are equally new.
    """
    found: dict[tuple[date, int], list[Path]] = {}
    for path in tables_of(folder):
        for place, name in enumerate(names):
            pattern = rf"(?:All_Subjects_)?{re.escape(name)}{_DATED}{_COPY}\.csv"
            match = re.fullmatch(pattern, path.name, re.IGNORECASE)
            if match is None:
                continue
            day = read_date(match["date"], date.max) if match["date"] else date.min
            if isinstance(day, date):
                found.setdefault((day, -place), []).append(path)
    return one_of(found[max(found)]) if found else None


def one_of(copies: Sequence[Path]) -> Path:
    """Returns the one file of several that are byte for byte the same, by the shortest name.

    Raises:
      UserError: They differ.
    """
    first, *others = sorted(copies, key=lambda path: (len(path.name), path.name))
    for other in others:
        if files.read_bytes(other) != files.read_bytes(first):
            raise UserError(
                f"{first.parent}: {first.name} and {other.name} are the same table and differ; "
                "keep one"
            )
    return first


def nothing_found(folder: Path, wanted: str, names: Sequence[str], own: str) -> UserError:
    """Returns what to say where a table is missing: what was looked for and what is there.

    Args:
      folder: Where it was looked for.
      wanted: Its name in words (``ADNIMERGE.csv or DXSUM.csv``).
      names: Beginnings of names by which it, or a package that holds it, would be known.
      own: The command that looks for it; where other tables are of its archive it goes unnamed.
    """
    there = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    deeper = [
        path
        for sub in there
        if sub.is_dir()
        for path in tables_of(sub)
        if any(name.lower() in path.name.lower() for name in names)
    ]
    other = [
        path
        for path in there
        if path.is_file()
        and path.suffix.lower() != ".csv"
        and any(name.lower() in path.name.lower() for name in names)
    ]
    advice = ""
    if deeper:
        advice = f"; {deeper[0].relative_to(folder)} is in a folder: --tables {deeper[0].parent}"
    elif other:
        advice = f"; {other[0].name} is no CSV file: unpack it, or save it as CSV"
    here = sorted({whose(header_of(path)) for path in tables_of(folder, deep=True)} - {"", own})
    advice += "".join(f"; a table of {o.upper()} is there: cohort {o} reads it" for o in here)
    return UserError(
        f"{folder}: has no {wanted} (dated names such as NAME_01Jan2025.csv, All_Subjects_NAME "
        f"and NAME (1).csv are fine); found {listed(p.name for p in there)}{advice}"
    )


def not_used(folder: Path, used: Iterable[Path], deep: bool = False) -> list[str]:
    """Returns a note that names the tables of a folder that were not read, if there are any."""
    rest = sorted({path.name for path in tables_of(folder, deep)} - {path.name for path in used})
    return [f"tables not used: {listed(rest)}"] if rest else []
