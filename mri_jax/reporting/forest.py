"""The page's first picture: for each target a row a method, with its AUC drawn and written."""

from dataclasses import dataclass

import numpy as np

from mri_jax.evaluation.scores import estimate
from mri_jax.reporting.analysis import FamilyAnalysis
from mri_jax.runs.labels import label
from mri_jax.showing.numbers import DASH, interval, percent


@dataclass(frozen=True)
class Row:
    """A method; what is drawn is in percent of the axis, from 0 to 100.

    Attributes:
      label: Its name for people.
      name: Its name in tables.
      plain: Whether it is a baseline.
      dots: Each network.
      mean: Their mean; None where it is undefined.
      thick: Limits of interval A; None where there is none.
      thin: Limits of interval B; None where there is none.
      value: The mean, as written.
      limits: Interval A, as written; or why there is none.
    """

    label: str
    name: str
    plain: bool
    dots: tuple[float, ...]
    mean: float | None
    thick: tuple[float, float] | None
    thin: tuple[float, float] | None
    value: str
    limits: str


@dataclass(frozen=True)
class Forest:
    """The AUC of all methods of a table on one target.

    Attributes:
      rows: A row a method, in the order of the table.
      chance: Where an AUC of 50% stands, in percent of the axis.
      low: The AUC at the left end of the axis, percent; at the right end it is 100.
    """

    rows: tuple[Row, ...]
    chance: float
    low: float


def forest(section: FamilyAnalysis, cohort: str) -> Forest:
    """Returns the AUC of every method of a table on a target cohort."""
    entries = section.tested(cohort)
    frame = section.summary
    chosen = frame["cohort"].eq(cohort) & frame["split"].eq("test") & frame["metric"].eq("auc")
    rows = frame[chosen].set_index("method")
    each = {
        e.method.name: np.atleast_1d(estimate("auc", e.scores).value)
        for e in entries
        if e.scores is not None
    }
    limits = rows[["mean", "a_low", "b_low"]].to_numpy(float).ravel()
    lowest = np.nanmin(np.concatenate([[0.5], limits, *each.values()]))
    low = max(0.0, float(np.floor(10 * lowest - 0.1) / 10))

    def place(value: float) -> float:
        return round(100 * (value - low) / (1 - low), 2)

    def between(name: str, row: dict[str, float]) -> tuple[float, float] | None:
        ends = (row[f"{name}_low"], row[f"{name}_high"])
        return None if np.isnan(ends).any() else (place(ends[0]), place(ends[1]))

    made = []
    for entry in entries:
        method, row = entry.method, rows.loc[entry.method.name]
        numbers = {n: float(row[n]) for n in ("mean", "a_low", "a_high", "b_low", "b_high")}
        mean, found = numbers["mean"], each.get(method.name, np.zeros(0))
        made.append(
            Row(
                label=label(method),
                name=method.name,
                plain=method.variant.is_baseline,
                dots=tuple(place(v) for v in found[~np.isnan(found)]),
                mean=None if np.isnan(mean) else place(mean),
                thick=between("a", numbers),
                thin=between("b", numbers),
                value=DASH if np.isnan(mean) else percent(mean),
                limits=interval(numbers["a_low"], numbers["a_high"]) or str(row["a_note"]),
            )
        )
    return Forest(tuple(made), place(0.5), 100 * low)
