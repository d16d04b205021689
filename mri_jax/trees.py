"""The T1w scans of a BIDS or CAPS tree, and whose they are.

Folders and the names of files both say who and when. What only one of them says is taken from it;
where they contradict each other nobody is believed and the scan carries the contradiction.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mri_jax.problems import listed

NO_SESSION = "ses-1"
"""The session of a scan of which neither folders nor name tell one."""
BIDS = "sub-*/[ses-*/]anat/*_T1w.nii[.gz]"
CAPS = "subjects/sub-*/ses-*/t1_linear/*T1w.nii[.gz]"
_T1W = re.compile(r"^(?!\.).*T1w\.nii(?:\.gz)?$", re.IGNORECASE)
_SUBJECT = re.compile(r"^(sub-[^_]+)", re.IGNORECASE)
_SESSION = re.compile(r"_(ses-[^_]+)", re.IGNORECASE)
_RUN = re.compile(r"_run-0*(\d+)")
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
ONLY_A_LINK = "only a link, its content was not fetched (datalad get, git annex get, git lfs pull)"
"""What a scan is whose file a DataLad, git-annex or git-lfs dataset has not yet got."""
_LINK_AS_TEXT = (
    "only the text of a link to a file that is there: copy the dataset with its links (cp -a, "
    "rsync -a); where they lead out of it, allow it with --root, a folder that holds both"
)
# A file that git, git-annex or git-lfs put in place of the one that was not fetched.
_POINTER_BYTES = 1024
_POINTER = re.compile(rb"^(version https://git-lfs|(\.\./|/)[^\n]*/objects/[^\n]*\n?$)")


@dataclass(frozen=True)
class TreeScan:
    """One T1w scan of a tree.

    Attributes:
      path: The file.
      subject: As its folder spells it (``sub-01``).
      session: As its folder, or else its name, spells it (``ses-M00``); empty where neither does.
      fault: Why it is nobody's scan, or empty.
      absent: What there is instead of an image behind its name (`why_absent`), or empty.
    """

    path: Path
    subject: str
    session: str
    fault: str = ""
    absent: str = ""

    @property
    def run(self) -> int:
        """Its run, 0 where the name has none."""
        found = _RUN.search(self.path.name)
        return int(found[1]) if found else 0

    @property
    def altered(self) -> bool:
        """Whether it was reconstructed otherwise (``rec-``) or with contrast (``ce-``)."""
        return "_rec-" in self.path.name or "_ce-" in self.path.name

    def wanted(self, prefer: Sequence[str]) -> int:
        """Returns the place in ``prefer`` of the first part that its name has, or their number."""
        name = self.path.name
        return next((i for i, part in enumerate(prefer) if part in name), len(prefer))


def session_key(label: str) -> str:
    """Returns a session without its spelling: ``ses-01`` and ``SES-1`` are one, M0 and m00 too."""
    text = label.strip().casefold().removeprefix("ses-")
    return _ZEROS.sub("", text)


def bids_scans(folder: Path) -> list[TreeScan]:
    """Returns the T1w scans ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]``; hidden files are none."""
    paths = [*folder.glob("sub-*/anat/*"), *folder.glob("sub-*/ses-*/anat/*")]
    return _scans(folder, (p for p in paths if p.name.lower().find("_t1w.") > 0))


def caps_scans(folder: Path) -> list[TreeScan]:
    """Returns the outputs of ``t1-linear``: ``subjects/sub-*/ses-*/t1_linear/*T1w.nii[.gz]``."""
    return _scans(folder / "subjects", folder.glob("subjects/sub-*/ses-*/t1_linear/*"))


def _scans(folder: Path, paths: Iterable[Path]) -> list[TreeScan]:
    found = [
        _scan(path, path.relative_to(folder).parts)
        for path in sorted(paths)
        if _T1W.match(path.name) and not path.is_dir()
    ]
    labelled = {scan.subject for scan in found if scan.session}
    return [
        replace(scan, fault="neither its folder nor its name tells a session, as those of its "
                "subject's other scans do")
        if not (scan.session or scan.fault) and scan.subject in labelled
        else scan
        for scan in found
    ]  # fmt: skip


def _scan(path: Path, parts: Sequence[str]) -> TreeScan:
    subject = parts[0]
    session = parts[1] if parts[1].startswith("ses-") else ""
    faults = []
    # A label may hold an underscore, against the rules: the folder's is looked for first.
    if path.name.casefold().startswith(f"{subject}_".casefold()):
        rest = path.name[len(subject) :]
    else:
        rest = path.name
        if named := _SUBJECT.match(path.name):
            faults.append(f"its name says {named[1]}, its folder {subject}")
    if named := _SESSION.search(rest):
        if session and session_key(named[1]) != session_key(session):
            faults.append(f"its name says {named[1]}, its folder {session}")
        session = session or f"ses-{named[1][4:]}"
    return TreeScan(path, subject, session, "; ".join(faults), why_absent(path))


def no_tree(folder: Path, caps: bool = False) -> str:
    """Returns why a path gives no scan of a BIDS (or CAPS) tree, and what to give instead."""
    kind, pattern = ("CAPS", CAPS) if caps else ("BIDS", BIDS)
    around = next((p for p in folder.absolute().parents if is_tree(p, caps)), None)
    here = f", here {around}" if around else ""
    wanted = f"give the folder of a {kind} tree ({pattern}){here}"
    if not folder.exists():
        return f"{folder}: no such folder; {wanted}"
    if not folder.is_dir():
        return f"{folder}: is a file; {wanted}"
    if is_tree(folder, not caps):
        other = "BIDS" if caps else "CAPS"
        return f"{folder}: is a {other} tree, not {kind} ({pattern}); use cohort {other.lower()}"
    if inner := trees_below(folder, caps):
        each = "; read each by itself, then put them together with cohort join"
        return f"{folder}: is no {kind} tree but holds {len(inner)}: {listed(inner)}{each}"
    folders = sorted(p.name for p in folder.glob("*") if p.is_dir() and p.name[0] != ".")
    found = f"found the folders {listed(folders)}" if folders else "found no folder in it"
    there = f"; the tree that it lies in is {around}" if around else ""
    return f"{folder}: has no T1w image ({pattern}); {found}{there}"


def is_tree(folder: Path, caps: bool = False) -> bool:
    """Returns whether a folder holds ``sub-*`` folders, in CAPS below ``subjects``."""
    within = folder / "subjects" if caps else folder
    return within.is_dir() and any(path.is_dir() for path in within.glob("sub-*"))


def trees_below(folder: Path, caps: bool = False) -> list[str]:
    """Returns the names of folders in a folder that are trees, where it is none itself."""
    if is_tree(folder, caps):
        return []
    return sorted(path.name for path in folder.glob("*") if is_tree(path, caps))


def why_absent(path: Path) -> str:
    """Returns what a listed path is instead of an image: a link that leads nowhere, or its text."""
    if not path.exists():
        return ONLY_A_LINK
    if path.is_file() and path.stat().st_size <= _POINTER_BYTES:
        with open(path, "rb") as file:
            text = file.read(_POINTER_BYTES)
        if _POINTER.match(text):
            target = path.parent / os.fsdecode(text.strip())
            return _LINK_AS_TEXT if os.path.isfile(target) else ONLY_A_LINK
    return ""


def by_session(scans: Iterable[TreeScan]) -> dict[tuple[str, str], list[TreeScan]]:
    """Returns the scans of each (subject, session), `NO_SESSION` where they have none."""
    found: dict[tuple[str, str], list[TreeScan]] = defaultdict(list)
    for scan in scans:
        found[scan.subject, scan.session or NO_SESSION].append(scan)
    return dict(found)


def preference(scan: TreeScan, prefer: Sequence[str]) -> tuple[int, int, bool, str]:
    """Returns the order of a session's scans: parts asked for, run, neither rec- nor ce-, name."""
    return scan.wanted(prefer), scan.run, scan.altered, scan.path.name
