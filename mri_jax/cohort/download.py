"""The files of an image download, in the layouts that the archive gives out.

``SUBJECT/DESCRIPTION/DATE/I<id>/files`` by default. Where folders are named by the series, or all
files lie in one, the ids stand in the names: ``ADNI_001_S_0901_MR_MP-RAGE_br_raw_S9000_I4000.nii``.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort.dates import EARLIEST, read_date
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".ima")
LAYOUT = (
    "SUBJECT/DESCRIPTION/DATE/I<id>/*.nii or *.dcm, or files named ..._SUBJECT_MR_..._I<id>.nii"
)
_IMAGE_FOLDER = re.compile(r"I(\d+)", re.ASCII)
_IMAGE_IN_NAME = re.compile(
    r"(?:.*_)?I(\d+)(?:\.nii|\.nii\.gz|\.dcm|\.ima)", re.IGNORECASE | re.ASCII
)
_SUBJECT_IN_NAME = re.compile(r"(?:[A-Za-z]+_)?((?:\d+_S_)?\d+)_M[Rr]_.*", re.ASCII)
_DESCRIPTION_IN_NAME = re.compile(r".*?_M[Rr]_(.+?)_(?:_?br_raw|S\d+_I\d+)")
_FIELD_FOLDER = re.compile(r"^(1\.5|15|3|3\.0)\s?_?T$", re.IGNORECASE)
_DATED = re.compile(r"(\d{4}-\d{2}-\d{2})(?:_.*)?", re.ASCII)
_COLUMNS = [
    "subject_id", "image_id", "description", "date", "field", "path", "dicom", "bad_date",
]  # fmt: skip


@dataclass
class Strays:
    """Scans of a tree that cannot be told: how many, and the first of each kind.

    Attributes:
      without_id: NIfTI and DICOM files with no image id in folder or name.
      without_subject: Images under no subject's folder.
    """

    without_id: list[str] = field(default_factory=list)
    without_subject: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Returns a line for each kind that there is."""
        said = []
        if self.without_id:
            rule = counted(len(self.without_id), "scan file is", "scan files are")
            said.append(
                f"{rule} left out: neither folder nor name has an "
                f"image id (looked for {LAYOUT}); first: {self.without_id[0]}"
            )
        if self.without_subject:
            rule = counted(len(self.without_subject), "image is", "images are")
            said.append(
                f"{rule} left out: neither folder nor name has a "
                f"subject's id; first: {self.without_subject[0]}"
            )
        return said


@dataclass(frozen=True)
class _Image:
    """One image of the tree: its id, where it lies, and its file names (sorted)."""

    image_id: str
    folder: str
    names: tuple[str, ...]


