"""AIBL's tables, as the LONI archive gives them; ``docs/aibl.md`` lists them.

Missing is -4, births are given by year (``/1931``), scans stand in one table a field strength.
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import archive
from mri_jax.cohort.assemble import CohortSource, decimal_year
from mri_jax.cohort.dates import AUTO, MONTH_FIRST, birth_years, to_dates
from mri_jax.cohort.exports import not_used, nothing_found, one_of, tables_of
from mri_jax.cohort.identity import (
    aibl_id,
    code_of_month,
    month_of_visit,
    months_of_visits,
    person,
)
from mri_jax.cohort.joining import refuse_strangers, whole_numbers
from mri_jax.cohort.reading import (
    as_text,
    disagreeing_rows,
    formula_cells,
    is_missing,
    read_rows,
    to_codes,
    to_numbers,
)
from mri_jax.errors import UserError
from mri_jax.problems import Problem, add_rows, counted, refuse

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


@dataclass(frozen=True)
class _Reading:
    """How every table is read, and where its faults are collected."""

    today: date
    order: str
    missing: frozenset[str]
    problems: list[Problem]

    def dates(self, values: pd.Series, path: Path) -> pd.Series:
        """Returns `to_dates` of a column."""
        return to_dates(values, str(path), self.today, self.problems, self.order)


def read(
    tables: Path,
    images: Path,
    today: date,
    codes: tuple[tuple[str, str], ...] = (),
    dates: str = AUTO,
    missing: frozenset[str] = frozenset(),
) -> CohortSource:
    """Read a folder of AIBL's tables and a folder or table of images.

    Args:
      tables: The folder with ``aibl_pdxconv_*.csv`` and the others.
      images: A download tree, the search CSV beside one, or a BIDS tree.
      today: No date may be later.
      codes: Further diagnosis codes and what they mean (``CN``, ``MCI``, ``AD`` or ``missing``).
      dates: How 3/1/2006 is read where no date of a table tells: ``month-first`` as the archive
        writes it (``auto``), or ``day-first``.
      missing: Further words for missing, in small letters.

    Returns:
      Visits and images.

    Raises:
      UserError: A file or column is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    problems: list[Problem] = []
    how = _Reading(today, MONTH_FIRST if dates == AUTO else dates, missing, problems)
    scans = _scan_tables(tables, how)
    visits = _visits(tables, scans, dict(codes), how)
    found, notes = _images(images, scans, how)
    numbers = (visits["subject_id"].rename("subject"), f"{tables} (aibl_pdxconv)")
    refuse_strangers(*numbers, found["subject_id"].rename("subject"), str(images), problems)
    refuse(problems)
    used = [path for name in NAMES if (path := find_table(tables, name, needed=False))]
    notes += not_used(tables, used)
    return CohortSource(visits, found, COVARIATES, tuple(notes))


def find_table(folder: Path, name: str, needed: bool = True) -> Path | None:
    """Returns the file ``aibl_NAME_*.csv``.

    Raises:
      UserError: There are several that differ, or none though it is needed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of tables")
    pattern = re.compile(rf"(?:All_Subjects_)?aibl_{name}(?:[_ (.-].*)?\.csv", re.IGNORECASE)
    found = [path for path in tables_of(folder) if pattern.fullmatch(path.name)]
    if not found and needed:
        raise nothing_found(folder, f"aibl_{name}_*.csv", ("aibl",))
    return one_of(found) if found else None


def _table(
    path: Path,
    columns: list[str],
    how: _Reading,
    key: list[str],
    optional: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Returns some columns of a table, one row a key, with RID and VISCODE spelt alike."""
    rows = read_rows(path, {name: (name,) for name in columns}, optional, how.missing)
    how.problems.extend(formula_cells(rows, str(path)))
    rid = whole_numbers(rows["RID"], str(path), how.problems)
    add_rows(how.problems, str(path), "RID", rows["RID"][is_missing(rows["RID"])], "is missing")
    rows = rows.assign(RID=rid)[rid != ""]
    if "VISCODE" in columns:
        codes = {text: _plain_code(text) for text in rows["VISCODE"].unique()}
        rows["VISCODE"] = rows["VISCODE"].map(codes)
    return disagreeing_rows(rows, key, str(path), how.problems)


def _plain_code(text: str) -> str:
    """Returns ``bl`` or ``m18`` for a visit code in any spelling (``m00``, ``18 mo``, ``Base``)."""
    plain = text.strip().strip("\"'").lower()
    return code_of_month(month_of_visit(plain)) or plain


