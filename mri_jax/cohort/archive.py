"""The image archive: a download tree and the tables of its images."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax import trees
from mri_jax.cohort import bids
from mri_jax.cohort import images as im
from mri_jax.cohort.dates import AUTO, MONTH_FIRST, to_dates
from mri_jax.cohort.download import LAYOUT, Strays, scan_tree
from mri_jax.cohort.exports import tables_of
from mri_jax.cohort.identity import code_of_month, month_of_visit
from mri_jax.cohort.reading import as_text, formula_cells, header_of, read_rows
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, listed

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
# Alone, or in the search's list "Slice Thickness=1.2;Field Strength=1.5".
_TESLA = re.compile(r"Field Strength=(\d(?:\.\d+)?)|^(\d(?:\.\d+)?)\s?(?:T|tesla)?$", re.IGNORECASE)
# Of the same list: Manufacturer=SIEMENS, Mfg Model=TrioTim.
_MADE_BY = {
    "manufacturer": re.compile(r"(?:^|;)Manufacturer=([^;]*)", re.IGNORECASE),
    "model": re.compile(r"(?:^|;)Mfg Model=([^;]*)", re.IGNORECASE),
}
_PROCESSED = re.compile(r"^(?:pre|post)?-?processed$", re.IGNORECASE)


def visit_of_month(text: str) -> str:
    """Returns the code of a visit that is named by its month."""
    return code_of_month(month_of_visit(text))


@dataclass(frozen=True)
class ImageReading:
    """How an archive's tables and trees of images are read.

    Attributes:
      subject_of: Returns the subject id that a text stands for, or None.
      latest: No scan is later than this.
      visit_of: Returns the code (``bl``, ``m06``) of a visit's name, empty where it says no month.
      dates: How 3/1/2006 is read where no date of a table tells (`mri_jax.cohort.dates.CHOICES`);
        the archive's own image tables are month-first.
      missing: Further words for missing.
    """

    subject_of: Callable[[str], str | None]
    latest: date
    visit_of: Callable[[str], str] = visit_of_month
    dates: str = AUTO
    missing: frozenset[str] = frozenset()


def find_images(
    images: Path, tables: Path | None, how: ImageReading, problems: list[Problem]
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the images of a download tree, of the search CSV beside one, or of a BIDS tree.

    Args:
      images: The tree, or the table.
      tables: A further folder in which tables of images may lie.
      how: How they are read.
      problems: Faulty rows and files are added to it.

    Returns:
      An images table (`mri_jax.cohort.images`), and what to tell the user.

    Raises:
      UserError: There is no such folder or table, or no image in it.
    """
    if not images.exists():
        raise UserError(f"{images}: no such folder or table of images")
    if trees.is_tree(images):
        found = bids.scan(images, problems)
        names = {text: how.subject_of(text) or text for text in found["subject_id"].unique()}
        found = found.assign(subject_id=found["subject_id"].map(names))
        return found, [f"{counted(len(found), 'T1w image')} in the BIDS tree {images.name}"]
    root = images if images.is_dir() else images.parent
    folders = [folder for folder in (root, tables) if folder is not None]
    beside = dict.fromkeys(path for folder in folders for path in image_tables(folder))
    paths = [images, *(p for p in beside if p.parent != root)] if images.is_file() else [*beside]
    listed = [read_image_table(path, how, problems) for path in paths]
    strays = Strays()
    tree = scan_tree(root, how.subject_of, problems, strays)
    notes = [note for p, t in zip(paths, listed, strict=True) for note in _of_nobody(p, t)]
    listed = [table[table["subject_id"] != ""] for table in listed]
    found = combine(tree, listed)
    if found.empty:
        said = "; ".join([*strays.notes(), *notes]) or f"looked for {LAYOUT}"
        raise UserError(f"{images}: has no image of a subject of this study: {said}")
    _compare_dates(tree, list(zip(paths, listed, strict=True)), found, str(root), problems)
    _compare_subjects([*zip(paths, listed, strict=True), (root, tree)], problems)
    named = ", ".join(path.name for path in paths) or "no table"
    there = int((found["path"] != "").sum())
    told = f"{counted(len(found), 'image')} listed in {named}; files of {there} found"
    return found, [told, *strays.notes(), *notes]


def _of_nobody(path: Path, table: pd.DataFrame) -> list[str]:
    """Returns a note on the rows of a table of images that are of nobody in the study."""
    nobody = table.loc[table["subject_id"] == "", "named"]
    if nobody.empty:
        return []
    said = listed(repr(name) for name in nobody.unique())
    rows = counted(len(nobody), f"row of {path.name} is", f"rows of {path.name} are")
    return [f"{rows} left out, of no subject of this study: {said}"]


def _compare_subjects(
    sources: Sequence[tuple[Path, pd.DataFrame]], problems: list[Problem]
) -> None:
    """Adds a problem for each image that tables, or a table and the tree, give to two people."""
    every = pd.concat(
        [frame[["image_id", "subject_id"]].assign(source=path.name) for path, frame in sources]
    ).drop_duplicates(["image_id", "subject_id"])
    for number, of in every[every.duplicated("image_id", keep=False)].groupby("image_id"):
        if of["source"].nunique() > 1:
            said = ", ".join(f"{r.subject_id} ({r.source})" for r in of.itertuples())
            rule = f"is of several subjects: {said}"
            problems.append(Problem(str(sources[-1][0]), None, "", f"I{number}", rule))


