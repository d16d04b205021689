"""Cells of CSV files: those that a spreadsheet would run, made harmless and back again.

A text that begins with ``=``, ``+``, ``-``, ``@``, their full-width forms, a tab or a line end, and
that is no number, is written behind an apostrophe (OWASP, CSV injection); so is one that already
stands behind apostrophes, so that every text is found again. Numbers are never touched.
"""

import csv
import re
from collections.abc import Callable

import pandas as pd

# Not `mri_jax.delimited.MISSING`, which is for tables that others made, in any case and in text: in
# columns of this program's own tables -1 is a number and "none" a value (no brain was extracted).
NO_VALUE = ["", "nan", "NaN", "NA", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"]
"""How pandas, R and spreadsheets write that there is no value, in a column that is not text."""
_RUNS = re.compile(
    r"(?P<guard>'*)(?:[=@\t\r\n＝＋－＠]|[+-](?!(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$))"
)


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with an apostrophe before text that a spreadsheet would run."""
    return _mapped(frame, lambda text: f"'{text}" if _RUNS.match(text) else text)


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the inverse of `guarded`."""
    return _mapped(frame, bare)


def misquoted(error: csv.Error) -> str:
    """Returns what is wrong with quotation marks, in place of the csv module's own words."""
    said = str(error)
    if "unexpected end" in said:
        return (
            "a quotation mark opens a cell and none closes it; remove it, or double it where it is "
            "text within a quoted cell (if the file should go on, it is cut off: copy it again)"
        )
    if "expected after" in said:
        return (
            "text follows the quotation mark that closes a cell; double a quotation mark that is "
            "text within a quoted cell"
        )
    if "field larger" in said:
        limit = csv.field_size_limit()
        return f"a cell is longer than {limit:,} characters; is a quotation mark astray?"
    return f"cannot be read ({said})"


def bare(text: str) -> str:
    """Returns a text as it was before `guarded`."""
    found = _RUNS.match(text)
    return text[1:] if found and found["guard"] else text


def _mapped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    found = frame.copy(deep=False)
    for name in frame.columns:
        values = frame[name]
        if pd.api.types.is_numeric_dtype(values):
            continue
        new = {v: change(v) for v in values.unique() if isinstance(v, str) and change(v) != v}
        if new:
            found[name] = values.map(lambda v, new=new: new.get(v, v) if isinstance(v, str) else v)
    return found.rename(columns=lambda name: change(name) if isinstance(name, str) else name)
