"""Dates of other people's tables: every form that says one day, and none that can say two."""

import re
from collections.abc import Mapping
from datetime import date

import pandas as pd

from mri_jax.cohort.reading import is_missing
from mri_jax.problems import Problem, add_rows

MONTH_FIRST, DAY_FIRST = "month-first", "day-first"
ORDERS = (MONTH_FIRST, DAY_FIRST)
# What a user can ask for: an order for dates that do not tell theirs, or the reader's own rule.
AUTO = "auto"
CHOICES = (AUTO, *ORDERS)
EARLIEST = pd.Timestamp("1990-01-01")
FORMS = "2006-03-01, 3/1/2006 or 01-Mar-2006"
# A day, or the two numbers and the year of a date whose order is to be settled.
Read = date | tuple[int, int, int]

_TIME = re.compile(
    r"[ T_]+\d{1,2}[:_]\d{2}(?:[:_]\d{2}(?:\.\d+)?)?\s*(?:[AP]M)?\s*(?:Z|[+-]\d{2}:?\d{2})?$",
    re.IGNORECASE,
)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})|(\d{4})(\d{2})(\d{2})", re.ASCII)
# With dashes a year of two digits could as well stand first.
_NUMBERS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|(?<!-)\d{2})", re.ASCII)
_DAY_NAME = re.compile(r"(\d{1,2})[-\s/.]*([A-Za-z]{3,9})\.?[-\s/,.]*(\d{4}|\d{2})", re.ASCII)
_NAME_DAY = re.compile(r"([A-Za-z]{3,9})\.?[-\s]*(\d{1,2})(?:,\s*|\s+|-)(\d{4})", re.ASCII)
_MONTH_YEAR = re.compile(r"(\d{1,2})[-/.](\d{4})|(\d{4})[-/.](\d{1,2})", re.ASCII)
_NAME_YEAR = re.compile(r"([A-Za-z]{3,9})\.?[-\s/]*(\d{4}|\d{2})", re.ASCII)
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]


def read_date(text: str, latest: date) -> Read | None:
    """Returns what one text says.

    Args:
      text: ``2006-03-01``, ``20060301``, ``3/1/2006``, ``3/1/06``, ``01-Mar-06``, ``March 1, 2006``
        and the like; a time of day may follow. A year of two digits is the last such year that is
        not after ``latest``.
      latest: No date lies after it.

    Returns:
      The day; the two numbers and the year where both numbers stand before the year; None where
      it is no date.
    """
    text = _TIME.sub("", text.strip())
    if match := _YEAR_FIRST.fullmatch(text):
        year, month, day = [int(match[i] or match[j]) for i, j in ((1, 5), (3, 6), (4, 7))]
        return _day(year, month, day)
    if match := _NUMBERS.fullmatch(text):
        year = _year(match[4], latest)
        first, second = int(match[1]), int(match[3])
        if _day(year, first, second) or _day(year, second, first):
            return first, second, year
        return None
    if match := _DAY_NAME.fullmatch(text):
        return _day(_year(match[3], latest), _month(match[2]), int(match[1]))
    if match := _NAME_DAY.fullmatch(text):
        return _day(int(match[3]), _month(match[1]), int(match[2]))
    return None


def order_of(values: pd.Series, latest: date, order: str = AUTO) -> str:
    """Returns whether months or days stand first in dates such as 3/1/2006.

    Args:
      values: All the dates of one table, as text.
      latest: No date lies after it.
      order: What holds where the dates do not decide, one of `CHOICES`.

    Returns:
      The only order in which all of the dates exist. Where they exist in both ways: ``order``,
      `AUTO` if nothing decides. Where they exist in neither: ``order``, else `MONTH_FIRST`.
    """
    pairs = [r for t in values.unique() if isinstance(r := read_date(t, latest), tuple)]
    possible = [o for o in ORDERS if all(_in_order(pair, o) for pair in pairs)]
    if len(possible) == 1:
        return possible[0]
    two_ways = possible and any(first != second for first, second, _ in pairs)
    return MONTH_FIRST if order == AUTO and not two_ways else order


