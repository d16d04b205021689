"""ADNI's tables: ADNIMERGE, or DXSUM where there is none, in every phase's dialect.

Columns and menu paths stand in ``docs/adni.md``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import adni_images, adni_people, exports
from mri_jax.cohort.adni_people import SEX
from mri_jax.cohort.adni_visits import BASELINE_RANK, NO_VISIT, months, plain_codes
from mri_jax.cohort.assemble import DAYS_A_YEAR, CohortSource
from mri_jax.cohort.dates import AUTO, CHOICES, order_of, to_dates
from mri_jax.cohort.identity import person
from mri_jax.cohort.joining import refuse_strangers
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
from mri_jax.problems import Problem, counted, listed, refuse

PHASES = ("ADNI1", "ADNIGO", "ADNI2", "ADNI3", "ADNI4")
FIELD = {"ADNI1": 1.5, "ADNIGO": 3.0, "ADNI2": 3.0, "ADNI3": 3.0, "ADNI4": 3.0}
DXSUM_NAMES = ("DXSUM", "DXSUM_PDXCONV", "DXSUM_PDXCONV_ADNIALL")
STATES = {"CN": "CN", "NL": "CN", "MCI": "MCI", "Dementia": "AD", "DEM": "AD", "AD": "AD"}
# "MCI to Dementia", "Conversion: MCI to Dementia", "Stable: NL": the state after it is the
# diagnosis at that visit.
_CHANGE = re.compile(
    r"^(?:(?:stable|conversion|reversion): ?)?(?:(?:CN|NL|MCI|Dementia|AD) to )?"
    r"(CN|NL|MCI|Dementia|AD)$",
    re.IGNORECASE,
)
GROUPS = {name: name for name in ("CN", "SMC", "EMCI", "LMCI", "MCI", "AD")} | {"NL": "CN"}
STATED = {"CN": "CN", "SMC": "CN", "EMCI": "MCI", "LMCI": "MCI", "MCI": "MCI", "AD": "AD"}
CURRENT = {"1": "CN", "2": "MCI", "3": "AD", **STATES}
CHANGE = {
    "1": "CN", "2": "MCI", "3": "AD", "4": "MCI", "5": "AD", "6": "AD", "7": "CN", "8": "MCI",
    "9": "CN", **STATES,
}  # fmt: skip
NEEDED = ("RID", "PTID", "COLPROT", "ORIGPROT", "VISCODE", "EXAMDATE", "DX", "AGE", "PTGENDER",
          "PTEDUCAT")  # fmt: skip
# The R package writes DX.bl.
FIRST_SEEN = {"DX_bl": ("DX_bl", "DX.bl"), "EXAMDATE_bl": ("EXAMDATE_bl", "EXAMDATE.bl")}
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
      missing: Further words for missing, in small letters.
    """

    diagnosis: str = "visit"
    adnigo: str = "own"
    source: str = "auto"
    codes: tuple[tuple[str, str], ...] = ()
    dates: str = AUTO
    missing: frozenset[str] = frozenset()

    def __post_init__(self):
        for name, allowed in (
            ("diagnosis", ("visit", "screening")),
            ("adnigo", ("own", "ADNI2", "exclude")),
            ("source", ("auto", "adnimerge", "dxsum")),
            ("dates", CHOICES),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"adni.{name}: {getattr(self, name)!r} is not one of {allowed}")


def read(tables: Path, images: Path, options: AdniOptions, today: date) -> CohortSource:
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
    table, notes = _visits(tables, options, today, problems)
    found, more = adni_images.read(tables, images, today, problems, options.dates, options.missing)
    seen = found["subject_id"]
    refuse_strangers(table.visits["rid"].rename("RID"), table.file,
                     seen.map(_rid).rename("subject"), str(images), problems)  # fmt: skip
    refuse(problems)
    strangers = seen[~seen.map(_rid).isin(set(table.visits["rid"]))].unique()
    if len(strangers):
        more.append(
            f"images of {counted(len(strangers), 'subject')} are left out, not in "
            f"{table.files[0].name}: {listed(strangers)}"
        )
    more += exports.not_used(tables, [*table.files, *adni_images.tables_used(tables)])
    by_image = {_rid(subject): subject for subject in sorted(seen.unique(), reverse=True)}
    visits = table.visits
    ids = adni_people.subject_ids(visits["rid"], visits["own_id"], {**by_image, **table.known})
    visits = _without_no_visits(visits.assign(subject_id=ids)).drop(columns=["rid", "own_id"])
    if options.adnigo == "ADNI2":
        visits[["cohort", "origin"]] = visits[["cohort", "origin"]].replace("ADNIGO", "ADNI2")
    elif options.adnigo == "exclude":
        visits = visits[visits["origin"] != "ADNIGO"]
        visits = visits[visits["cohort"] != "ADNIGO"]
    # Images name a subject as the archive does; the person is the RID.
    of_rid = dict(zip(table.visits["rid"], ids, strict=True))
    found = found.assign(subject_id=[of_rid.get(_rid(subject), subject) for subject in seen])
    return CohortSource(visits, found, COVARIATES, (*notes, *more))


