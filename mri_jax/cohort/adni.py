"""ADNI's tables: ADNIMERGE, or DXSUM where there is none, in every phase's dialect.

Columns and menu paths stand in ``docs/adni.md``.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import adni_images
from mri_jax.cohort.assemble import DAYS_A_YEAR, Source, decimal_year
from mri_jax.cohort.dates import CHOICES, order_of, to_dates
from mri_jax.cohort.identity import adni_id, months_of_visits, person
from mri_jax.cohort.problems import Problem, refuse
from mri_jax.cohort.reading import (
    as_text,
    disagreeing_rows,
    find_dated_table,
    formula_cells,
    read_rows,
    to_codes,
    to_numbers,
)
from mri_jax.errors import UserError

PHASES = ("ADNI1", "ADNIGO", "ADNI2", "ADNI3", "ADNI4")
FIELD = {"ADNI1": 1.5, "ADNIGO": 3.0, "ADNI2": 3.0, "ADNI3": 3.0, "ADNI4": 3.0}
# The state after a transition ("MCI to Dementia") is the diagnosis at that visit.
DX = {
    "CN": "CN",
    "NL": "CN",
    "MCI": "MCI",
    "Dementia": "AD",
    "AD": "AD",
    "NL to MCI": "MCI",
    "MCI to Dementia": "AD",
    "NL to Dementia": "AD",
    "MCI to NL": "CN",
    "Dementia to MCI": "MCI",
    "Dementia to NL": "CN",
}
GROUPS = {name: name for name in ("CN", "SMC", "EMCI", "LMCI", "MCI", "AD")}
STATED = {"CN": "CN", "SMC": "CN", "EMCI": "MCI", "LMCI": "MCI", "MCI": "MCI", "AD": "AD"}
CURRENT = {"1": "CN", "2": "MCI", "3": "AD"}
CHANGE = {
    "1": "CN", "2": "MCI", "3": "AD", "4": "MCI", "5": "AD", "6": "AD", "7": "CN", "8": "MCI",
    "9": "CN",
}  # fmt: skip
SEX = {"Male": "M", "Female": "F", "1": "M", "2": "F"}
BASELINE_RANK = {"bl": 0.0, "sc": 1.0, "scmri": 2.0}
NO_VISIT = ("nv",)
NEEDED = (
    "RID",
    "PTID",
    "COLPROT",
    "ORIGPROT",
    "VISCODE",
    "EXAMDATE",
    "DX_bl",
    "DX",
    "AGE",
    "PTGENDER",
    "PTEDUCAT",
)
WELCOME = ("EXAMDATE_bl", "MMSE", "CDRSB", "APOE4")
COVARIATES = ("education", "mmse", "cdrsb", "apoe4")


@dataclass(frozen=True)
class AdniOptions:
    """How ADNI's tables are read.

    Attributes:
      diagnosis: ``visit`` (DX at the baseline visit) or ``screening`` (DX_bl).
      adnigo: ADNI-GO's enrollees: ``own`` cohort, part of ``ADNI2``, or ``exclude``.
      source: ``auto`` (ADNIMERGE if there is one, else DXSUM), ``adnimerge`` or ``dxsum``.
      codes: Further diagnosis codes and what they mean (``CN``, ``MCI``, ``AD`` or ``missing``).
      dates: How 3/1/2006 is read where the dates of a table do not tell: ``month-first``,
        ``day-first``, or ``auto``: as the archive writes image tables, and refused elsewhere.
    """

    diagnosis: str = "visit"
    adnigo: str = "own"
    source: str = "auto"
    codes: tuple[tuple[str, str], ...] = ()
    dates: str = "auto"

    def __post_init__(self):
        for name, allowed in (
            ("diagnosis", ("visit", "screening")),
            ("adnigo", ("own", "ADNI2", "exclude")),
            ("source", ("auto", "adnimerge", "dxsum")),
            ("dates", CHOICES),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"adni.{name}: {getattr(self, name)!r} is not one of {allowed}")


def read(tables: Path, images: Path, options: AdniOptions, today: date) -> Source:
    """Read a folder of ADNI's tables and a folder or table of images.

    Args:
      tables: The folder of study data.
      images: A download tree, the search CSV beside one, or a BIDS tree.
      options: How.
      today: No date may be later.

    Returns:
      Visits and images.

    Raises:
      UserError: A file or column is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    problems: list[Problem] = []
    visits, notes = _visits(tables, options, today, problems)
    found, more = adni_images.read(tables, images, today, problems, options.dates)
    refuse(problems)
    visits = visits[~visits["code"].isin(NO_VISIT)]
    if options.adnigo == "ADNI2":
        visits[["cohort", "origin"]] = visits[["cohort", "origin"]].replace("ADNIGO", "ADNI2")
    elif options.adnigo == "exclude":
        visits = visits[visits["origin"] != "ADNIGO"]
        visits = visits[visits["cohort"] != "ADNIGO"]
    # Images name a subject as the archive does; the person is the RID.
    known = {person(subject): subject for subject in visits["subject_id"].unique()}
    found = found.assign(
        subject_id=[known.get(person(subject), subject) for subject in found["subject_id"]]
    )
    return Source(visits, found, COVARIATES, (*notes, *more))