def _compare_dates(
    tree: pd.DataFrame,
    listed: Sequence[tuple[Path, pd.DataFrame]],
    found: pd.DataFrame,
    root: str,
    problems: list[Problem],
) -> None:
    """Folders named by no date are problems, unless a table dates their image; so is a table whose
    dates are those of the folders with day and month exchanged."""
    undated = set(found.loc[found["date"].isna(), "image_id"])
    for row in tree[(tree["bad_date"] != "") & tree["image_id"].isin(undated)].itertuples():
        rule = (
            f"is no date (folder of I{row.image_id}): rename the folder, or add the search CSV of "
            "the download, whose Acq Date goes first"
        )
        problems.append(Problem(root, None, "", str(row.bad_date), rule))
    for path, table in listed:
        both = table.merge(tree[["image_id", "date"]], on="image_id", suffixes=("", "_of_folder"))
        here, there = both["date"], both["date_of_folder"]
        turned = (
            (here != there)
            & (here.dt.year == there.dt.year)
            & (here.dt.month == there.dt.day)
            & (here.dt.day == there.dt.month)
        )
        if turned.any():
            row = both[turned].iloc[0]
            so = counted(int(turned.sum()), "image")
            rule = (
                f"is dated {row['date'].date()} by the table and {row['date_of_folder'].date()} by "
                f"its folder ({so} so): day and month exchanged? give --dates"
            )
            problems.append(Problem(str(path), None, "", f"I{row['image_id']}", rule))


def image_tables(folder: Path) -> list[Path]:
    """Returns the CSV files of a folder that list images: with an image id, a subject and a date.

    What cannot be read is none of them.
    """
    found = []
    for path in tables_of(folder):
        try:
            lower = {name.strip().lower() for name in header_of(path)}
        except UserError:
            continue
        needed = ("image_id", "subject", "date", "description")
        if all(any(a.lower() in lower for a in _ALIASES[name]) for name in needed):
            found.append(path)
    return found


def read_image_table(path: Path, how: ImageReading, problems: list[Problem]) -> pd.DataFrame:
    """Returns the images of a search CSV, ``All_Images_[DATE].csv`` or ``MPRAGEMETA.csv``.

    Args:
      path: The table.
      how: How it is read.
      problems: Faulty rows are added to it.

    Returns:
      ``subject_id`` (empty for nobody of this study), ``named`` (as the table names the subject),
      ``image_id``, ``date``, ``kind``, ``description``, ``visit`` (a code), ``field``, ``series``
      (digits), ``manufacturer``, ``model``.
    """
    rows = read_rows(path, _ALIASES, _OPTIONAL, how.missing)
    problems += formula_cells(rows, str(path))
    digits = rows["image_id"].str.extract(r"^[Ii]?(\d+)(?:\.0+)?$", expand=False)
    for row, value in rows["image_id"][digits.isna()].items():
        problems.append(Problem(str(path), int(str(row)), "image id", value, "is no image id"))
    names = {text: how.subject_of(text) or "" for text in rows["subject"].unique()}
    visits = {text: how.visit_of(text) for text in rows["visit"].unique()}
    order = MONTH_FIRST if how.dates == AUTO else how.dates
    frame = pd.DataFrame(
        {
            "subject_id": rows["subject"].map(names),
            "named": rows["subject"],
            "image_id": digits,
            "date": to_dates(rows["date"], str(path), how.latest, problems, order),
            "kind": rows["kind"].where(rows["kind"].str.match(_PROCESSED), ""),
            "description": rows["description"],
            "visit": rows["visit"].map(visits),
            "field": rows["field"].str.extract(_TESLA).bfill(axis=1)[0].astype(float),
            "series": as_text(rows["series"].str.extract(r"(\d+)", expand=False)),
            **{
                name: as_text(rows["field"].str.extract(told, expand=False)).str.strip()
                for name, told in _MADE_BY.items()
            },
        }
    )
    return frame[frame["image_id"].notna()]


def combine(tree: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns one images table (`mri_jax.cohort.images`) from the tree and what tables say of it.

    What an earlier table says stands; a later table, and at last the names of folders, fill what
    is missing. Quality is unrated.
    """
    text = ["kind", "description", "visit", "series", *im.MADE_BY]
    columns = ["subject_id", "image_id", "date", "field", *text]
    described = tree.assign(**{name: "" for name in text if name not in tree})
    frames = [table[columns] for table in (*tables, described) if len(table)]
    listed = pd.concat(frames) if frames else described[columns]
    blank = listed.replace(dict.fromkeys(text, ""), None)
    merged = blank.groupby("image_id", sort=True).first().reset_index()
    for name in text:
        merged[name] = as_text(merged[name])
    merged = merged.merge(tree[["image_id", "path", "dicom"]], on="image_id", how="left")
    merged["path"] = as_text(merged["path"])
    merged["dicom"] = merged["dicom"].eq(True)
    merged["date"] = pd.to_datetime(merged["date"]).astype("datetime64[ns]")
    merged["field"] = merged["field"].astype(float)
    # ADNI-3 keeps some scans twice, "_ND" being the one without correction of distortion.
    uncorrected = merged["description"].str.contains(r"[_ ]ND$").astype(float)
    return im.describe(merged).assign(
        quality=np.nan, selected=False, preference=uncorrected, instead=""
    )