@dataclass(frozen=True)
class _Table:
    """Visits with ``rid`` and ``own_id``; the files read, theirs first; the others' ids by RID."""

    visits: pd.DataFrame
    files: tuple[Path, ...]
    known: Mapping[str, str]

    @property
    def file(self) -> str:
        return str(self.files[0])


def _rid(subject: str) -> str:
    """Returns the RID in a subject id; an id of another study as it is."""
    family, number = person(subject)
    return number if family == "ADNI" else subject


def _without_no_visits(visits: pd.DataFrame) -> pd.DataFrame:
    """Returns visits without the rows of visits that never were, but one row of everybody found."""
    never = visits["code"] == NO_VISIT
    seen = set(visits.loc[~never, "subject_id"])
    alone = never & ~visits["subject_id"].isin(seen) & ~visits.duplicated("subject_id")
    return visits[~never | alone].copy()


def _visits(
    tables: Path, options: AdniOptions, today: date, problems: list[Problem]
) -> tuple[_Table, list[str]]:
    merged = exports.find_export(tables, "ADNIMERGE")
    if merged is not None and options.source != "dxsum":
        visits = _adnimerge(merged, options, today, problems)
        return _Table(visits, (merged,), {}), [f"visits from {merged.name}"]
    summary = exports.find_export(tables, *DXSUM_NAMES)
    if summary is None or options.source == "adnimerge":
        wanted = {"adnimerge": "ADNIMERGE.csv", "dxsum": "DXSUM.csv"}.get(
            options.source, "ADNIMERGE.csv or DXSUM.csv"
        )
        raise exports.nothing_found(tables, wanted, ("ADNIMERGE", "DXSUM"), "adni")
    notes = [
        f"visits from {summary.name}: it does not know SMC, EMCI and LMCI, so that SMC counts as CN"
    ]
    visits = _dxsum(summary, options, today, problems)
    path = exports.find_export(tables, "PTDEMOG")
    if path is None:
        notes.append("age, sex and education are missing: PTDEMOG.csv is not among the tables")
        return _Table(adni_people.without_demographics(visits), (summary,), {}), notes
    visits, more, known = adni_people.with_demographics(
        visits, str(summary), path, problems, options.missing
    )
    return _Table(visits, (summary, path), known), notes + more


