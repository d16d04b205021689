"""Which scans to preprocess: from a BIDS tree, a CAPS tree, a folder of files, or a table."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mri_jax import delimited, trees
from mri_jax.errors import UserError
from mri_jax.problems import counted, listed, refuse_absent
from mri_jax.trees import NO_SESSION
from mri_jax.volumes.entries import WANTED, ScanEntry, is_t1_linear, of_table
from mri_jax.volumes.headers import check_orientation
from mri_jax.volumes.scan_files import SUFFIXES, companions, is_label_name, is_scan_name
from mri_jax.volumes.store import scan_name

_BIDS_NAME = re.compile(r"(sub-[^_]+)(?:_(ses-[^_]+))?")
_ENDING = re.compile(r"([_-]T1w?)?(\.nii|\.nii\.gz|\.mgz|\.mgh|\.img|\.img\.gz)$", re.IGNORECASE)
# Of a FreeSurfer subject: the scan as it came, on 1 mm voxels; the other is corrected and scaled.
FREESURFER = ("mri/orig.mgz", "mri/T1.mgz")
LOOKED_FOR = (
    f"a BIDS tree ({trees.BIDS}), a CAPS tree ({trees.CAPS}), "
    f"a FreeSurfer SUBJECTS_DIR (*/{FREESURFER[0]}) or any file ending in {', '.join(SUFFIXES)}"
)


@dataclass(frozen=True)
class Inputs:
    """What was found.

    Attributes:
      entries: Sorted by key.
      notes: What to tell the user about how they were found, and what was left out.
      form: What the source was read as.
    """

    entries: tuple[ScanEntry, ...]
    notes: tuple[str, ...] = ()
    form: str = ""


def find(
    source: Path,
    cohort: str = "",
    root: Path | None = None,
    masks: Path | None = None,
    orientation: str = "",
) -> Inputs:
    """List the scans of a folder or table.

    Args:
      source: A BIDS tree (``sub-*/[ses-*/]anat/*_T1w.nii.gz``), a CAPS tree
        (``subjects/sub-*/ses-*/t1_linear``), a FreeSurfer SUBJECTS_DIR (``*/mri/orig.mgz``, or
        T1.mgz where that is absent), any other folder of NIfTI, MGH or Analyze files (the subject
        is the file's name without ``_T1w``, or the id of ``participants.tsv`` that starts it), or
        a CSV or TSV with the columns subject_id and image, and optionally session_id, cohort,
        mask, orientation, and those that name the scanner (`scanners`).
      cohort: Name of the cohort, for sources that do not give it; by default the folder's name.
      root: The folder that a table's paths are relative to and must stay in, by default the
        table's own; of a folder, the one that its links must stay in, by default itself.
      masks: A folder of brain masks, one for every scan under the same relative path or as
        ``SUBJECT_SESSION.nii.gz``.
      orientation: Where the voxel axes run to, such as RAS, of files that state no orientation and
        of which the table says none.

    Raises:
      UserError: The source is absent, is neither, holds no scan, or none within ``root``.
    """
    orientation = check_orientation(orientation)
    if source.is_dir():
        name = cohort or source.resolve().name
        ways = (_caps, _bids, _freesurfer, _folder)
        found = next(found for way in ways if (found := way(source, name)) is not None)
        base, within = source, root or source
    elif source.is_file():
        if is_scan_name(source.name):
            raise UserError(f"input: {source}: is one scan; {WANTED}")
        base = within = root or source.parent
        found = Inputs(tuple(of_table(source, base, cohort)), form="table")
    else:
        raise UserError(f"input: {source}: no such file or folder")
    if not found.entries:
        raise UserError(_nothing(source, found.notes))
    entries = _all_inside(_mark_alike(_mark_duplicates(found.entries)), source, within)
    if masks is not None:
        entries = [_with_mask(entry, base, masks) for entry in entries]
    entries = [replace(e, orientation=e.orientation or orientation) for e in entries]
    ordered = sorted(entries, key=lambda e: (e.key, str(e.path)))
    return Inputs(tuple(ordered), found.notes, found.form)


def one_file(path: Path, masks: Path | None = None, orientation: str = "") -> ScanEntry:
    """Returns a scan given by its file alone: who and when is read from its name.

    ``sub-01_ses-M06_T1w.nii.gz`` as in BIDS; otherwise the subject is the name without its ending.

    Args:
      path: NIfTI, MGH or Analyze.
      masks: A folder that holds its brain mask, under the same name or ``SUBJECT_SESSION.nii.gz``.
      orientation: Where its voxel axes run to, such as RAS, if it states no orientation.
    """
    stem = _ENDING.sub("", path.name)
    named = _BIDS_NAME.match(stem)
    subject, session = named.groups() if named else (stem, None)
    entry = ScanEntry(
        subject,
        session or NO_SESSION,
        "",
        path,
        in_template_space=is_t1_linear(path),
        orientation=check_orientation(orientation),
    )
    return entry if masks is None else _with_mask(entry, path.parent, masks)


def _scans_under(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent) / name for name in names]
    return sorted(path for path in found if is_scan_name(path.name) and _is_whole(path))


def _is_whole(path: Path) -> bool:
    """Returns whether an .img has its .hdr (disk images have none); other files are whole."""
    return all(beside.exists() for beside in companions(path))


def _lost(absent: Iterable[tuple[Path, str]]) -> list[str]:
    """Returns what to say of links without content, given with what they are: a line each kind."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for path, what in absent:
        kinds[what].append(path.name)
    return [f"left out, {what}: {listed(names)}" for what, names in kinds.items()]


def _nothing(source: Path, notes: tuple[str, ...]) -> str:
    """Returns what was looked for, what is there instead, and what to do."""
    if source.is_file():
        return f"input: {source}: the table has no row"
    kinds: Counter[str] = Counter()
    for _, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        kinds.update(_kind(name) for name in names)
    there = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4)) or "no file"
    advice = "; convert DICOM with dcm2niix" if {".dcm", ".ima"} & set(kinds) else ""
    return "; ".join(
        (f"input: {source} holds no scan: looked for {LOOKED_FOR}; found {there}{advice}", *notes)
    )


