"""AIBL's tables, as the LONI archive gives them; ``docs/aibl.md`` lists them.

Missing is -4, births are given by year (``/1931``), scans stand in one table a field strength.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import archive
from mri_jax.cohort.assemble import CohortSource, decimal_year
from mri_jax.cohort.dates import AUTO, MONTH_FIRST, birth_years
from mri_jax.cohort.exports import find_table, not_used
from mri_jax.cohort.identity import (
    aibl_id,
    code_of_month,
    month_of_visit,
    months_of_visits,
    person,
)
from mri_jax.cohort.joining import refuse_strangers, whole_numbers
from mri_jax.cohort.reading import as_text, is_missing
from mri_jax.cohort.sheets import Reading, Sheet
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, refuse

CODES = {
    "1": "CN", "2": "MCI", "3": "AD", "CN": "CN", "NL": "CN", "HC": "CN", "MCI": "MCI",
    "AD": "AD", "Dementia": "AD",
}  # fmt: skip
SEX = {"1": "M", "2": "F", "Male": "M", "Female": "F", "M": "M", "F": "F"}
LAST_BIRTH = 2000
COVARIATES = ("mmse", "cdr", "apoe4")
NAMES = (
    "pdxconv", "neurobat", "ptdemog", "mrimeta", "mri3meta", "mmse", "cdr", "apoeres",
)  # fmt: skip
KEY = ["RID", "VISCODE"]
NAME = "AIBL"
# The numbers of the subjects of a table, and its name for messages.
Keys = tuple[pd.Series, str]


def read(tables: Path, images: Path, reading: Reading) -> CohortSource:
    """Read a folder of AIBL's tables and a folder or table of images.

    Args:
      tables: The folder with ``aibl_pdxconv_*.csv`` and the others.
      images: A download tree, the search CSV beside one, or a BIDS tree.
      reading: How; dates that do not tell their order are month-first, as the archive writes them.

    Returns:
      Visits and images.

    Raises:
      UserError: A file or column is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    how = replace(reading, order=MONTH_FIRST if reading.order == AUTO else reading.order)
    scans = _scan_tables(tables, how)
    visits = _visits(tables, scans, how)
    found, notes = _images(images, scans, how)
    numbers = (visits["subject_id"].rename("subject"), f"{tables} (aibl_pdxconv)")
    refuse_strangers(*numbers, found["subject_id"].rename("subject"), str(images), how.problems)
    refuse(how.problems)
    used = [path for name in NAMES if (path := _file(tables, name, needed=False))]
    notes += not_used(tables, used)
    return CohortSource(visits, found, COVARIATES, tuple(notes))


def _file(folder: Path, name: str, needed: bool = True) -> Path | None:
    """Returns the file ``aibl_NAME_*.csv``."""
    return find_table(folder, rf"aibl_{name}(?:[_ (.-].*)?", f"aibl_{name}_*.csv", "aibl", needed)


def _table(
    path: Path,
    columns: list[str],
    how: Reading,
    key: list[str],
    optional: tuple[str, ...] = (),
) -> Sheet:
    """Returns some columns of a table, one row a key, with RID and VISCODE spelt alike."""
    sheet = how.sheet(path, [name for name in columns if name not in optional], optional)
    rid = whole_numbers(sheet.rows["RID"], str(path), how.problems)
    sheet.wrong("RID", is_missing(sheet.rows["RID"]), "is missing")
    rows = sheet.rows.assign(RID=rid)[rid != ""]
    if "VISCODE" in columns:
        codes = {text: _plain_code(text) for text in rows["VISCODE"].unique()}
        rows["VISCODE"] = rows["VISCODE"].map(codes)
    return Sheet(path, rows, how).once(*key)


def _plain_code(text: str) -> str:
    """Returns ``bl`` or ``m18`` for a visit code in any spelling (``m00``, ``18 mo``, ``Base``)."""
    plain = text.strip().strip("\"'").lower()
    return code_of_month(month_of_visit(plain)) or plain