def _visits(
    tables: Path, options: AdniOptions, today: date, problems: list[Problem]
) -> tuple[pd.DataFrame, list[str]]:
    merged = find_dated_table(tables, "ADNIMERGE")
    if merged is not None and options.source != "dxsum":
        return _adnimerge(merged, options, today, problems), [f"visits from {merged.name}"]
    summary = find_dated_table(tables, "DXSUM") or find_dated_table(tables, "DXSUM_PDXCONV_ADNIALL")
    if summary is None or options.source == "adnimerge":
        wanted = "ADNIMERGE.csv" if options.source == "adnimerge" else "ADNIMERGE.csv or DXSUM.csv"
        raise UserError(f"{tables}: has no {wanted} (a dated name, NAME_01Jan2025.csv, is fine)")
    notes = [
        f"visits from {summary.name}: it does not know SMC, EMCI and LMCI, so that SMC counts as CN"
    ]
    frame = _dxsum(summary, options, today, problems)
    demographics = find_dated_table(tables, "PTDEMOG")
    if demographics is None:
        notes.append("age, sex and education are missing: PTDEMOG.csv is not among the tables")
        return frame.assign(age=np.nan, sex="", education=np.nan, born=np.nan), notes
    return _with_demographics(frame, demographics, problems), notes


def _adnimerge(
    path: Path, options: AdniOptions, today: date, problems: list[Problem]
) -> pd.DataFrame:
    file = str(path)
    rows = read_rows(path, {n: (n,) for n in (*NEEDED, *WELCOME)}, WELCOME)
    rows = _unique(rows, ["RID", "COLPROT", "VISCODE"], file, problems)
    group = to_codes(rows["DX_bl"], GROUPS, file, problems)
    code = rows["VISCODE"].str.lower()
    dx = to_codes(rows["DX"], {**DX, **dict(options.codes)}, file, problems).replace("missing", "")
    rank = code.map(BASELINE_RANK)
    if options.diagnosis == "screening":
        dx = dx.where(rank.isna(), as_text(group.map(STATED)))
    order = order_of(pd.concat([rows["EXAMDATE"], rows["EXAMDATE_bl"]]), today, options.dates)
    when = to_dates(rows["EXAMDATE"], file, today, problems, order)
    start = to_dates(rows["EXAMDATE_bl"], file, today, problems, order)
    years = ((when - start).dt.days / DAYS_A_YEAR).fillna(0.0)
    frame = pd.DataFrame(
        {
            "subject_id": _subject_ids(rows, file, problems),
            "cohort": _phases(rows["COLPROT"], file, problems),
            "origin": _phases(rows["ORIGPROT"], file, problems),
            "code": code,
            "session": "",
            "month": months_of_visits(code),
            "date": when,
            "diagnosis": dx,
            "group": group,
            "age": to_numbers(rows["AGE"], file, problems, 18, 120) + years,
            "born": np.nan,
            "sex": to_codes(rows["PTGENDER"], SEX, file, problems),
            "education": to_numbers(rows["PTEDUCAT"], file, problems, 0, 40),
            "mmse": to_numbers(rows["MMSE"], file, problems, 0, 30),
            "cdrsb": to_numbers(rows["CDRSB"], file, problems, 0, 18),
            "apoe4": to_numbers(rows["APOE4"], file, problems, 0, 2),
        }
    )
    return _with_baseline_rank(frame, rank)


