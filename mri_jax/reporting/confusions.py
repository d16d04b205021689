"""The decisions of every single network as small pictures, so that one that decides alike is seen.

A network whose every subject falls in one class has an empty column.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mri_jax.evaluation.cells import MethodScores
from mri_jax.evaluation.intervals import decisions
from mri_jax.evaluation.operating import ARGMAX, INNER, REFITTED
from mri_jax.evaluation.thresholds import points_of
from mri_jax.reporting.analysis import FamilyAnalysis
from mri_jax.runs.labels import titled


@dataclass(frozen=True)
class Confusion:
    """The decisions of one network.

    Attributes:
      fold: The fold that it did not learn from.
      shares: For positive and negative subjects, the shares decided positive and negative; None
        where there are none of them.
      alike: Whether every subject is decided alike, although there are both classes.
    """

    fold: int
    shares: tuple[tuple[float, float] | None, tuple[float, float] | None]
    alike: bool


@dataclass(frozen=True)
class Decisions:
    """The networks of a method on one target.

    Attributes:
      label: The method.
      cohort: The target.
      argmax: Each network at argmax.
      refitted: Each network at a threshold fitted on the adaptation part; empty without one.
    """

    label: str
    cohort: str
    argmax: tuple[Confusion, ...]
    refitted: tuple[Confusion, ...]


def of_section(section: FamilyAnalysis, predictions: pd.DataFrame) -> list[Decisions]:
    """Returns the decisions of every method of a table on every target."""
    made = []
    for cohort in section.cohorts:
        for entry in section.tested(cohort):
            at: dict[str, tuple[Confusion, ...]] = {}
            for point, threshold, note in points_of(predictions, section.family, entry):
                if not note:
                    at[point] = tuple(_confusions(entry, threshold))
            refitted = at.get(REFITTED, at.get(INNER, ()))
            label = titled(section.label(entry.method.name))
            made.append(Decisions(label, cohort, at[ARGMAX], refitted))
    return made


def _confusions(entry: MethodScores, threshold: np.ndarray | None) -> list[Confusion]:
    scores = entry.scores
    assert scores is not None
    made = []
    for fold, decided, tested in zip(
        scores.fold, decisions(scores, threshold), scores.tested, strict=True
    ):
        shares = []
        for value in (1, 0):
            members = decided[tested & (scores.label == value)]
            positive = float(members.mean()) if len(members) else float("nan")
            shares.append(None if np.isnan(positive) else (positive, 1 - positive))
        alike = None not in shares and len(np.unique(decided[tested])) == 1
        made.append(Confusion(int(fold), (shares[0], shares[1]), alike))
    return made