def _visits(tables: Path, scans: pd.DataFrame, how: Reading) -> pd.DataFrame:
    path = _file(tables, "pdxconv")
    assert path is not None
    states = _table(path, [*KEY, "DXCURREN"], how, KEY).filled()
    visits = states.rows[KEY].assign(diagnosis=states.codes("DXCURREN", CODES, user=True))
    here = (visits["RID"], str(path))
    refuse_strangers(*here, scans["RID"], f"{tables} (aibl_mrimeta, aibl_mri3meta)", how.problems)
    visits["date"] = _dates(visits, here, tables, scans, how)
    for name, column, ours, high in (
        ("mmse", "MMSCORE", "mmse", 30.0),
        ("cdr", "CDGLOBAL", "cdr", 3.0),
    ):
        path = _file(tables, name, needed=False)
        visits[ours] = _score(visits, here, (path, column), high, how)
    visits = visits.join(_people(here, tables, how), on="RID")
    when = visits["date"]
    # Only the year of birth is given; the middle of it is at most half a year wrong.
    visits["born"] = visits["born"] + 0.5
    age = decimal_year(when) - visits["born"]
    code = visits["VISCODE"]
    return visits.assign(
        subject_id=[aibl_id(rid) for rid in visits["RID"]],
        cohort=NAME,
        origin=NAME,
        code=code,
        session="",
        month=months_of_visits(code),
        group="",
        age=age,
        sex=as_text(visits["sex"]),
        baseline_rank=code.map({"bl": 0.0}),
    ).drop(columns=KEY)


def _dates(
    visits: pd.DataFrame,
    here: Keys,
    tables: Path,
    scans: pd.DataFrame,
    how: Reading,
) -> pd.Series:
    """Examination dates: of the neuropsychology, where missing of a scan of the same visit, else
    of the CDR or MMSE."""
    dated = [scans.dropna(subset="date").sort_values("date").drop_duplicates(KEY)]
    for name in ("neurobat", "cdr", "mmse"):
        path = _file(tables, name, needed=name == "neurobat")
        if path is not None:
            optional = () if name == "neurobat" else ("EXAMDATE",)
            sheet = _table(path, [*KEY, "EXAMDATE"], how, KEY, optional)
            refuse_strangers(*here, sheet.rows["RID"], str(path), how.problems)
            dated.append(sheet.rows.assign(date=sheet.dates("EXAMDATE")))
    scanned, tested, *others = dated
    found = pd.Series(pd.NaT, index=visits.index, dtype="datetime64[ns]")
    for rows in (tested, scanned, *others):
        there = visits[KEY].merge(rows[[*KEY, "date"]], on=KEY, how="left")["date"]
        found = found.fillna(there.set_axis(visits.index))
    return found


def _score(
    visits: pd.DataFrame,
    here: Keys,
    place: tuple[Path | None, str],
    high: float,
    how: Reading,
) -> pd.Series:
    """Returns a score of every visit, up to ``high``, from a table, if there is one, and column."""
    path, column = place
    if path is None:
        return pd.Series(np.nan, index=visits.index)
    sheet = _table(path, [*KEY, column], how, KEY)
    refuse_strangers(*here, sheet.rows["RID"], str(path), how.problems)
    rows = sheet.rows.assign(score=sheet.numbers(column, 0, high))
    return (
        visits[KEY].merge(rows[[*KEY, "score"]], on=KEY, how="left")["score"].set_axis(visits.index)
    )


def _people(here: Keys, tables: Path, how: Reading) -> pd.DataFrame:
    """Returns ``sex``, ``born`` (year) and ``apoe4`` (number of alleles) by RID."""
    path = _file(tables, "ptdemog")
    assert path is not None
    wanted = ["RID", "PTDOB", "PTGENDER"]
    problems = how.problems
    sheet = _table(path, wanted, how, wanted)
    refuse_strangers(*here, sheet.rows["RID"], str(path), problems)
    people = pd.DataFrame(
        {
            "RID": sheet.rows["RID"],
            "sex": sheet.codes("PTGENDER", SEX).replace("", None),
            "born": birth_years(sheet.rows["PTDOB"], str(path), problems, "PTDOB", LAST_BIRTH),
        }
    )
    clash = people.groupby("RID")[["sex", "born"]].nunique().gt(1).any(axis=1)
    for rid in clash.index[clash]:
        problems.append(Problem(str(path), None, "RID", rid, "has rows that disagree"))
    people = people.groupby("RID").first()
    path = _file(tables, "apoeres", needed=False)
    if path is None:
        return people.assign(apoe4=np.nan)
    genes = _table(path, ["RID", "APGEN1", "APGEN2"], how, ["RID"]).rows
    refuse_strangers(*here, genes["RID"], str(path), problems)
    alleles = pd.DataFrame(
        {name: whole_numbers(genes[name], str(path), problems) for name in ("APGEN1", "APGEN2")}
    )
    known = (alleles != "").all(axis=1)
    count = (alleles == "4").sum(axis=1).astype(float).where(known)
    return people.join(count.set_axis(genes["RID"]).rename("apoe4"))


