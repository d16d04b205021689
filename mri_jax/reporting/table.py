"""What a table of the report is, and how its numbers are written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SIMULATED = "SIMULATED scans"
DASH = "–"
MINUS = "−"


@dataclass(frozen=True)
class Cell:
    """What a table shows and what it sorts by."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Table:
    """A table in every form.

    Attributes:
      key: File name without extension.
      title: One line.
      note: What its numbers mean.
      header: Column names.
      rows: Cells as shown.
      data: The same, tidy and unrounded, for the CSV file.
    """

    key: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    data: pd.DataFrame


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent; a dash where it is NaN."""
    return DASH if np.isnan(value) else f"{100 * value:.{digits}f}"


def signed(value: float) -> str:
    """A difference of fractions in points, ``+1.2`` or ``−0.3``; without a sign where it is 0.0.

    A dash where it is NaN.
    """
    if np.isnan(value):
        return DASH
    shown = f"{100 * value:+.1f}".replace("-", MINUS)
    return "0.0" if shown[1:] == "0.0" else shown


def ratio(value: float) -> str:
    """An odds ratio with two decimals; ``∞`` where one side never errs."""
    return "∞" if np.isinf(value) else f"{value:.2f}"


def p_value(value: float) -> str:
    """A p-value with three decimals; a dash where it is NaN."""
    if np.isnan(value):
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    """``[82.1, 88.0]`` in percent; empty where it is NaN."""
    if np.isnan(low) or np.isnan(high):
        return ""
    # Adding zero turns a rounded -0.0 into 0.0.
    limits = [f"{round(100 * limit, 1) + 0.0:.1f}" for limit in (low, high)]
    return f"[{', '.join(limits)}]".replace("-", MINUS)


def text(value: object) -> Cell:
    """A cell of plain text."""
    return Cell(str(value), str(value))


def without_empty(
    header: Sequence[str], rows: Sequence[tuple[Cell, ...]]
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Header and rows without the columns in which no row says anything."""
    kept = [k for k in range(len(header)) if any(row[k].text for row in rows)]
    return tuple(header[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in rows)