def _adnimerge(
    path: Path, options: AdniOptions, today: date, problems: list[Problem]
) -> pd.DataFrame:
    file = str(path)
    wanted = {name: (name,) for name in (*NEEDED, *WELCOME)} | FIRST_SEEN
    rows = _filled(read_rows(path, wanted, (*WELCOME, "PTID"), options.missing), path)
    problems += formula_cells(rows, file)
    phase = _phases(rows["COLPROT"], file, problems)
    origin = _phases(rows["ORIGPROT"], file, problems)
    rid, own_id = adni_people.who(rows, file, problems)
    rows = rows.assign(rid=rid, own_id=own_id, phase=phase, origin=origin)
    rows = _told(rows, rows["VISCODE"], file, problems)
    group = to_codes(rows["DX_bl"], GROUPS, file, problems)
    dx = _diagnoses(rows["DX"], STATES, options, file, problems)
    rank = rows["code"].map(BASELINE_RANK)
    if options.diagnosis == "screening":
        dx = dx.where(rank.isna(), as_text(group.map(STATED)))
    order = order_of(pd.concat([rows["EXAMDATE"], rows["EXAMDATE_bl"]]), today, options.dates)
    when = to_dates(rows["EXAMDATE"], file, today, problems, order)
    start = to_dates(rows["EXAMDATE_bl"], file, today, problems, order)
    years = ((when - start).dt.days / DAYS_A_YEAR).fillna(0.0)
    frame = pd.DataFrame(
        {
            "rid": rows["rid"],
            "own_id": rows["own_id"],
            "cohort": rows["phase"],
            "origin": rows["origin"],
            "code": rows["code"],
            "session": "",
            "month": months(rows["code"]),
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
    names = ("RID", "PTID", "VISCODE", "VISCODE2", "EXAMDATE")
    wanted: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    wanted["PHASE"] = ("PHASE", "COLPROT")
    wanted["ORIGPROT"] = ("ORIGPROT",)
    dialects = {"DIAGNOSIS": CURRENT, "DXCHANGE": CHANGE, "DXCURREN": CURRENT}
    wanted.update({name: (name,) for name in dialects})
    optional = (*dialects, "PTID", "VISCODE2", "ORIGPROT")
    rows = _filled(read_rows(path, wanted, optional, options.missing), path)
    problems += formula_cells(rows, file)
    if (rows[list(dialects)] == "").all(axis=None):
        raise UserError(f"{path}: has none of the diagnosis columns {', '.join(dialects)}")
    phase = _phases(rows["PHASE"], file, problems)
    stated = _phases(rows["ORIGPROT"], file, problems)
    place = phase.map({name: place for place, name in enumerate(PHASES)})
    rid, own_id = adni_people.who(rows, file, problems)
    first = place.groupby(rid).transform("min")
    origin = stated.where(stated != "", as_text(first.map(dict(enumerate(PHASES)))))
    told = rows["VISCODE2"].where(~is_missing(rows["VISCODE2"]), rows["VISCODE"])
    rows = rows.assign(rid=rid, own_id=own_id, phase=phase, origin=origin)
    rows = _told(rows, told, file, problems)
    said = pd.DataFrame(
        {name: _diagnoses(rows[name], codes, options, file, problems)
         for name, codes in dialects.items()}
    )  # fmt: skip
    dx = said["DIAGNOSIS"]
    for name in ("DXCHANGE", "DXCURREN"):
        clash = (dx != "") & (said[name] != "") & (said[name] != dx)
        problems += [
            Problem(file, int(str(row)), name, rows.at[row, name], f"disagrees with {dx[row]}")
            for row in rows.index[clash]
        ]
        dx = dx.where(dx != "", said[name])
    frame = pd.DataFrame(
        {
            "rid": rows["rid"],
            "own_id": rows["own_id"],
            "cohort": rows["phase"],
            "origin": rows["origin"],
            "code": rows["code"],
            "session": "",
            "month": months(rows["code"]),
            "date": to_dates(rows["EXAMDATE"], file, today, problems, options.dates),
            "diagnosis": dx,
            "group": "",
            "mmse": np.nan,
            "cdrsb": np.nan,
            "apoe4": np.nan,
        }
    )
    return _with_baseline_rank(frame, rows["code"].map(BASELINE_RANK))


def _filled(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    if rows.empty:
        raise UserError(f"{path}: has no rows below the names of its columns")
    return rows


def _told(rows: pd.DataFrame, codes: pd.Series, file: str, problems: list[Problem]) -> pd.DataFrame:
    """Returns one row a visit, with its plain ``code``.

    A visit is told by person, phase and code as the phase writes it (two of ADNI-2's may share a
    month), and where that says no month (``uns1``) by its date too. Of the visits that never were
    (``nv``) a person has one row, whatever it says.
    """
    enrolled = rows["phase"] == rows["origin"]
    code = plain_codes(codes, enrolled)
    written = plain_codes(rows["VISCODE"], enrolled)
    dated = written.where(months(written).notna(), written + " " + rows["EXAMDATE"])
    # Two spellings of one person or visit are no disagreement.
    spelt = ["RID", "PTID", "own_id", "VISCODE", "VISCODE2", "COLPROT", "ORIGPROT", "PHASE"]
    facts = rows.drop(columns=spelt, errors="ignore")
    facts = facts.assign(VISCODE=dated).rename(columns={"rid": "RID", "phase": "PHASE"})
    never = code == NO_VISIT
    kept = disagreeing_rows(facts[~never], ["RID", "PHASE", "VISCODE"], file, problems)
    once = facts[never].drop_duplicates(["RID", "PHASE"])
    return rows.assign(code=code).loc[sorted([*kept.index, *once.index])]


def _diagnoses(
    values: pd.Series,
    codes: Mapping[str, str],
    options: AdniOptions,
    file: str,
    problems: list[Problem],
) -> pd.Series:
    """Returns the diagnoses CN, MCI and AD; empty where missing."""
    extra = dict(options.codes)
    own = {code.lower() for code in extra}
    states = {
        text: text if text.lower() in own else _CHANGE.sub(r"\1", text) for text in values.unique()
    }
    told = values.map(states)
    return to_codes(told, {**codes, **extra}, file, problems).replace("missing", "")


def _with_baseline_rank(frame: pd.DataFrame, rank: pd.Series) -> pd.DataFrame:
    """Adds the rank of each visit as baseline of its phase.

    Who enrolled in a phase has its screening or baseline visit as baseline, one with a diagnosis
    before one without; who continued into it has the first visit there.
    """
    penalty = np.where(frame["diagnosis"] == "", 10.0, 0.0)
    continuing = frame["cohort"] != frame["origin"]
    undiagnosed = np.where(frame["diagnosis"] == "", 1e6, 0.0)
    later = frame["month"].fillna(1e5) + undiagnosed
    both = (rank + penalty).mask(continuing, later).mask(frame["code"] == NO_VISIT)
    return frame.assign(baseline_rank=both)


def _phases(values: pd.Series, file: str, problems: list[Problem]) -> pd.Series:
    text = values.str.replace(r"[\s_-]", "", regex=True)
    return to_codes(text, {name: name for name in PHASES}, file, problems)