def _dxsum(path: Path, options: AdniOptions, today: date, problems: list[Problem]) -> pd.DataFrame:
    file = str(path)
    wanted: dict[str, tuple[str, ...]] = {
        n: (n,) for n in ("RID", "PTID", "VISCODE", "VISCODE2", "EXAMDATE")
    }
    wanted["PHASE"] = ("PHASE", "Phase")
    dialects = {"DIAGNOSIS": CURRENT, "DXCHANGE": CHANGE, "DXCURREN": CURRENT}
    wanted.update({n: (n,) for n in dialects})
    rows = read_rows(path, wanted, (*dialects, "VISCODE2"))
    if (rows[list(dialects)] == "").all(axis=None):
        raise UserError(f"{path}: has none of the diagnosis columns {', '.join(dialects)}")
    rows = _unique(rows, ["RID", "PHASE", "VISCODE"], file, problems)
    extra = dict(options.codes)
    said = pd.DataFrame(
        {
            name: to_codes(rows[name], {**codes, **extra}, file, problems).replace("missing", "")
            for name, codes in dialects.items()
        }
    )
    dx = said["DIAGNOSIS"]
    for name in ("DXCHANGE", "DXCURREN"):
        clash = (dx != "") & (said[name] != "") & (said[name] != dx)
        problems += [
            Problem(file, int(str(row)), name, rows.at[row, name], f"disagrees with {dx[row]}")
            for row in rows.index[clash]
        ]
        dx = dx.where(dx != "", said[name])
    code = rows["VISCODE2"].where(rows["VISCODE2"] != "", rows["VISCODE"]).str.lower()
    phase = _phases(rows["PHASE"], file, problems)
    frame = pd.DataFrame(
        {
            "subject_id": _subject_ids(rows, file, problems),
            "cohort": phase,
            "code": code,
            "session": "",
            "month": months_of_visits(code),
            "date": to_dates(rows["EXAMDATE"], file, today, problems, options.dates),
            "diagnosis": dx,
            "group": "",
            "mmse": np.nan,
            "cdrsb": np.nan,
            "apoe4": np.nan,
        }
    )
    order = frame["cohort"].map({name: place for place, name in enumerate(PHASES)})
    first = order.groupby(frame["subject_id"]).transform("min")
    frame["origin"] = as_text(first.map(dict(enumerate(PHASES))))
    return _with_baseline_rank(frame, code.map(BASELINE_RANK))


def _with_demographics(frame: pd.DataFrame, path: Path, problems: list[Problem]) -> pd.DataFrame:
    file = str(path)
    wanted = {
        "RID": ("RID",),
        "PTGENDER": ("PTGENDER",),
        "PTEDUCAT": ("PTEDUCAT",),
        "born": ("PTDOBYY", "PTDOB"),
    }
    rows = read_rows(path, wanted, ("PTEDUCAT",))
    year = rows["born"].str.extract(r"(\d{4})$", expand=False).fillna(rows["born"])
    facts = pd.DataFrame(
        {
            "rid": rows["RID"],
            "sex": to_codes(rows["PTGENDER"], SEX, file, problems).replace("", None),
            "education": to_numbers(rows["PTEDUCAT"], file, problems, 0, 40),
            "born": to_numbers(year, file, problems, 1880, 2015, "year of birth"),
        }
    )
    facts = facts.groupby("rid").first()
    rid = frame["subject_id"].map(lambda subject: person(subject)[1])
    joined = facts.reindex(rid).set_axis(frame.index)
    when = frame["date"]
    # The day of birth is not given; the middle of the year is at most half a year wrong.
    born = joined["born"] + 0.5
    age = decimal_year(when) - born
    sex = as_text(joined["sex"])
    return frame.assign(age=age, born=born, sex=sex, education=joined["education"])


def _with_baseline_rank(frame: pd.DataFrame, rank: pd.Series) -> pd.DataFrame:
    """Who enrolled in a phase has its screening or baseline visit as baseline, with a diagnosis
    before without; who continued into it has the first visit there."""
    penalty = np.where(frame["diagnosis"] == "", 10.0, 0.0)
    continuing = frame["cohort"] != frame["origin"]
    undiagnosed = np.where(frame["diagnosis"] == "", 1e6, 0.0)
    later = frame["month"].fillna(1e5) + undiagnosed
    usable = frame["code"].isin(NO_VISIT)
    both = (rank + penalty).mask(continuing, later).mask(usable)
    return frame.assign(baseline_rank=both)


def _unique(rows: pd.DataFrame, key: list[str], file: str, problems: list[Problem]) -> pd.DataFrame:
    problems += formula_cells(rows, file)
    return disagreeing_rows(rows, key, file, problems)


def _subject_ids(rows: pd.DataFrame, file: str, problems: list[Problem]) -> pd.Series:
    """PTID in one spelling; RID must agree with it, and one RID is one subject."""
    spelt: dict[str, str] = {}
    for text in rows["PTID"].unique():
        try:
            spelt[text] = adni_id(text)
        except UserError:
            continue
    ids = rows["PTID"].map(spelt)
    for row in rows.index[ids.isna()]:
        problems.append(
            Problem(
                file, int(row), "PTID", rows.at[row, "PTID"], "is no ADNI id such as 002_S_0295"
            )
        )
    rid = ids.map({subject: person(subject)[1] for subject in spelt.values()})
    stated = rows["RID"].str.replace(r"\.0+$", "", regex=True).str.lstrip("0")
    for row in rows.index[ids.notna() & (rid != stated)]:
        problems.append(
            Problem(
                file, int(row), "RID", rows.at[row, "RID"], f"is not that of {rows.at[row, 'PTID']}"
            )
        )
    return as_text(ids.groupby(rid).transform("min"))


def _phases(values: pd.Series, file: str, problems: list[Problem]) -> pd.Series:
    text = values.str.replace(r"[\s-]", "", regex=True)
    return to_codes(text, {name: name for name in PHASES}, file, problems, str(values.name))
