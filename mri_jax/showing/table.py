"""What a table is, whatever form it is shown in."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: What is shown; a line end parts its lines.
      value: What the table sorts by.
      alarm: Whether a page shows it in red.
      bar: The length of a bar below the text on a page, in percent of the cell; None without.
    """

    text: str
    value: float | str
    alarm: bool = False
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table in every form.

    Attributes:
      key: File name without extension.
      title: One line.
      header: Column names.
      rows: Cells as shown.
      note: What its numbers mean.
      data: The same, tidy and unrounded, for the CSV file.
      condensed: Whether LaTeX says what a column says in every row once, in the caption.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    data: pd.DataFrame = field(default_factory=pd.DataFrame)
    condensed: bool = True


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