def _kind(name: str) -> str:
    path = Path(name.lower())
    gz = ".gz" if path.suffix == ".gz" else ""
    return Path(path.name.removesuffix(gz)).suffix + gz or "without an ending"


def _caps(folder: Path, cohort: str) -> Inputs | None:
    scans = trees.caps_scans(folder)
    return _choose(scans, cohort, ("desc-Crop",), "CAPS tree") if scans else None


def _bids(folder: Path, cohort: str) -> Inputs | None:
    scans = trees.bids_scans(folder)
    return _choose(scans, cohort, (), "BIDS tree") if scans else None


def _freesurfer(folder: Path, cohort: str) -> Inputs | None:
    """Returns one scan a subject of a SUBJECTS_DIR, without templates and second copies."""
    homes = {path.name: path for path in sorted(folder.iterdir()) if path.name[0] != "."}
    homes = {folder.resolve().name: folder} | homes
    images = {
        name: next((home / image for image in FREESURFER if (home / image).is_file()), None)
        for name, home in homes.items()
        if (home / "mri").is_dir()
    }
    if not any(images.values()):
        return None
    entries, left, empty = [], [], []
    for name, image in images.items():
        time_point, is_long, _ = name.partition(".long.")
        is_template = name.startswith("fsaverage") or (homes[name] / "base-tps").exists()
        if is_template or (is_long and images.get(time_point)):
            left.append(name)
        elif image is None:
            empty.append(name)
        else:
            named = _BIDS_NAME.fullmatch(time_point)
            subject, session = named.groups() if named else (time_point, None)
            entries.append(ScanEntry(subject, session or NO_SESSION, cohort, image))
    corrected = sum(entry.path.name == "T1.mgz" for entry in entries)
    without = counted(corrected, "subject")
    notes = {
        f"left out as templates or second copies: {', '.join(left)}": left,
        f"left out, without {' or '.join(FREESURFER)}: {', '.join(empty)}": empty,
        f"{without} without orig.mgz: T1.mgz, already corrected, is taken": corrected,
    }
    said = tuple(note for note, applies in notes.items() if applies)
    return Inputs(tuple(entries), said, f"FreeSurfer SUBJECTS_DIR ({FREESURFER[0]})")


def _choose(scans: list[trees.TreeScan], cohort: str, prefer: tuple[str, ...], form: str) -> Inputs:
    """Returns one image a session: the preferred part of a name, the lowest run, the first name."""
    entries, left = [], []
    for (subject, session), found in trees.by_session(scans).items():
        usable = [scan for scan in found if not (scan.fault or scan.absent)]
        best = min(usable or found, key=lambda scan: trees.preference(scan, prefer))
        problem = best.fault or best.absent
        entries.append(
            ScanEntry(
                subject, session, cohort, best.path,
                in_template_space=is_t1_linear(best.path),
                problem=f"{best.path.name}: {problem}" if problem else "",
            )
        )  # fmt: skip
        left += [scan for scan in found if scan is not best]
    further = [scan for scan in left if not (scan.fault or scan.absent)]
    notes = [f"{scan.path}: left out: {scan.fault}" for scan in left if scan.fault]
    if further:
        rule = counted(len(further), "further T1w image is", "further T1w images are")
        notes.append(f"{rule} not used: of several of a session the lowest run wins")
    notes += _lost((scan.path, scan.absent) for scan in scans if scan.absent)
    return Inputs(tuple(entries), tuple(notes), form)