def _scan_tables(tables: Path, how: Reading) -> pd.DataFrame:
    """Returns RID, VISCODE, date and field of ``mrimeta`` (1.5 T) and ``mri3meta`` (3 T)."""
    frames = []
    for name, field in (("mrimeta", 1.5), ("mri3meta", 3.0)):
        path = _file(tables, name, needed=False)
        if path is None:
            continue
        sheet = _table(path, [*KEY, "EXAMDATE"], how, [*KEY, "EXAMDATE"])
        frames.append(sheet.rows[KEY].assign(date=sheet.dates("EXAMDATE"), field=field))
    if not frames:
        raise UserError(f"{tables}: has neither aibl_mrimeta_*.csv nor aibl_mri3meta_*.csv")
    return pd.concat(frames, ignore_index=True)


def _images(images: Path, scans: pd.DataFrame, how: Reading) -> tuple[pd.DataFrame, list[str]]:
    reading = archive.ImageReading(subject_of, how.today, visit_of, how.order, how.missing)
    found, notes = archive.find_images(images, None, reading, how.problems)
    if found["level"].eq("bids").all():
        return found, notes
    found = _matched(found, scans)
    unknown = int((found["t1"] & found["field"].isna()).sum())
    if unknown:
        undated = counted(unknown, "T1w image")
        notes.append(f"field strength unknown for {undated}: the date is in no scan table")
    return found, notes


def subject_of(text: str) -> str | None:
    """Returns the subject id in a name or cell: AIBL's number alone or as ``AIBL_11``; or None."""
    text = text.strip().strip("\"'")
    if re.fullmatch(r"\d+(?:\.0+)?", text, re.ASCII):
        return aibl_id(text.split(".")[0])
    family, number = person(text)
    return aibl_id(number) if family == NAME else None


def visit_of(text: str) -> str:
    """Returns the code of a search table's visit, empty where it says no month.

    Names are ``bl``, ``18 mo``, ``18 Month follow-up``, or numbers from 1, 18 months apart.
    """
    if re.fullmatch(r"[1-9]", text, re.ASCII):
        return code_of_month(18.0 * (int(text) - 1))
    return code_of_month(month_of_visit(re.sub(r"(?i)\s+follow-?\s?up$", "", text)))


def _matched(found: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Visit and field strength of each image, from the scan tables by date, else by visit."""
    scans = scans.assign(subject_id=[aibl_id(rid) for rid in scans["RID"]], visit=scans["VISCODE"])
    dated = scans.dropna(subset="date")
    by_date = _said(found, dated, ["subject_id", "date"])
    visit = as_text(found["visit"].where(found["visit"] != "", by_date["visit_said"]))
    found = found.assign(visit=visit, field=found["field"].fillna(by_date["field_said"]))
    by_visit = _said(found, scans, ["subject_id", "visit"])
    return found.assign(field=found["field"].fillna(by_visit["field_said"]))


def _said(found: pd.DataFrame, scans: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Returns what the scan tables say of each image by a key; nothing where they disagree."""
    groups = scans.groupby(key)
    one = groups[["field", "visit"] if "visit" not in key else ["field"]].first()
    one = one.mask(groups[list(one.columns)].nunique() > 1)
    return (
        found[key]
        .merge(one.add_suffix("_said"), left_on=key, right_index=True, how="left")
        .set_axis(found.index)
    )