def _visits(
    tables: Path,
    scans: pd.DataFrame,
    codes: dict[str, str],
    how: _Reading,
) -> pd.DataFrame:
    path = find_table(tables, "pdxconv")
    assert path is not None
    rows = _table(path, [*KEY, "DXCURREN"], how, KEY)
    if rows.empty:
        refuse(how.problems)
        raise UserError(f"{path}: has no rows below the names of its columns")
    dx = to_codes(rows["DXCURREN"], {**CODES, **codes}, str(path), how.problems)
    visits = rows[KEY].assign(diagnosis=dx.replace("missing", ""))
    here = (visits["RID"], str(path))
    refuse_strangers(*here, scans["RID"], f"{tables} (aibl_mrimeta, aibl_mri3meta)", how.problems)
    visits["date"] = _dates(visits, here, tables, scans, how)
    for name, column, ours, high in (
        ("mmse", "MMSCORE", "mmse", 30.0),
        ("cdr", "CDGLOBAL", "cdr", 3.0),
    ):
        path = find_table(tables, name, needed=False)
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
    how: _Reading,
) -> pd.Series:
    """Examination dates: of the neuropsychology, where missing of a scan of the same visit, else
    of the CDR or MMSE."""
    dated = [scans.dropna(subset="date").sort_values("date").drop_duplicates(KEY)]
    for name in ("neurobat", "cdr", "mmse"):
        path = find_table(tables, name, needed=name == "neurobat")
        if path is not None:
            optional = () if name == "neurobat" else ("EXAMDATE",)
            rows = _table(path, [*KEY, "EXAMDATE"], how, KEY, optional)
            refuse_strangers(*here, rows["RID"], str(path), how.problems)
            dated.append(rows.assign(date=how.dates(rows["EXAMDATE"], path)))
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
    how: _Reading,
) -> pd.Series:
    """Returns a score of every visit, up to ``high``, from a table, if there is one, and column."""
    path, column = place
    if path is None:
        return pd.Series(np.nan, index=visits.index)
    rows = _table(path, [*KEY, column], how, KEY)
    refuse_strangers(*here, rows["RID"], str(path), how.problems)
    rows = rows.assign(score=to_numbers(rows[column], str(path), how.problems, 0, high))
    return (
        visits[KEY].merge(rows[[*KEY, "score"]], on=KEY, how="left")["score"].set_axis(visits.index)
    )


def _people(here: Keys, tables: Path, how: _Reading) -> pd.DataFrame:
    """Returns ``sex``, ``born`` (year) and ``apoe4`` (number of alleles) by RID."""
    path = find_table(tables, "ptdemog")
    assert path is not None
    wanted = ["RID", "PTDOB", "PTGENDER"]
    problems = how.problems
    rows = _table(path, wanted, how, wanted)
    refuse_strangers(*here, rows["RID"], str(path), problems)
    people = pd.DataFrame(
        {
            "RID": rows["RID"],
            "sex": to_codes(rows["PTGENDER"], SEX, str(path), problems).replace("", None),
            "born": birth_years(rows["PTDOB"], str(path), problems, "PTDOB", LAST_BIRTH),
        }
    )
    clash = people.groupby("RID")[["sex", "born"]].nunique().gt(1).any(axis=1)
    for rid in clash.index[clash]:
        problems.append(Problem(str(path), None, "RID", rid, "has rows that disagree"))
    people = people.groupby("RID").first()
    path = find_table(tables, "apoeres", needed=False)
    if path is None:
        return people.assign(apoe4=np.nan)
    genes = _table(path, ["RID", "APGEN1", "APGEN2"], how, ["RID"])
    refuse_strangers(*here, genes["RID"], str(path), problems)
    alleles = pd.DataFrame(
        {name: whole_numbers(genes[name], str(path), problems) for name in ("APGEN1", "APGEN2")}
    )
    known = (alleles != "").all(axis=1)
    count = (alleles == "4").sum(axis=1).astype(float).where(known)
    return people.join(count.set_axis(genes["RID"]).rename("apoe4"))


def _scan_tables(tables: Path, how: _Reading) -> pd.DataFrame:
    """Returns RID, VISCODE, date and field of ``mrimeta`` (1.5 T) and ``mri3meta`` (3 T)."""
    frames = []
    for name, field in (("mrimeta", 1.5), ("mri3meta", 3.0)):
        path = find_table(tables, name, needed=False)
        if path is None:
            continue
        rows = _table(path, [*KEY, "EXAMDATE"], how, [*KEY, "EXAMDATE"])
        frames.append(rows[KEY].assign(date=how.dates(rows["EXAMDATE"], path), field=field))
    if not frames:
        raise UserError(f"{tables}: has neither aibl_mrimeta_*.csv nor aibl_mri3meta_*.csv")
    return pd.concat(frames, ignore_index=True)


def _images(images: Path, scans: pd.DataFrame, how: _Reading) -> tuple[pd.DataFrame, list[str]]:
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