def _folder(folder: Path, cohort: str) -> Inputs:
    people = _participants(folder)
    paths = [path for path in _scans_under(folder) if not is_label_name(path.name)]
    lost = {path: what for path in paths if (what := trees.why_absent(path))}
    entries, unlisted = [], []
    for path in paths:
        if path in lost:
            continue
        stem = _ENDING.sub("", path.name)
        # sub1 does not begin sub10: what follows an id is no letter and no digit.
        begins = [
            p for p in people if stem.startswith(p) and not stem[len(p) : len(p) + 1].isalnum()
        ]
        if not begins:
            unlisted.append(path.name)
        entries.append(ScanEntry(max(begins, key=len, default=stem), NO_SESSION, cohort, path))
    notes = _lost(lost.items())
    if people and unlisted:
        scans = counted(len(entries), "scan")
        rule = counted(len(unlisted), f"of {scans} begins", f"of {scans} begin")
        notes.append(
            f"{rule} with no id of participants.tsv; the name is taken as id: {listed(unlisted)}"
        )
    absent = sorted(set(people) - {entry.subject_id for entry in entries})
    if absent:
        ids = counted(len(people), "id")
        rule = counted(len(absent), f"of {ids} begins", f"of {ids} begin")
        notes.append(f"of participants.tsv, {rule} the name of no scan: {listed(absent)}")
    if inner := trees.trees_below(folder):
        rule = counted(
            len(inner),
            "folder in it is a BIDS tree of its own",
            "folders in it are BIDS trees of their own",
        )
        notes.append(
            f"{rule} ({listed(inner)}): read here as loose files, "
            "whose names are the ids; give one tree, or the cohort table"
        )
    return Inputs(tuple(entries), tuple(notes), "folder of files")


def _participants(folder: Path) -> list[str]:
    path = folder / "participants.tsv"
    if not path.is_file():
        return []
    rows = delimited.read(path)
    refuse_absent(f"input: {path}", ("participant_id",), rows.header)
    ids = rows.frame(["participant_id"])["participant_id"]
    return list(ids[~delimited.is_missing(ids)])


def _mark_alike(entries: list[ScanEntry]) -> list[ScanEntry]:
    """Refuse scans whose ids differ by case alone: on macOS and Windows they would be one file."""
    by_file: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in entries:
        by_file[scan_name(entry.cohort, *entry.key).casefold()][" ".join(entry.key)] = None
    marked = []
    for entry in entries:
        others = by_file[scan_name(entry.cohort, *entry.key).casefold()]
        if len(others) > 1 and not entry.problem:
            rule = "differ by case alone, and would be one file on macOS and Windows; rename one"
            entry = replace(entry, problem=f"subject/session: {' and '.join(others)} {rule}")
        marked.append(entry)
    return marked


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
                remedy = "; keep one, or give each a session of its own"
                entry = replace(entry, problem=f"duplicate subject/session: {others}{remedy}")
            marked.append(entry)
    return marked


def _all_inside(entries: list[ScanEntry], source: Path, base: Path) -> list[ScanEntry]:
    """Marks scans whose path leaves a folder, by ``..``, absolutely or by a link.

    Raises:
      UserError: All do; the message names the ``--root`` that has them.
    """
    usable = [entry for entry in entries if not entry.problem]
    outside = {entry: path for entry in usable if (path := _outside(entry, base))}
    way = f"give --root {_folder_of(usable)}"
    if outside and len(outside) == len(usable):
        first = outside[usable[0]]
        rule = (
            "its scan does not lie" if len(usable) == 1 else f"none of its {len(usable)} scans lies"
        )
        raise UserError(f"input: {source}: {rule} in {base}, e.g. {first}; {way}")
    return [
        replace(e, problem=f"{outside[e].name}: leaves the input folder {base}; {way}")
        if e in outside
        else e
        for e in entries
    ]


def _outside(entry: ScanEntry, base: Path) -> Path | None:
    """Returns the first file of a scan, links followed, that does not lie in a folder."""
    paths = filter(None, (entry.path, entry.mask_path))
    return next((p for p in paths if not _resolved(p).is_relative_to(base.resolve())), None)


def _folder_of(entries: list[ScanEntry]) -> str:
    """Returns the folder of all files of some scans, and of what their links lead to."""
    paths = [p for e in entries for p in (e.path, e.mask_path) if p]
    places = [place.parent for p in paths for place in (p.absolute(), _resolved(p))]
    common = os.path.commonpath(places) if places else ""
    return common if len(Path(common).parts) > 1 else "a folder that holds them all"


def _resolved(path: Path) -> Path:
    """Returns a path without links; one in a loop of links is kept, to be refused on reading."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _with_mask(entry: ScanEntry, base: Path, masks: Path) -> ScanEntry:
    same = masks / os.path.relpath(entry.path, base)
    named = masks / f"{entry.subject_id}_{entry.session_id}.nii.gz"
    found = next((p for p in (same, named) if p.is_file()), None)
    if found is None and not entry.problem:
        return replace(entry, problem=f"mask: neither {same.name} nor {named.name} in {masks.name}")
    return replace(entry, mask_path=found)
