"""The image archive: a download tree (folders ``I<id>``) and the tables of its images."""

import os
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import bids
from mri_jax.cohort import images as im
from mri_jax.cohort.dates import AUTO, MONTH_FIRST, to_dates
from mri_jax.cohort.identity import code_of_month, month_of_visit
from mri_jax.cohort.problems import Problem
from mri_jax.cohort.reading import as_text, formula_cells, header_of, read_rows
from mri_jax.errors import UserError

NIFTI = (".nii", ".nii.gz")
_IMAGE_FOLDER = re.compile(r"^I(\d+)$")
_FIELD_FOLDER = re.compile(r"^(1\.5|15|3|3\.0)\s?_?T$", re.IGNORECASE)
_DATED = re.compile(r"^(\d{4})-(\d{2})-(\d{2})(?:_.*)?$")
_ALIASES = {
    "image_id": ("Image Data ID", "Image ID", "image_id", "ImageUID", "loni_image"),
    "subject": ("Subject", "Subject ID", "subject_id", "SubjectID", "PTID"),
    "date": ("Acq Date", "Study Date", "image_date", "ScanDate"),
    "kind": ("Type", "image_type", "Orig/Proc"),
    "description": ("Description", "image_description", "Sequence"),
    "visit": ("VISCODE2", "Visit"),
    "field": ("MagStrength", "Field Strength", "Imaging Protocol"),
    "series": ("SeriesID", "Series ID"),
}
_OPTIONAL = ("kind", "visit", "field", "series")
_PROCESSED = re.compile(r"^(?:pre|post)?-?processed$", re.IGNORECASE)


def find_images(
    images: Path,
    tables: Path | None,
    subject_of: Callable[[str], str | None],
    latest: date,
    problems: list[Problem],
    month_of: Callable[[str], float] = month_of_visit,
    dates: str = AUTO,
) -> tuple[pd.DataFrame, list[str]]:
    """The images of a download tree, of the search CSV beside one, or of a BIDS tree.

    Args:
      images: The tree, or the table.
      tables: A further folder in which tables of images may lie.
      subject_of: The subject id that a text stands for, or None.
      latest: No scan is later than this.
      problems: Faulty rows and files are added to it.
      month_of: Months since baseline of a visit's name.
      dates: How 3/1/2006 is read where no date of a table tells (`mri_jax.cohort.dates.CHOICES`).

    Returns:
      An images table (`mri_jax.cohort.images`), and what to tell the user.

    Raises:
      UserError: There is no such folder or table.
    """
    if not images.exists():
        raise UserError(f"{images}: no such folder or table of images")
    if images.is_dir() and bids.is_bids(images):
        found = bids.scan(images, problems)
        return found, [f"{len(found)} T1w images in the BIDS tree {images.name}"]
    root = images if images.is_dir() else images.parent
    paths = [images] if images.is_file() else image_tables(root)
    if tables is not None:
        paths += [path for path in image_tables(tables) if path not in paths]
    listed = [read_image_table(p, subject_of, latest, problems, month_of, dates) for p in paths]
    found = combine(scan_tree(root, subject_of, problems), listed)
    named = ", ".join(path.name for path in paths) or "no table"
    there = int((found["path"] != "").sum())
    return found, [f"{len(found)} images listed in {named}; files of {there} found"]


def scan_tree(
    root: Path, subject_of: Callable[[str], str | None], problems: list[Problem]
) -> pd.DataFrame:
    """Every image of a download tree ``.../SUBJECT/DESCRIPTION/DATE/I<id>/files``.

    Args:
      root: The folder.
      subject_of: The subject id that a folder's name stands for, or None.
      problems: Folders with several NIfTI files, and files that lie outside ``root`` by a link,
        are added to it.

    Returns:
      ``subject_id``, ``image_id``, ``description``, ``date``, ``field`` (of a folder named like
      ``3T``, else NaN), ``path`` (a NIfTI file, or the folder of a DICOM series), ``dicom``.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of images")
    inside = os.path.realpath(root)
    rows = []
    for folder, deeper, names in os.walk(root):
        match = _IMAGE_FOLDER.match(os.path.basename(folder))
        if match is None:
            continue
        deeper.clear()
        parts = Path(folder).relative_to(root).parts
        place = next((i for i, part in enumerate(parts) if subject_of(part)), None)
        if place is None:
            continue
        path, dicom = _files(folder, sorted(names), inside, problems)
        dated = next((m for part in parts if (m := _DATED.match(part))), None)
        field = next((m[1] for part in parts if (m := _FIELD_FOLDER.match(part))), "")
        rows.append(
            {
                "subject_id": subject_of(parts[place]),
                "image_id": match[1],
                "description": parts[place + 1] if len(parts) > place + 2 else "",
                "date": pd.Timestamp("-".join(dated.groups())) if dated else pd.NaT,
                "field": {"1.5": 1.5, "15": 1.5}.get(field, 3.0) if field else np.nan,
                "path": path,
                "dicom": dicom,
            }
        )
    columns = ["subject_id", "image_id", "description", "date", "field", "path", "dicom"]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.astype({"date": "datetime64[ns]", "field": float, "dicom": bool})
    pairs = frame[["image_id", "subject_id"]].drop_duplicates()
    for image, of in pairs[pairs.duplicated("image_id", keep=False)].groupby("image_id"):
        rule = f"stands under several subjects: {', '.join(sorted(of['subject_id']))}"
        problems.append(Problem(str(root), None, "", f"I{image}", rule))
    return frame.drop_duplicates("image_id").reset_index(drop=True)


def _files(
    folder: str, names: Sequence[str], inside: str, problems: list[Problem]
) -> tuple[str, bool]:
    nifti = [name for name in names if name.lower().endswith(NIFTI)]
    if len(nifti) > 1:
        rule = f"holds {len(nifti)} NIfTI files; keep one"
        problems.append(Problem(folder, None, "", ", ".join(nifti), rule))
    if nifti:
        path = os.path.join(folder, nifti[0])
        if not os.path.realpath(path).startswith(inside + os.sep):
            problems.append(Problem(folder, None, "", nifti[0], "leaves the folder of images"))
        return path, False
    if any(name.lower().endswith((".dcm", ".ima")) for name in names):
        return folder, True
    return "", False


def image_tables(folder: Path) -> list[Path]:
    """CSV files of a folder that list images: those with an image id, a subject and a date."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        lower = {name.strip().lower() for name in header_of(path)}
        needed = ("image_id", "subject", "date", "description")
        if all(any(a.lower() in lower for a in _ALIASES[name]) for name in needed):
            found.append(path)
    return found


