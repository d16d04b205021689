"""Reading tables that others made: as text, with their row numbers, and with nothing guessed."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from etils import epath

from mri_jax.cohort.problems import Problem, TableError
from mri_jax.errors import UserError
from mri_jax.files import opened, read_text

MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-1", "-4", "-1.0", "-4.0"})
_FORMULA = re.compile(r"^(?:[=@\t\r]|[+-](?![\d.]))")


def find_dated_table(folder: Path, name: str) -> Path | None:
    """``NAME.csv`` or the newest ``NAME_01Jan2025.csv`` of a folder; None if there is neither.

    ``All_Subjects_NAME_01Jan2025.csv``, as the archive's collections are called, is one of them.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of tables")
    dated = r"(?:_(\d{2}[A-Za-z]{3}\d{4}))?"
    pattern = re.compile(rf"^(?:All_Subjects_)?{re.escape(name)}{dated}\.csv$", re.IGNORECASE)
    found = [(m[1], path) for path in sorted(folder.iterdir()) if (m := pattern.match(path.name))]

    def age(item: tuple[str | None, Path]) -> datetime:
        return datetime.strptime(item[0], "%d%b%Y") if item[0] else datetime.min

    return max(found, key=age)[1] if found else None


def header_of(path: epath.PathLike) -> list[str]:
    """The column names of a table; only its beginning is read."""
    with opened(path) as file:
        start = file.read(1 << 16)
    text = start.decode("utf-8-sig", errors="replace")
    wanted = "\t" if str(path).endswith(".tsv") else ","
    return next(csv.reader(io.StringIO(text), delimiter=wanted), [])


