"""Which scans to preprocess: from a BIDS tree, a CAPS tree, a folder of files, or a table."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from mri_jax import delimited
from mri_jax.errors import UserError
from mri_jax.volumes.headers import SUFFIXES

NO_SESSION = "ses-1"
_RUN = re.compile(r"_run-0*(\d+)")
_BIDS_NAME = re.compile(r"(sub-[^_]+)(?:_(ses-[^_]+))?")
_ENDING = re.compile(r"(_T1w|_T1|-T1w|-T1)?(\.nii\.gz|\.nii|\.mgz|\.mgh)$")


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
      problem: Why it cannot be used, known before it is opened; empty otherwise.
    """

    subject_id: str
    session_id: str
    cohort: str
    path: Path
    mask_path: Path | None = None
    in_template_space: bool = False
    problem: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """(subject_id, session_id)."""
        return self.subject_id, self.session_id


@dataclass(frozen=True)
class Inputs:
    """Entries sorted by key, and what to tell the user about how they were found."""

    entries: tuple[ScanEntry, ...]
    notes: tuple[str, ...] = ()


def find(
    source: Path, cohort: str = "", root: Path | None = None, masks: Path | None = None
) -> Inputs:
    """List the scans of a folder or table.

    Args:
      source: A BIDS tree (``sub-*/[ses-*/]anat/*_T1w.nii.gz``), a CAPS tree
        (``subjects/sub-*/ses-*/t1_linear``), any other folder of NIfTI or MGH files (the subject is
        the file's name without ``_T1w``, or the id of ``participants.tsv`` that starts it), or a
        CSV or TSV with the columns subject_id and image, and optionally session_id, cohort, mask.
      cohort: Name of the cohort, for sources that do not give it; by default the folder's name.
      root: The folder that a table's paths are relative to and must stay in; by default the
        table's own.
      masks: A folder of brain masks, one for every scan under the same relative path or as
        ``SUBJECT_SESSION.nii.gz``.

    Raises:
      UserError: The source is absent, is neither, or holds no scan.
    """
    if source.is_dir():
        name = cohort or source.resolve().name
        found = _caps(source, name) or _bids(source, name) or _folder(source, name)
        base = source
    elif source.is_file():
        base = root or source.parent
        found = Inputs(tuple(_table(source, base, cohort)))
    else:
        raise UserError(f"input: {source}: no such file or folder")
    if not found.entries:
        raise UserError(f"input: {source} holds no scan ({', '.join(SUFFIXES)})")
    entries = [_inside(entry, base) for entry in _mark_duplicates(found.entries)]
    if masks is not None:
        entries = [_with_mask(entry, base, masks) for entry in entries]
    return Inputs(tuple(sorted(entries, key=lambda e: (e.key, str(e.path)))), found.notes)


def one_file(path: Path, masks: Path | None = None) -> ScanEntry:
    """A scan given by its file alone: who and when is read from its name.

    ``sub-01_ses-M06_T1w.nii.gz`` as in BIDS; otherwise the subject is the name without its ending.

    Args:
      path: NIfTI or MGH.
      masks: A folder that holds its brain mask, under the same name or ``SUBJECT_SESSION.nii.gz``.
    """
    stem = _ENDING.sub("", path.name)
    named = _BIDS_NAME.match(stem)
    subject, session = named.groups() if named else (stem, None)
    entry = ScanEntry(
        subject, session or NO_SESSION, "", path, in_template_space=is_t1_linear(path)
    )
    return entry if masks is None else _with_mask(entry, path.parent, masks)


def _scans_under(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent) / n for n in names if n.endswith(SUFFIXES) and n[0] != "."]
    return sorted(found)


def _caps(folder: Path, cohort: str) -> Inputs | None:
    paths = sorted(folder.glob("subjects/sub-*/ses-*/t1_linear/*T1w.nii*"))
    return _choose(paths, cohort, ("desc-Crop",)) if paths else None


def _bids(folder: Path, cohort: str) -> Inputs | None:
    patterns = ("sub-*/anat/*_T1w.nii*", "sub-*/ses-*/anat/*_T1w.nii*")
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return _choose(paths, cohort, ()) if paths else None