def read_image_table(
    path: Path,
    subject_of: Callable[[str], str | None],
    latest: date,
    problems: list[Problem],
    month_of: Callable[[str], float] = month_of_visit,
    dates: str = AUTO,
) -> pd.DataFrame:
    """The images that a search CSV, ``All_Images_[DATE].csv`` or ``MPRAGEMETA.csv`` lists.

    Args:
      path: The table.
      subject_of: The subject id that the subject column's text stands for, or None.
      latest: No scan is later than this.
      problems: Faulty rows are added to it.
      month_of: Months since baseline of a visit's name, NaN where it says none.
      dates: How 3/1/2006 is read where no date of the table tells; the archive's own image tables
        are month-first.

    Returns:
      ``subject_id``, ``image_id``, ``date``, ``kind``, ``description``, ``visit`` (a code),
      ``field``, ``series`` (digits). Images of subjects that are none of this study are left out.
    """
    rows = read_rows(path, _ALIASES, _OPTIONAL)
    problems += formula_cells(rows, str(path))
    digits = rows["image_id"].str.extract(r"^[Ii]?(\d+)(?:\.0+)?$", expand=False)
    for row, value in rows["image_id"][digits.isna()].items():
        problems.append(Problem(str(path), int(str(row)), "image id", value, "is no image id"))
    names = {text: subject_of(text) for text in rows["subject"].unique()}
    visits = {text: code_of_month(month_of(text)) for text in rows["visit"].unique()}
    order = MONTH_FIRST if dates == AUTO else dates
    frame = pd.DataFrame(
        {
            "subject_id": rows["subject"].map(names),
            "image_id": digits,
            "date": to_dates(rows["date"], str(path), latest, problems, order),
            "kind": rows["kind"].where(rows["kind"].str.match(_PROCESSED), ""),
            "description": rows["description"],
            "visit": rows["visit"].map(visits),
            "field": rows["field"]
            .str.extract(r"(?:Field Strength=)?(\d(?:\.\d+)?)", expand=False)
            .astype(float),
            "series": as_text(rows["series"].str.extract(r"(\d+)", expand=False)),
        }
    )
    return frame[frame["subject_id"].notna() & frame["image_id"].notna()]


def combine(tree: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One images table (`mri_jax.cohort.images`) from the tree and what tables say of it.

    What an earlier table says stands; a later table, and at last the names of folders, fill what
    is missing. Quality is unrated.
    """
    columns = ["subject_id", "image_id", "date", "kind", "description", "visit", "field", "series"]
    described = tree.assign(kind="", visit="", series="", date=tree["date"])
    frames = [table[columns] for table in (*tables, described) if len(table)]
    listed = pd.concat(frames) if frames else described[columns]
    blank = listed.replace({"kind": "", "description": "", "visit": "", "series": ""}, None)
    merged = blank.groupby("image_id", sort=True).first().reset_index()
    for name in ("kind", "description", "visit", "series"):
        merged[name] = as_text(merged[name])
    merged = merged.merge(tree[["image_id", "path", "dicom"]], on="image_id", how="left")
    merged["path"] = as_text(merged["path"])
    merged["dicom"] = merged["dicom"].eq(True)
    merged["date"] = pd.to_datetime(merged["date"]).astype("datetime64[ns]")
    merged["field"] = merged["field"].astype(float)
    # ADNI-3 keeps some scans twice, "_ND" being the one without correction of distortion.
    uncorrected = merged["description"].str.contains(r"[_ ]ND$").astype(float)
    return im.describe(merged).assign(quality=np.nan, selected=False, preference=uncorrected)
