"""What is wrong with a table: one line each with file, row, column and value; all lines at once.

`counted`, `listed` and `quoted` are how every message counts, lists and quotes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from mri_jax.errors import UserError

SHOWN_OF_A_KIND = 50
# So many lines of a list are printed on the screen.
SHOWN = 10
_NAMED = 5
# So many columns of a table are named.
_COLUMNS = 40
# What differs between rules of one kind: numbers, and what other rows say.
_PARTICULARS = re.compile(r"'[^']*'|\d+")


@dataclass(frozen=True)
class Problem:
    """One fault.

    Attributes:
      file: The file as the user named it.
      row: Its row as a spreadsheet counts (the header is row 1), or None for the whole file.
      column: The column, or empty.
      value: The offending value, or empty.
      rule: What it breaks, in words.
    """

    file: str
    row: int | None
    column: str
    value: str
    rule: str

    def __str__(self) -> str:
        place = [self.file]
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column:
            place.append(f"column {self.column}")
        value = f"{quoted(self.value)} " if self.value else ""
        return f"{': '.join(place)}: {value}{self.rule}"


class TableError(UserError):
    """Everything that is wrong with one or several tables.

    Attributes:
      problems: The faults, in the order of their rows.
    """

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(_lines(self.problems)))


def add_rows(problems: list[Problem], file: str, column: str, values: pd.Series, rule: str) -> None:
    """Add a problem for every value, which is indexed by its row."""
    problems += [
        Problem(file, int(str(row)), column, str(value), rule) for row, value in values.items()
    ]


def refuse(problems: Iterable[Problem]) -> None:
    """Raise a `TableError` when there is a problem.

    Raises:
      TableError: There is at least one.
    """
    found = sorted(set(problems), key=lambda p: (p.file, p.row or 0, p.column, p.value, p.rule))
    if found:
        raise TableError(found)


def absent(names: Sequence[str], there: Iterable[object]) -> str:
    """Returns the words for columns that a table lacks, all of them, and for those it has.

    Args:
      names: What is lacking, as it is to be shown; at least one.
      there: The columns found.
    """
    what = f"column {names[0]} is" if len(names) == 1 else f"columns {', '.join(names)} are"
    found = [str(name) for name in there if name][:_COLUMNS]
    return f"{what} missing; found {', '.join(found) or 'none'}"


def refuse_absent(source: object, wanted: Iterable[str], there: Iterable[object]) -> None:
    """Refuses a table without some columns, all of which are named.

    Raises:
      UserError: There is at least one.
    """
    has = list(there)
    if lacking := [repr(name) for name in wanted if name not in has]:
        raise UserError(f"{source}: {absent(lacking, has)}")


def _lines(problems: Sequence[Problem]) -> list[str]:
    """Returns a line each; of many alike (a column of a file) the first fifty and their number."""
    lines: list[str] = []
    alike: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        kind = (problem.file, problem.column, _PARTICULARS.sub("...", problem.rule))
        alike.setdefault(kind, []).append(problem)
        if len(alike[kind]) <= SHOWN_OF_A_KIND:
            lines.append(str(problem))
    for of_kind in alike.values():
        if len(of_kind) > SHOWN_OF_A_KIND:
            first, more = of_kind[0], len(of_kind) - SHOWN_OF_A_KIND
            place = f"{first.file}: column {first.column}" if first.column else first.file
            lines.append(f"{place}: {counted(more, 'more row')} of the same kind ({first.rule})")
    return lines


def counted(n: int, one: str, many: str = "") -> str:
    """Returns a number with the word for what is counted, in the singular or the plural.

    Args:
      n: The number.
      one: The word (and its verb, where one follows) for one.
      many: For any other number; by default ``one`` with an s.

    >>> counted(1, "scan"), counted(2, "scan"), counted(0, "diagnosis", "diagnoses")
    ('1 scan', '2 scans', '0 diagnoses')
    >>> counted(1, "subject is", "subjects are") + " left out"
    '1 subject is left out'
    """
    return f"{n} {one if n == 1 else many or f'{one}s'}"


def quoted(text: str) -> str:
    r"""Returns a text in quotation marks as it is written, but for what a terminal would obey.

    >>> print(quoted(r"scans\a.nii.gz"), quoted("a\033[2J"))
    'scans\a.nii.gz' 'a\x1b[2J'
    """
    return repr(text).replace(r"\\", "\\")


def listed(names: Iterable[str]) -> str:
    """Returns some names for a message: ``a, b, c, d, e and 7 more``; ``nothing`` without any."""
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return (", ".join(every[:_NAMED]) or "nothing") + more


def first_lines(lines: Sequence[str], whole: object) -> list[str]:
    """Returns the first ten lines of a list for the screen, indented, and how many more a file has.

    Args:
      lines: All of them.
      whole: The file that holds them all.
    """
    more = len(lines) - SHOWN
    return [f"  {line}" for line in lines[:SHOWN]] + (
        [f"  ... and {more} more in {whole}"] if more > 0 else []
    )