def scan_tree(
    root: Path,
    subject_of: Callable[[str], str | None],
    problems: list[Problem],
    strays: Strays | None = None,
) -> pd.DataFrame:
    """Returns every image of a download tree.

    Args:
      root: The folder.
      subject_of: The subject id that a folder's name stands for, or None.
      problems: Images with several NIfTI files, files that lie outside ``root`` by a link, names
        that contradict their folder, and images under several subjects are added to it.
      strays: What cannot be told is added to it.

    Returns:
      ``subject_id``, ``image_id``, ``description``, ``date``, ``field`` (of a folder named like
      ``3T``, else NaN), ``path`` (a NIfTI file, or the folder of a DICOM series), ``dicom``,
      ``bad_date`` (the path of a folder that looks like a date and is none, else empty).
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of images")
    inside = os.path.realpath(root)
    strays = Strays() if strays is None else strays
    rows = []
    for image in _images(root, problems, strays):
        parts = tuple(part for part in image.folder[len(str(root)) :].split(os.sep) if part)
        named = _named_subject(image, subject_of)
        of_parts = {i: of for i, part in enumerate(parts) if (of := subject_of(part))}
        # Parts of a download may lie in folders 1, 2, ..., which could be AIBL's numbers too.
        agreeing = [i for i, of in of_parts.items() if of == named]
        place = next(iter([*agreeing, *of_parts]), None)
        subject = named if place is None else of_parts[place]
        if subject is None:
            strays.without_subject.append(os.path.join(image.folder, *image.names[:1]))
            continue
        if named not in (None, subject):
            rule = f"lies in the folder of {subject} and is named as of {named}; which is right?"
            problems.append(Problem(image.folder, None, "", image.names[0], rule))
        path, dicom = _file(image, inside, problems)
        day, bad = _dated(parts, 0 if place is None else place + 1)
        strength = next((m[1] for part in parts if (m := _FIELD_FOLDER.match(part))), "")
        below = parts[place + 1 :] if place is not None else ()
        rows.append(
            {
                "subject_id": subject,
                "image_id": image.image_id,
                "description": below[0] if len(below) > 1 else _described(image),
                "date": day,
                "field": {"1.5": 1.5, "15": 1.5}.get(strength, 3.0) if strength else np.nan,
                "path": path,
                "dicom": dicom,
                "bad_date": bad,
            }
        )
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame = frame.astype({"date": "datetime64[ns]", "field": float, "dicom": bool})
    pairs = frame[["image_id", "subject_id"]].drop_duplicates()
    for number, of in pairs[pairs.duplicated("image_id", keep=False)].groupby("image_id"):
        rule = f"stands under several subjects: {', '.join(sorted(of['subject_id']))}"
        problems.append(Problem(str(root), None, "", f"I{number}", rule))
    return frame.drop_duplicates("image_id").reset_index(drop=True)


def _images(root: Path, problems: list[Problem], strays: Strays) -> Iterator[_Image]:
    """Yields the images in the order of their folders; what is hidden is none."""
    for folder, deeper, names in os.walk(root):
        deeper[:] = sorted(name for name in deeper if not name.startswith((".", "__MACOSX")))
        scans = tuple(
            sorted(
                name
                for name in names
                if not name.startswith(".") and name.lower().endswith(NIFTI + DICOM)
            )
        )
        by_id: dict[str, list[str]] = {}
        for name in scans:
            match = _IMAGE_IN_NAME.fullmatch(name)
            by_id.setdefault(match[1] if match else "", []).append(name)
        if match := _IMAGE_FOLDER.fullmatch(os.path.basename(folder)):
            deeper.clear()
            for other in sorted(set(by_id) - {"", match[1]}):
                rule = f"is named as image I{other}; which is right?"
                problems.append(Problem(folder, None, "", by_id[other][0], rule))
            yield _Image(match[1], folder, scans)
            continue
        strays.without_id += [os.path.join(folder, name) for name in by_id.pop("", [])]
        for number, of in by_id.items():
            if len(by_id) > 1 and of[0].lower().endswith(DICOM):
                rule = f"holds DICOM files of {len(by_id)} images; give each a folder I<id>"
                problems.append(Problem(folder, None, "", of[0], rule))
            yield _Image(number, folder, tuple(of))


def _named_subject(image: _Image, subject_of: Callable[[str], str | None]) -> str | None:
    match = _SUBJECT_IN_NAME.fullmatch(image.names[0]) if image.names else None
    return subject_of(match[1]) if match else None


def _described(image: _Image) -> str:
    """Returns the description in a file's name: what is between ``MR`` and ``br_raw`` or ids."""
    match = _DESCRIPTION_IN_NAME.match(image.names[0]) if image.names else None
    return match[1] if match else ""


def _dated(parts: Sequence[str], begin: int) -> tuple[pd.Timestamp, str]:
    """Returns the day of the first folder from ``begin`` on that is named by a date, or its path.

    The path is given where the name is no date. Folders above the subject may be named by the day
    of the download.
    """
    for place, part in enumerate(parts[begin:], start=begin):
        if match := _DATED.fullmatch(part):
            day = read_date(match[1], date.max)
            if isinstance(day, date) and pd.Timestamp(day) >= EARLIEST:
                return pd.Timestamp(day), ""
            return pd.NaT, os.path.join(*parts[: place + 1])
    return pd.NaT, ""


def _file(image: _Image, inside: str, problems: list[Problem]) -> tuple[str, bool]:
    nifti = [name for name in image.names if name.lower().endswith(NIFTI)]
    if len(nifti) > 1:
        rule = f"holds {len(nifti)} NIfTI files; keep one"
        problems.append(Problem(image.folder, None, "", ", ".join(nifti), rule))
    if nifti:
        path = os.path.join(image.folder, nifti[0])
        if not os.path.realpath(path).startswith(inside + os.sep):
            rule = "leaves the folder of images"
            problems.append(Problem(image.folder, None, "", nifti[0], rule))
        return path, False
    return (image.folder, True) if image.names else ("", False)
