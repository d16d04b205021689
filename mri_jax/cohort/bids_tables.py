"""What the tables of a BIDS tree say of its subjects: participants, sessions and phenotype.

Column names are looked up by `ALIASES`. Diagnoses pass unchanged unless a code is given for them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mri_jax import delimited
from mri_jax.cohort.reading import (
    MISSING,
    columns_of,
    formula_cells,
    is_missing,
    select,
    to_codes,
    to_numbers,
)
from mri_jax.cohort.sessions import labelled
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, refuse

ALIASES = {
    "participant": ("participant_id", "subject_id", "subject"),
    "session": ("session_id", "session"),
    "diagnosis": (
        "diagnosis",
        "dx",
        "diagnosis_bl",
        "diagnosis_baseline",
        "diagnosis_sc",
        "dx_group",
        "group",
        "status",
    ),
    "age": ("age", "age_bl", "age_baseline", "age_at_scan", "age_at_first_scan_years"),
    "sex": ("sex", "gender", "m/f"),
    "education": ("education_level", "education", "educ", "years_of_education"),
    "mmse": ("mmse", "mmse_bl"),
    "cdr": ("cdr", "cdr_global"),
    "time": ("acq_time", "session_date", "scan_date"),
    "days": ("days", "days_since_baseline", "days_from_baseline", "days_to_visit"),
}
COVARIATES = ("education", "mmse", "cdr")
FACTS = ("diagnosis", "age", "sex", *COVARIATES)
SEX = {
    "M": "M", "F": "F", "O": "O", "male": "M", "female": "F", "other": "O",
    "man": "M", "woman": "F",
}  # fmt: skip
PARTICIPANTS, SESSIONS, PHENOTYPE = "participants", "sessions", "phenotype"
_BOUND = re.compile(r"^(?:>=?\s*)?(\d{1,3})\s*(?:\+|or older|and over|and older)?$", re.IGNORECASE)
_WHOLE = re.compile(r"^(-?\d+)\.0+$")
_RANGE = re.compile(r"^(\d{1,3})\s*(?:-|–|to)\s*(\d{1,3})$", re.IGNORECASE)


@dataclass(frozen=True)
class TableOptions:
    """How the cells of the tables are read.

    Attributes:
      codes: Diagnoses as they stand in the tables and what they become (``missing`` removes one);
        they count before the list of what is missing.
      sex_codes: Codes of sex and what they mean: ``F``, ``M``, ``O`` or ``missing``.
      diagnosis_column: The column that holds the classes, where it is not one of `ALIASES`.
      coarse_ages: Whether ``89+`` is taken as 89, and ``18-38`` as 28.
      missing: What counts as missing.
    """

    codes: tuple[tuple[str, str], ...] = ()
    sex_codes: tuple[tuple[str, str], ...] = ()
    diagnosis_column: str = ""
    coarse_ages: bool = False
    missing: frozenset[str] = MISSING

    def __post_init__(self):
        for code, name in self.sex_codes:
            if name not in ("F", "M", "O", "missing"):
                raise UserError(f"sex-code: {code}={name}: {name!r} is not F, M, O or missing")


@dataclass(frozen=True)
class BidsTable:
    """One file: its kind, the subject whose folder it lies in (or empty), and its rows."""

    path: Path
    kind: str
    subject: str
    rows: delimited.Rows


@dataclass(frozen=True)
class Said:
    """What the tables say.

    Attributes:
      rows: One row a row of a table: ``spelt`` (the id as written), ``session`` (a label, empty
        where the row is of the person), `FACTS` (diagnosis and sex as text, ``""`` unknown; the
        others numbers), ``time``, ``days``, ``kind``, ``file``, ``row``.
      notes: What the user should know.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...]