def _choose(paths: list[Path], cohort: str, prefer: tuple[str, ...]) -> Inputs:
    """One image a session: the preferred part of a name, the lowest run, then the first name."""
    sessions: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        subject = next(part for part in path.parts[::-1] if part.startswith("sub-"))
        if path.name.startswith("sub-"):
            subject = next(p for p in path.parts[:-1][::-1] if p.startswith("sub-"))
        session = next((p for p in path.parts[:-1][::-1] if p.startswith("ses-")), NO_SESSION)
        sessions[subject, session].append(path)

    def rank(path: Path) -> tuple[bool, int, bool, str]:
        run = _RUN.search(path.name)
        altered = "_rec-" in path.name or "_ce-" in path.name
        wanted = any(part in path.name for part in prefer)
        return not wanted, int(run[1]) if run else 0, altered, path.name

    entries = [
        ScanEntry(*key, cohort, min(found, key=rank), in_template_space=is_t1_linear(found[0]))
        for key, found in sessions.items()
    ]
    left = len(paths) - len(entries)
    notes = (f"{left} further T1w images of the same sessions are not used (lowest run wins)",)
    return Inputs(tuple(entries), notes if left else ())


def is_t1_linear(path: Path) -> bool:
    """Whether a file is an output of Clinica's ``t1-linear``: corrected, on an MNI152 template."""
    return path.parent.name == "t1_linear" and "_space-MNI152" in path.name


def _folder(folder: Path, cohort: str) -> Inputs:
    people = _participants(folder)
    entries = []
    for path in _scans_under(folder):
        stem = _ENDING.sub("", path.name)
        subject = max((p for p in people if path.name.startswith(p)), key=len, default=stem)
        entries.append(ScanEntry(subject, NO_SESSION, cohort, path))
    return Inputs(tuple(entries))


def _participants(folder: Path) -> list[str]:
    path = folder / "participants.tsv"
    if not path.is_file():
        return []
    rows = delimited.read(path)
    if "participant_id" not in rows.header:
        raise UserError(
            f"input: {path}: column participant_id is missing; found {', '.join(rows.header)}"
        )
    ids = rows.frame(["participant_id"])["participant_id"]
    return list(ids[~delimited.is_missing(ids)])


def _table(path: Path, base: Path, cohort: str) -> list[ScanEntry]:
    try:
        rows = delimited.read(path)
    except UserError as error:
        raise UserError(f"input: {error}") from None
    for name in ("subject_id", "image"):
        if name not in rows.header:
            raise UserError(
                f"input: {path}: column {name!r} is missing; found {', '.join(rows.header)}"
            )
    optional = [n for n in ("session_id", "cohort", "mask") if n in rows.header]
    frame = rows.frame(["subject_id", "image", *optional])
    frame = frame.mask(frame.apply(delimited.is_missing), "")
    entries = []
    for row in frame.to_dict("records"):
        image = base / row["image"]
        entry = ScanEntry(
            row["subject_id"],
            row.get("session_id") or NO_SESSION,
            row.get("cohort") or cohort or path.stem,
            image,
            base / row["mask"] if row.get("mask") else None,
            is_t1_linear(image),
        )
        if not row["image"]:
            entry = replace(entry, problem="image: the table names no file")
        if not row["subject_id"]:
            entry = replace(entry, problem="subject_id: the table names no subject")
        entries.append(entry)
    return entries


def _mark_duplicates(entries: tuple[ScanEntry, ...]) -> list[ScanEntry]:
    """Refuse every scan of a (subject, session) that occurs twice: which one is not for us."""
    by_key: dict[tuple[str, str], list[ScanEntry]] = defaultdict(list)
    for entry in entries:
        by_key[entry.key].append(entry)
    marked = []
    for same in by_key.values():
        for entry in same:
            if len(same) > 1 and not entry.problem:
                others = ", ".join(e.path.name for e in same)
                entry = replace(entry, problem=f"duplicate subject/session: {others}")
            marked.append(entry)
    return marked


def _inside(entry: ScanEntry, base: Path) -> ScanEntry:
    """Mark an entry whose path leaves the input folder, by ``..``, absolutely or by a link."""
    if entry.problem:
        return entry
    for path in filter(None, (entry.path, entry.mask_path)):
        if not path.resolve().is_relative_to(base.resolve()):
            return replace(entry, problem=f"{path.name}: leaves the input folder; give --root")
    return entry


def _with_mask(entry: ScanEntry, base: Path, masks: Path) -> ScanEntry:
    same = masks / os.path.relpath(entry.path, base)
    named = masks / f"{entry.subject_id}_{entry.session_id}.nii.gz"
    found = next((p for p in (same, named) if p.is_file()), None)
    if found is None and not entry.problem:
        return replace(entry, problem=f"mask: neither {same.name} nor {named.name} in {masks.name}")
    return replace(entry, mask_path=found)