def to_dates(
    values: pd.Series,
    file: str,
    latest: date,
    problems: list[Problem],
    order: str = AUTO,
) -> pd.Series:
    """Converts text to dates; the time of day is dropped.

    Args:
      values: Dates as `read_date` knows them; missing as in `is_missing`.
      file: For the messages.
      latest: No date may lie after it.
      problems: Rows that are no possible date are added to it, and a column of dates that can be
        read two ways.
      order: What holds for 3/1/2006 where the dates do not decide (`order_of`); `AUTO` refuses it.

    Returns:
      datetime64, NaT where missing or impossible.
    """
    name = str(values.name)
    text = values.where(~is_missing(values), "")
    said = {t: read_date(t, latest) for t in text.unique()}
    order = order_of(text, latest, order)
    if order == AUTO:
        problems.append(_two_ways(said, file, name))
    days = {t: _in_order(r, order) if isinstance(r, tuple) else r for t, r in said.items()}
    dates = pd.to_datetime(text.map(days), errors="coerce").astype("datetime64[ns]")
    known = text.map({t: r is not None for t, r in said.items()}).astype(bool)
    wrong = (text != "") & ~known
    turned = known & dates.isna() & (order != AUTO)
    outside = dates.notna() & ((dates < EARLIEST) | (dates > pd.Timestamp(latest)))
    add_rows(problems, file, name, values[wrong], f"is not a date such as {FORMS}")
    add_rows(problems, file, name, values[turned], f"is no date, the column being {order}")
    add_rows(problems, file, name, values[outside], f"must lie between 1990 and {latest}")
    return dates.mask(outside)


def to_months(
    values: pd.Series,
    file: str,
    latest: date,
    problems: list[Problem],
    first: int = EARLIEST.year,
) -> pd.Series:
    """Converts months (``03/2011``, ``2011-03``, ``Mar-2011``) to days: the 15th of each.

    Args:
      values: Text; missing as in `is_missing`.
      file: For the messages.
      latest: No month may lie after it.
      problems: What is no month between is added to it.
      first: The earliest year.

    Returns:
      datetime64, NaT where missing or impossible.
    """
    text = values.where(~is_missing(values), "")
    days = {t: _middle(t, latest) for t in text.unique()}
    dates = pd.to_datetime(text.map(days), errors="coerce").astype("datetime64[ns]")
    wrong = (text != "") & (dates.isna() | (dates.dt.year < first))
    rule = f"is no month from {first} to {latest:%m/%Y} (03/2011, 2011-03 or Mar-2011)"
    add_rows(problems, file, str(values.name), values[wrong], rule)
    return dates.mask(wrong)


def _middle(text: str, latest: date) -> date | None:
    """Returns the 15th of a month in text, or None where it is none or after ``latest``."""
    if match := _MONTH_YEAR.fullmatch(text.strip()):
        year, month = (int(match[i] or match[j]) for i, j in ((2, 3), (1, 4)))
    elif match := _NAME_YEAR.fullmatch(text.strip()):
        year, month = _year(match[2], latest), _month(match[1])
    else:
        return None
    day = _day(year, month, 15)
    return day if day and (year, month) <= (latest.year, latest.month) else None


def _two_ways(said: Mapping[str, Read | None], file: str, column: str) -> Problem:
    """Returns the first date that can be read two ways, and what to do."""
    text, pair = next((t, r) for t, r in said.items() if isinstance(r, tuple) and r[0] != r[1])
    one, other = (_in_order(pair, order) for order in ORDERS)
    rule = (
        f"can be {one} or {other}, and no date of the column tells which: give "
        f"--dates {MONTH_FIRST} or --dates {DAY_FIRST}"
    )
    return Problem(file, None, column, text, rule)


def birth_years(
    values: pd.Series, file: str, problems: list[Problem], column: str, last: int
) -> pd.Series:
    """Years of birth in ``1931``, ``/1931``, ``04/1931``, ``4/1/1931`` or ``1931-04``; NaN missing.

    Args:
      values: Text.
      file: For the messages.
      problems: What is no year between 1880 and ``last`` is added to it.
      column: For the messages.
      last: Nobody in the study was born later.
    """
    text = values.where(~is_missing(values), "")
    form = r"^(?:[\d/-]*/)?(\d{4})(?:\.0*|-\d{1,2}(?:-\d{1,2})?)?$"
    years = pd.to_numeric(text.str.extract(form, expand=False)).astype(float)
    wrong = (text != "") & ~years.between(1880, last)
    rule = f"is no year of birth from 1880 to {last} (1931, /1931, 04/1931 or 1931-04)"
    add_rows(problems, file, column, values[wrong], rule)
    return years.mask(wrong)


def _in_order(pair: tuple[int, int, int], order: str) -> date | None:
    first, second, year = pair
    month, day = {MONTH_FIRST: (first, second), DAY_FIRST: (second, first)}.get(order, (0, 0))
    return _day(year, month, day)


def _day(year: int, month: int, day: int) -> date | None:
    """Returns the day, or None where there is none (nor a timestamp for it, in the year 1)."""
    try:
        return date(year, month, day) if 1700 < year < 2200 else None
    except ValueError:
        return None


def _month(name: str) -> int:
    """1 to 12 by an English name or its beginning; 0 for another word."""
    return next((i for i, m in enumerate(_MONTHS, 1) if m.startswith(name.lower())), 0)


def _year(digits: str, latest: date) -> int:
    if len(digits) == 4:
        return int(digits)
    century = latest.year // 100 * 100
    return century + int(digits) - (100 if century + int(digits) > latest.year else 0)