def read_tables(folder: Path, people: Path, options: TableOptions, problems: list[Problem]) -> Said:
    """Read all tables of a tree.

    Args:
      folder: The tree.
      people: Its participants table.
      options: How cells are read.
      problems: What is wrong with rows is added to it; of phenotype tables it is a note.

    Raises:
      UserError: A file or column is missing, or no table has a column of diagnoses.
      TableError: A file cannot be read as a table.
    """
    notes: list[str] = []
    tables = [BidsTable(people, PARTICIPANTS, "", delimited.read(people))]
    for path in sorted(folder.glob("sub-*/sub-*_sessions.tsv")):
        tables.append(BidsTable(path, SESSIONS, path.parent.name, delimited.read(path)))
    if (path := folder / "sessions.tsv").exists():
        tables.append(BidsTable(path, SESSIONS, "", delimited.read(path)))
    tables += _phenotype(folder, notes)
    groups: dict[str, list[BidsTable]] = {}
    for table in tables:
        name = str(table.path) if table.kind == PHENOTYPE else table.kind
        groups.setdefault(name, []).append(table)
    columns = {name: _diagnosis_column(of, options) for name, of in groups.items()}
    notes += _on_columns(folder, groups, columns, options)
    frames = []
    for name, of in groups.items():
        for table in of:
            found: list[Problem] = []
            try:
                frame = _facts(table, columns[name], options, found)
                refuse(found if table.kind == PHENOTYPE else [])
            except UserError as error:
                if table.kind != PHENOTYPE:
                    raise
                notes.append(f"{str(error).splitlines()[0]} (table not used)")
                continue
            problems += found
            frames.append(frame)
    rows = pd.concat(frames, ignore_index=True)
    return Said(rows, (*notes, *_on_classes(rows), *_on_missing(groups, columns, options)))


def _phenotype(folder: Path, notes: list[str]) -> Iterator[BidsTable]:
    """Yields the tables of ``phenotype/`` that have participants; notes which are left out."""
    for path in sorted((folder / PHENOTYPE).glob("[!.]*.tsv")):
        try:
            rows = delimited.read(path)
        except UserError as error:
            notes.append(f"{str(error).splitlines()[0]} (table not used)")
            continue
        if columns_of(rows, {"participant": ALIASES["participant"]})["participant"] is None:
            notes.append(f"{path}: not used: has no column {ALIASES['participant'][0]}")
            continue
        yield BidsTable(path, PHENOTYPE, "", rows)


def _diagnosis_column(tables: Sequence[BidsTable], options: TableOptions) -> str | None:
    """Returns the first of `ALIASES` of the diagnosis in which some table has a class."""
    wanted = (options.diagnosis_column,) if options.diagnosis_column else ALIASES["diagnosis"]
    for alias in wanted:
        for table in tables:
            name = columns_of(table.rows, {"it": (alias,)})["it"]
            if name is not None and (_classes(table.rows.frame([name])[name], options) != "").any():
                return name
    return None


def _classes(values: pd.Series, options: TableOptions) -> pd.Series:
    """Returns cells as classes: codes first, then what is missing (``""``), then as they stand."""
    codes = {"missing": "", **dict(options.codes)}

    def named(text: str) -> str:
        number = _WHOLE.sub(r"\1", text)
        name = next((codes[spelt] for spelt in (text, number) if spelt in codes), None)
        if name is None:
            name = "" if text.lower() in options.missing else text
        return "" if name == "missing" else name

    return values.map({text: named(text) for text in values.unique()}).astype(object)


def _on_columns(
    folder: Path,
    groups: dict[str, list[BidsTable]],
    columns: dict[str, str | None],
    options: TableOptions,
) -> list[str]:
    """Returns which column the classes were taken from, or the error that there is none."""
    used = [
        f"column {column!r} of {_file_of(groups[name], folder)}"
        for name, column in columns.items()
        if column
    ]
    if used:
        return [f"classes: {'; '.join(used)}"]
    looked = [
        f"{_file_of(tables, folder)} ({', '.join(filter(None, tables[0].rows.header))})"
        for tables in groups.values()
    ]
    asked = options.diagnosis_column
    raise UserError(
        f"{folder}: no table has a "
        + (f"column {asked!r} with a class" if asked else "column of diagnoses with a class")
        + ("" if asked else f" (looked for {', '.join(ALIASES['diagnosis'])})")
        + f"; found {'; '.join(looked)}; choose one with --diagnosis-column NAME"
    )


def _file_of(tables: Sequence[BidsTable], folder: Path) -> str:
    first = tables[0].path
    name = first.relative_to(folder).as_posix() if first.is_relative_to(folder) else str(first)
    return name if len(tables) == 1 else f"{name} and {len(tables) - 1} more"


