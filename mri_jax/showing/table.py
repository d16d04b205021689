"""What a table is, whatever form it is shown in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: What is shown; a line end parts its lines.
      value: What the table sorts by.
      details: Further lines, which a page folds and the other forms show below the text.
      alarm: Whether a page shows it in red.
      bar: The length of a bar below the text on a page, in percent of the cell; None without.
    """

    text: str
    value: float | str
    details: str = ""
    alarm: bool = False
    bar: float | None = None

    @property
    def whole(self) -> str:
        """The text with its details."""
        return f"{self.text}\n{self.details}" if self.details else self.text


@dataclass(frozen=True)
class Table:
    """A table in every form.

    Attributes:
      key: File name without extension.
      title: One line.
      header: Column names; the first column names the rows.
      rows: Cells as shown.
      note: What its numbers mean.
      data: The same, tidy and unrounded, for the CSV file.
      condensed: Whether what a column says in every row is said once, beside the table.
      details: What the details of its cells are, in a few words; empty where none has any.
      lead: What it is for, one sentence: a page that folds the table still says it.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    data: pd.DataFrame = field(default_factory=pd.DataFrame)
    condensed: bool = True
    details: str = ""
    lead: str = ""


def condensed(table: Table) -> tuple[Table, tuple[tuple[str, str], ...]]:
    """Returns a table without the columns that say the same in every row, and what those say.

    The first column stays, a table of one row stays as it is, and of empty columns nothing is said.
    """
    if not table.condensed or len(table.rows) < 2:
        return table, ()
    said = [{row[column].whole for row in table.rows} for column in range(len(table.header))]
    kept = [k for k, found in enumerate(said) if k == 0 or len(found) > 1]
    same = tuple(
        (name, next(iter(found)))
        for k, (name, found) in enumerate(zip(table.header, said, strict=True))
        if k not in kept and found != {""}
    )
    return _with_columns(table, kept), same


def parted(table: Table, by: str) -> dict[str, Table]:
    """Returns a table for each text of a column, without that column.

    A table without the column is returned whole, under an empty text.
    """
    if by not in table.header:
        return {"": table}
    column = table.header.index(by)
    others = [k for k in range(len(table.header)) if k != column]
    texts = dict.fromkeys(row[column].text for row in table.rows)
    return {
        value: _with_columns(
            replace(table, rows=tuple(r for r in table.rows if r[column].text == value)), others
        )
        for value in texts
    }


def _with_columns(table: Table, kept: Sequence[int]) -> Table:
    header = tuple(table.header[k] for k in kept)
    return replace(table, header=header, rows=tuple(tuple(r[k] for k in kept) for r in table.rows))


def text(value: object) -> Cell:
    """Returns a cell of plain text."""
    return Cell(str(value), str(value))


def from_rows(
    key: str, title: str, header: Sequence[str], rows: Sequence[Sequence[object]], note: str = ""
) -> Table:
    """Returns a table of plain text."""
    cells = tuple(tuple(map(text, row)) for row in rows)
    return Table(key, title, tuple(header), cells, note)


def from_frame(
    key: str, title: str, frame: pd.DataFrame, note: str = "", alarm: str | None = None
) -> Table:
    """Returns a table that shows a frame: floats with three digits, NaN as an empty cell.

    Cells that hold the text ``alarm`` are shown in red.
    """

    def shown(value: object) -> Cell:
        if isinstance(value, float):
            return Cell("" if value != value else f"{value:.3g}", value)
        return Cell(str(value), str(value), alarm=value == alarm)

    rows = tuple(tuple(map(shown, row)) for row in frame.to_numpy(object).tolist())
    return Table(key, title, tuple(map(str, frame.columns)), rows, note, frame)


def without_empty(
    header: Sequence[str], rows: Sequence[tuple[Cell, ...]]
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Returns header and rows without the columns in which no row says anything."""
    kept = [k for k in range(len(header)) if any(row[k].text for row in rows)]
    return tuple(header[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in rows)
