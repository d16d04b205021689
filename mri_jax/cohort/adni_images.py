"""ADNI's images: what the archive's tables say of them, and how its raters graded them."""

import re
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import archive
from mri_jax.cohort.adni_people import subject_of
from mri_jax.cohort.adni_visits import image_visit
from mri_jax.cohort.dates import AUTO
from mri_jax.cohort.exports import find_export, tables_of
from mri_jax.cohort.images import UNUSABLE
from mri_jax.cohort.reading import read_rows, to_numbers
from mri_jax.problems import Problem, counted

# Of ADNI-GO and -2, and of ADNI-3; the names of columns differ in case only.
RATINGS = re.compile(r"MAYOADIRL_MRI_(?:IMAGEQC|QUALITY_ADNI3)", re.IGNORECASE)


def read(
    tables: Path,
    images: Path,
    today: date,
    problems: list[Problem],
    dates: str = AUTO,
    missing: frozenset[str] = frozenset(),
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the images of a download (`archive.find_images`) with the raters' marks, and notes.

    Args:
      tables: The folder of study data; image tables and ratings in it are used.
      images: The tree, or the table.
      today: No scan is later.
      problems: Faulty rows and files are added to it.
      dates: How 3/1/2006 is read where no date of a table tells.
      missing: Further words for missing.
    """
    how = archive.ImageReading(subject_of, today, image_visit, dates, missing)
    found, notes = archive.find_images(images, tables, how, problems)
    if not found["level"].eq("bids").all():
        unknown = int((found["t1"] & found["field"].isna()).sum())
        if unknown:
            notes.append(
                f"field strength unknown for {counted(unknown, 'T1w image')}, kept all the same; "
                "MPRAGEMETA.csv has it"
            )
        found = _with_quality(found, tables, problems, missing)
    return found, notes


def tables_used(tables: Path) -> list[Path]:
    """Returns the tables of a folder that list images or grade them."""
    graded = find_export(tables, "MRIQUALITY")
    return [*archive.image_tables(tables), *_ratings(tables), *([graded] if graded else [])]


def _ratings(tables: Path) -> list[Path]:
    return [path for path in tables_of(tables) if RATINGS.search(path.name)]


def _with_quality(
    found: pd.DataFrame, tables: Path, problems: list[Problem], missing: frozenset[str]
) -> pd.DataFrame:
    """Returns the raters' marks by image (MAYOADIRL) and by series (MRIQUALITY)."""
    quality = pd.Series(np.nan, index=found.index)
    selected = pd.Series(False, index=found.index)
    for path in _ratings(tables):
        names = ("loni_image", "series_selected", "series_quality")
        rows = read_rows(path, {n: (n,) for n in names}, missing=missing)
        rows = rows.assign(image=rows["loni_image"].str.extract(r"(\d+)", expand=False))
        rows = rows.drop_duplicates("image", keep="last").dropna(subset="image")
        grades = to_numbers(rows["series_quality"], str(path), problems, -1, 4)
        quality = quality.fillna(found["image_id"].map(grades.set_axis(rows["image"])))
        chosen = rows.loc[rows["series_selected"].isin(["1", "1.0"]), "image"]
        selected |= found["image_id"].isin(set(chosen))
    rated = find_export(tables, "MRIQUALITY")
    if rated is not None:
        rows = read_rows(rated, {n: (n,) for n in ("LONIUID", "PASS")}, missing=missing)
        series = rows["LONIUID"].str.extract(r"(\d+)", expand=False)
        failed = set(series[rows["PASS"].isin(["0", "0.0"])].dropna())
        quality = quality.mask(found["series"].isin(failed) & (found["series"] != ""), UNUSABLE)
    return found.assign(quality=quality, selected=selected)