def _facts(
    table: BidsTable, diagnosis: str | None, options: TableOptions, problems: list[Problem]
) -> pd.DataFrame:
    """Returns the rows of one table in the form of `Said`."""
    file = str(table.path)
    wanted = {**ALIASES, "diagnosis": (diagnosis,) if diagnosis else ()}
    needed = {"participant"} if not table.subject else set()
    needed |= {"session"} if table.kind == SESSIONS else set()
    optional = [name for name in wanted if name not in needed]
    rows = select(table.rows, wanted, optional)
    if table.subject:
        rows["participant"] = table.subject
    problems += formula_cells(rows, file)
    nobody = is_missing(rows["participant"], options.missing)
    for row in rows.index[nobody]:
        problems.append(Problem(file, int(row), ALIASES["participant"][0], "", "is empty"))
    ages = _ages(rows["age"], file, options, problems)
    missing = options.missing
    known = SEX | dict(options.sex_codes)
    remedy = "; give others a meaning: --sex-code 1=M --sex-code 2=F (or O, or missing)"
    sex = to_codes(rows["sex"], known, file, problems, missing, remedy)
    sessions = rows["session"].where(~is_missing(rows["session"], missing), "")
    return pd.DataFrame(
        {
            "spelt": rows["participant"],
            "session": [labelled(text) for text in sessions],
            "diagnosis": _classes(rows["diagnosis"], options),
            "age": to_numbers(ages.rename("age"), file, problems, 0, 120, missing),
            "sex": sex.replace("missing", ""),
            "education": to_numbers(rows["education"], file, problems, 0, 40, missing),
            "mmse": to_numbers(rows["mmse"], file, problems, 0, 30, missing),
            "cdr": to_numbers(rows["cdr"], file, problems, 0, 3, missing),
            "time": _times(rows["time"]),
            "days": pd.to_numeric(rows["days"], errors="coerce").astype(float),
            "kind": table.kind,
            "file": file,
            "row": rows.index,
        }
    )


def _times(values: pd.Series) -> pd.Series:
    """Dates of sessions, which may be shifted by centuries for privacy; NaT where there is none."""
    times = pd.to_datetime(values, format="ISO8601", errors="coerce", utc=True)
    return times.dt.tz_localize(None).astype("datetime64[ns]")


def _ages(
    values: pd.Series, file: str, options: TableOptions, problems: list[Problem]
) -> pd.Series:
    """Ages as numbers: bounds and ranges, which are none, only where the user accepts them."""
    coarse = {text: _coarse(text) for text in values.unique()}
    number = values.map(coarse).replace("", None)
    if not options.coarse_ages:
        for row, text in values[number.notna()].items():
            rule = "is a bound or a range, not an age"
            remedy = f"--coarse-ages takes it as {coarse[text]}"
            problems.append(Problem(file, int(str(row)), "age", text, f"{rule} ({remedy})"))
        return values.where(number.isna(), "")
    return values.where(number.isna(), number)


def _coarse(text: str) -> str:
    """Returns ``89+`` as 89, ``18-38`` as 28; empty for anything else, plain numbers too."""
    if match := _RANGE.match(text):
        return f"{(int(match[1]) + int(match[2])) / 2:g}"
    match = _BOUND.match(text)
    return "" if match is None or text.isdigit() else match[1]


def _on_classes(rows: pd.DataFrame) -> list[str]:
    """Classes that differ by case alone."""
    names = sorted(set(rows["diagnosis"]) - {""})
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    return [
        f"classes {' and '.join(of)} differ by case alone and are kept apart; if they are one: "
        f"--code {of[1]}={of[0]}"
        for of in alike.values()
        if len(of) > 1
    ]


def _on_missing(
    groups: Mapping[str, Sequence[BidsTable]],
    columns: Mapping[str, str | None],
    options: TableOptions,
) -> list[str]:
    """Cells of the columns of diagnoses that count as missing though they might be a class."""
    counts: Counter[str] = Counter()
    for name, tables in groups.items():
        for table in tables:
            column = columns_of(table.rows, {"it": (columns[name] or "",)})["it"]
            if column:
                values = table.rows.frame([column])[column]
                unsaid = is_missing(values, options.missing)
                lost = values[(_classes(values, options) == "") & unsaid]
                counts.update(lost[~lost.str.lower().isin(["", "n/a"])])
    return [
        counted(count, f"diagnosis {text!r} counts", f"diagnoses {text!r} count")
        + f" as missing; --code={text}=NAME makes a class of {'it' if count == 1 else 'them'}"
        for text, count in sorted(counts.items())
        if text not in dict(options.codes)
    ]
