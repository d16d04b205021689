"""One scan to preprocess, and the table that lists many."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mri_jax import delimited
from mri_jax.errors import UserError
from mri_jax.filenames import where_folders_end
from mri_jax.problems import refuse_absent
from mri_jax.trees import NO_SESSION
from mri_jax.volumes import scanners
from mri_jax.volumes.headers import check_orientation

_TABLES = (".csv", ".tsv", ".txt")
WANTED = "give a folder of scans, or a table (CSV, TSV) with the columns subject_id and image"


@dataclass(frozen=True)
class ScanEntry:
    """One scan to preprocess.

    Attributes:
      subject_id: The person.
      session_id: The visit.
      cohort: Where it belongs in the store.
      path: The file.
      mask_path: Its brain mask, or None.
      in_template_space: Whether it is an output of Clinica's ``t1-linear``.
      orientation: Where its voxel axes run to, such as RAS, as the user declared it.
      scanner: What made it, where the table says so (`scanners`).
      problem: Why it cannot be used, known before it is opened; empty otherwise.
    """

    subject_id: str
    session_id: str
    cohort: str
    path: Path
    mask_path: Path | None = None
    in_template_space: bool = False
    orientation: str = ""
    scanner: str = ""
    problem: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """(subject_id, session_id)."""
        return self.subject_id, self.session_id


def is_t1_linear(path: Path) -> bool:
    """Returns whether a file is an output of Clinica's ``t1-linear``: corrected, on MNI152."""
    return path.parent.name == "t1_linear" and "_space-MNI152" in path.name


def of_table(path: Path, base: Path, cohort: str) -> list[ScanEntry]:
    """Returns the scans of a table, one a row.

    Args:
      path: The table.
      base: The folder that its relative paths begin in; those that are not there, in the table's.
      cohort: Their cohort where the table names none; by default the table's name.

    Raises:
      UserError: It cannot be read, lacks a column, or none of its images is there.
    """
    try:
        rows = delimited.read(path)
    except UserError as error:
        # What is named as a table is meant to be one, and the error says what is wrong with it.
        wanted = "" if path.suffix.lower() in _TABLES else f" ({WANTED})"
        raise UserError(f"input: {error}{wanted}") from None
    refuse_absent(f"input: {path}", ("subject_id", "image"), rows.header)
    optional = [n for n in ("session_id", "cohort", "mask", "orientation") if n in rows.header]
    scanner = [n for n in scanners.columns(list(rows.header)) if n not in optional]
    frame = rows.frame(["subject_id", "image", *optional, *scanner])
    frame = frame.mask(frame.apply(delimited.is_missing), "")
    frame["scanner"] = scanners.names(frame)
    _check_found(path, base, frame)
    entries = []
    for row in frame.to_dict("records"):
        image = _place(row["image"], base, path.parent)
        entry = ScanEntry(
            row["subject_id"],
            row.get("session_id") or NO_SESSION,
            row.get("cohort") or cohort or path.stem,
            image,
            _place(row["mask"], base, path.parent) if row.get("mask") else None,
            is_t1_linear(image),
            check_orientation(row.get("orientation", "")),
            row["scanner"],
        )
        if not row["image"]:
            entry = replace(entry, problem="image: the table names no file")
        if not row["subject_id"]:
            entry = replace(entry, problem="subject_id: the table names no subject")
        entries.append(entry)
    return entries


def _check_found(table: Path, base: Path, rows: pd.DataFrame) -> None:
    """Refuse a table of which not one image is there: its paths begin at another folder."""
    named = [name for name in rows["image"] if name]
    # A link that leads nowhere is there, and says so itself.
    if not named or any(os.path.lexists(_place(name, base, table.parent)) for name in named):
        return
    looked = " and ".join(dict.fromkeys(str(folder.absolute()) for folder in (base, table.parent)))
    where, advice = f"looked for {named[0]} in {looked}", "give --root, the folder they begin in"
    if all(map(os.path.isabs, named)):
        where, advice = f"e.g. {named[0]}", "correct the paths"
    advice = next(filter(None, map(where_folders_end, named)), advice)
    rule = "its image is not" if len(named) == 1 else f"none of its {len(named)} images is"
    raise UserError(f"input: {table}: {rule} there ({where}); {advice}")


def _place(name: str, root: Path, folder: Path) -> Path:
    """Returns where a table's path leads: below the root, or else below the table's folder."""
    path = root / name
    # A name that is too long for any file raises nothing here.
    elsewhere = not os.path.exists(path) and os.path.exists(folder / name)
    return folder / name if elsewhere else path
