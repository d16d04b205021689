"""Reading tables that others made: as text, with their row numbers, and with nothing guessed."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import delimited
from mri_jax.delimited import DECIMAL_COMMA, MISSING, is_missing
from mri_jax.errors import UserError
from mri_jax.files import opened
from mri_jax.problems import Problem, absent, add_rows

__all__ = [
    "MISSING",
    "as_text",
    "columns_of",
    "disagreeing_rows",
    "formula_cells",
    "header_of",
    "is_missing",
    "read_rows",
    "select",
    "to_codes",
    "to_numbers",
]
_WHOLE = re.compile(r"^(-?\d+)\.0+$")
_FORMULA = re.compile(r"^(?:[=@\t\r]|[+-](?![\d.]))")


def header_of(path: epath.PathLike) -> list[str]:
    """Returns the column names of a file, whatever it is; only its beginning is read."""
    with opened(path) as file:
        start = file.read(1 << 16)
    first = re.split(r"\r\n?|\n", start.decode("utf-8-sig", errors="replace"), maxsplit=1)[0]
    return [name.strip().strip('"') for name in first.split(delimited.delimiter_of(path))]


def read_rows(
    path: epath.PathLike,
    wanted: Mapping[str, Sequence[str]],
    optional: Sequence[str] = (),
    missing: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Read some columns of a CSV or TSV file as text.

    Args:
      path: The file; ``.tsv`` is separated by tabs, anything else by commas.
      wanted: Our name of a column to the names that it may have in the file, compared without
        regard to case, the first that is found.
      optional: Our names that need not be there; they come back empty.
      missing: Words in small letters that come back empty, whatever the column.

    Returns:
      A frame of stripped str columns ``wanted``, indexed by row as a spreadsheet counts.

    Raises:
      UserError: The file is no table (`mri_jax.delimited.read`), or columns are missing (all of
        them, and those found, are named).
      TableError: Rows cannot be read, or a wanted column occurs twice.
    """
    return select(delimited.read(path), wanted, optional, missing)


def select(
    rows: delimited.Rows,
    wanted: Mapping[str, Sequence[str]],
    optional: Sequence[str] = (),
    missing: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Returns what `read_rows` does, for a file that was read already."""
    names = columns_of(rows, wanted)
    needed = [ours for ours, found in names.items() if found is None and ours not in optional]
    if needed:
        lacking = [" or ".join(wanted[ours]) for ours in needed]
        raise UserError(f"{rows.path}: {absent(lacking, rows.header)}")
    used = {ours: name for ours, name in names.items() if name is not None}
    read = rows.frame(list(dict.fromkeys(used.values())))
    frame = pd.DataFrame(
        {ours: read[used[ours]] if ours in used else "" for ours in wanted},
        index=read.index,
        dtype=object,
    )
    frame = frame.mask(frame.apply(is_missing, missing=missing), "") if missing else frame
    return frame[(frame[list(used)] != "").any(axis=1)]


def columns_of(rows: delimited.Rows, wanted: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """Returns our name of each column with its name in the file; None where it is absent."""
    return {ours: _find(rows.header, aliases) for ours, aliases in wanted.items()}


def _find(header: Sequence[str], aliases: Sequence[str]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(header)}
    return next((by_lower[a.lower()] for a in aliases if a.lower() in by_lower), None)


def as_text(values: pd.Series) -> pd.Series:
    """Converts to text, ``""`` where missing, also in a column of nothing but NaN."""
    return values.astype(object).where(values.notna(), "")


def to_numbers(
    values: pd.Series,
    file: str,
    problems: list[Problem],
    low: float = -np.inf,
    high: float = np.inf,
    missing: frozenset[str] = MISSING,
) -> pd.Series:
    """Returns text as float64, NaN where missing.

    What is no number or lies outside [low, high] is a problem of the column that the values are
    named after.
    """
    text = values.where(~is_missing(values, missing), "")
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    wrong = (text != "") & ~np.isfinite(numbers)
    outside = np.isfinite(numbers) & ((numbers < low) | (numbers > high))
    name = str(values.name)
    comma = wrong & text.str.match(DECIMAL_COMMA)
    add_rows(problems, file, name, values[wrong & ~comma], "is not a number")
    add_rows(
        problems, file, name, values[comma], "is not a number (a decimal comma? write a point)"
    )
    add_rows(problems, file, name, values[outside], f"must lie between {low:g} and {high:g}")
    return numbers.mask(outside | wrong)


def to_codes(
    values: pd.Series,
    codes: Mapping[str, str],
    file: str,
    problems: list[Problem],
    missing: frozenset[str] = MISSING,
    remedy: str = "",
) -> pd.Series:
    """Converts text to our names by a table of codes, whatever the case; ``""`` where missing.

    A code counts before the list of what is missing: a code may be called ``None`` or ``-1``. What
    is neither in the table nor missing is a problem.
    """
    table = {code.lower(): name for code, name in codes.items()}
    plain = {text: _WHOLE.sub(r"\1", text.lower()) for text in values.unique()}
    named = values.map({text: table[code] for text, code in plain.items() if code in table})
    unknown = named.isna() & ~is_missing(values, missing)
    rule = f"is unknown; known: {', '.join(codes)}{remedy}"
    add_rows(problems, file, str(values.name), values[unknown], rule)
    return as_text(named)


def formula_cells(frame: pd.DataFrame, file: str) -> list[Problem]:
    """Cells that a spreadsheet would run: text that begins with =, @, +, - (numbers are fine)."""
    problems: list[Problem] = []
    for name in frame.columns:
        values = frame[name].astype(str)
        formulas = [text for text in values.unique() if _FORMULA.match(text)]
        found = values[values.isin(formulas)]
        add_rows(problems, file, str(name), found[~is_missing(found)], "looks like a formula")
    return problems


def disagreeing_rows(
    frame: pd.DataFrame, key: Sequence[str], file: str, problems: list[Problem]
) -> pd.DataFrame:
    """Collapse repeated rows of a key; those that disagree in a column are problems.

    Returns:
      The first row of each key, the number of identical repeats being the difference in length.
    """
    keys = list(key)
    first = frame.groupby(keys, sort=False)
    rows = pd.Series(frame.index, index=frame.index).groupby([frame[k] for k in keys])
    row = rows.transform("first")
    for name in frame.columns.difference(keys):
        said = first[name].transform("first")
        differs = (frame[name] != said) & frame[name].notna() & (frame.index != row)
        for number in frame.index[differs]:
            same = f"row {row[number]} of the same {', '.join(keys)}"
            rule = f"disagrees with {same}: {said[number]!r}"
            value = str(frame.at[number, name])
            problems.append(Problem(file, int(number), str(name), value, rule))
    return frame.drop_duplicates(keys)