def read_rows(
    path: epath.PathLike, wanted: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Read some columns of a CSV or TSV file as text.

    Args:
      path: The file; ``.tsv`` is separated by tabs, anything else by commas.
      wanted: Our name of a column to the names that it may have in the file, compared without
        regard to case, the first that is found.
      optional: Our names that need not be there; they come back empty.

    Returns:
      A frame of stripped str columns ``wanted``, indexed by row as a spreadsheet counts.

    Raises:
      UserError: Not UTF-8, another delimiter, a column is missing (those found are named), or
        rows have more cells than the header (all of them).
    """
    text = read_text(path)
    delimiter = check_delimiter(path, text)
    header = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])
    names = {ours: _find(header, aliases) for ours, aliases in wanted.items()}
    for ours, found in names.items():
        if found is None and ours not in optional:
            raise UserError(
                f"{path}: column {' or '.join(wanted[ours])} is missing; found "
                f"{', '.join(header[:40])}"
            )
    used = {found: ours for ours, found in names.items() if found is not None}
    twice = [name for name in used if header.count(name) > 1]
    if twice:
        raise UserError(f"{path}: column {twice[0]!r} occurs twice")
    frame = _parse(path, text, delimiter, list(used)).rename(columns=used)
    for ours in wanted:
        if ours not in frame:
            frame[ours] = ""
    return frame[list(wanted)]


def _parse(path: epath.PathLike, text: str, delimiter: str, columns: list[str]) -> pd.DataFrame:
    if problems := _uneven_rows(path, text, delimiter):
        raise TableError(problems)
    frame = pd.read_csv(
        io.StringIO(text),
        sep=delimiter,
        dtype=str,
        keep_default_na=False,
        usecols=columns,
        index_col=False,
        skip_blank_lines=False,
    )
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    for name in columns:
        frame[name] = as_text(frame[name]).str.strip()
    return frame[(frame[columns] != "").any(axis=1)]


def _uneven_rows(path: epath.PathLike, text: str, delimiter: str) -> list[Problem]:
    """Rows that have not as many cells as the header; blank ones are none."""
    if '"' in text:
        widths = [len(row) for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    else:
        widths = [
            line.count(delimiter) + 1 if line else 0
            for line in text.replace("\r\n", "\n").split("\n")
        ]
    width = widths[0] if widths else 0
    return [
        Problem(str(path), number, "", "", f"has {found} cells, the header has {width}")
        for number, found in enumerate(widths, start=1)
        if found not in (0, width)
    ]


def check_delimiter(path: epath.PathLike, text: str) -> str:
    """The delimiter that a file must have (tabs in ``.tsv``, else commas); refuses another."""
    wanted = "\t" if str(path).endswith(".tsv") else ","
    first = text.split("\n", 1)[0]
    for other, name in (("\t", "tab"), (";", "';'"), (",", "','"), ("|", "'|'")):
        if other != wanted and other in first and wanted not in first:
            rule = "tabs" if wanted == "\t" else "commas"
            raise UserError(f"{path}: row 1: separated by {name}; must be separated by {rule}")
    return wanted


def _find(header: Sequence[str], aliases: Sequence[str]) -> str | None:
    by_lower = {name.strip().lower(): name for name in reversed(header)}
    return next((by_lower[a.lower()] for a in aliases if a.lower() in by_lower), None)


def is_missing(values: pd.Series) -> pd.Series:
    """Where a text column says "missing": empty, NA, n/a, -1 or -4."""
    return values.str.lower().isin(MISSING)


def as_text(values: pd.Series) -> pd.Series:
    """Text with ``""`` where missing, also when a join left a column with nothing but NaN."""
    return values.astype(object).where(values.notna(), "")


def to_numbers(
    values: pd.Series,
    file: str,
    problems: list[Problem],
    low: float = -np.inf,
    high: float = np.inf,
    column: str = "",
) -> pd.Series:
    """Text to float64, NaN where missing; what is no number or outside [low, high] is a problem."""
    text = values.where(~is_missing(values), "")
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    wrong = (text != "") & ~np.isfinite(numbers)
    outside = np.isfinite(numbers) & ((numbers < low) | (numbers > high))
    name = column or str(values.name)
    _add(problems, file, name, values[wrong], "is not a number")
    _add(problems, file, name, values[outside], f"must lie between {low:g} and {high:g}")
    return numbers.mask(outside | wrong)


def to_codes(
    values: pd.Series,
    codes: Mapping[str, str],
    file: str,
    problems: list[Problem],
    column: str = "",
) -> pd.Series:
    """Text to our names by a table of codes (without regard to case); ``""`` where missing.

    A code that the table lacks is a problem.
    """
    text = values.where(~is_missing(values), "").str.lower()
    text = text.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
    table = {code.lower(): name for code, name in codes.items()}
    named = text.map(table)
    unknown = (text != "") & named.isna()
    known = ", ".join(codes)
    _add(problems, file, column or str(values.name), values[unknown], f"is unknown; known: {known}")
    return as_text(named)


def formula_cells(frame: pd.DataFrame, file: str) -> list[Problem]:
    """Cells that a spreadsheet would run: text that begins with =, @, +, - (numbers are fine)."""
    problems: list[Problem] = []
    for name in frame.columns:
        values = frame[name].astype(str)
        hit = values.str.match(_FORMULA)
        _add(problems, file, str(name), values[hit], "looks like a formula")
    return problems


def disagreeing_rows(
    frame: pd.DataFrame, key: Sequence[str], file: str, problems: list[Problem]
) -> pd.DataFrame:
    """Collapse repeated rows of a key; those that disagree in a column are problems.

    Returns:
      The first row of each key, the number of identical repeats being the difference in length.
    """
    keys = list(key)
    repeated = frame[frame.duplicated(keys, keep=False)]
    for name in frame.columns.difference(keys):
        counts = repeated.groupby(keys)[name].transform("nunique")
        disagree = repeated[counts > 1]
        disagree = disagree[disagree.duplicated(keys)]
        rule = f"disagrees with an earlier row of the same {', '.join(keys)}"
        _add(problems, file, str(name), disagree[name], rule)
    return frame.drop_duplicates(keys)


def _add(problems: list[Problem], file: str, column: str, values: pd.Series, rule: str) -> None:
    problems += [
        Problem(file, int(str(row)), column, str(value), rule) for row, value in values.items()
    ]
