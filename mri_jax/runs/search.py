"""What a search left in a results folder: its trials, its choice, and the subjects set aside.

::

    search/journal.jsonl   the trials, as processes wrote them (`mri_jax.search.journal`)
           chosen.json     the winner and the best of the random trials; written once
           trials.csv      a row a trial: search, trial, state, reason, fields, needs, scores
           aside.csv       predictions of the chosen networks for the subjects set aside
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from etils import epath

from mri_jax import files, sealed
from mri_jax.evaluation import predictions
from mri_jax.problems import refuse_absent
from mri_jax.runs.results import IDENTIFIERS

FOLDER, TRIALS, ASIDE, CHOSEN = "search", "trials.csv", "aside.csv", "chosen.json"
PREFIX = "field: "
"""What stands before the name of a searched field in the header of ``trials.csv``."""
COMPLETE, PRUNED = "complete", "pruned"
BESIDE = "beside"
"""The kind of the random trials that a search is compared with."""
_TEXT = ("search", "state", "reason")


@dataclass(frozen=True)
class Searched:
    """A finished search.

    Attributes:
      trials: A row a trial.
      aside: Predictions for the subjects who were set aside.
      chosen: What ``chosen.json`` holds.
    """

    trials: pd.DataFrame
    aside: pd.DataFrame
    chosen: dict[str, Any]

    @property
    def fields(self) -> list[str]:
        """The names of the searched fields."""
        return [c.removeprefix(PREFIX) for c in self.trials.columns if c.startswith(PREFIX)]

    def of(self, kind: str) -> pd.DataFrame:
        """Returns the trials of a kind that have scores."""
        rows = self.trials
        return rows[rows["search"].eq(kind) & rows["state"].eq(COMPLETE)]


def read(run: epath.Path) -> Searched | None:
    """Returns the search of a results folder; None where there is none that has ended.

    Raises:
      UserError: A file of it is malformed.
    """
    folder = run / FOLDER
    if not files.is_there(folder / CHOSEN) or not files.is_there(folder / TRIALS):
        return None
    trials = files.read_csv(folder / TRIALS, _TEXT, whole=True)
    refuse_absent(folder / TRIALS, ("search", "trial", "state", "reason"), trials)
    aside = pd.DataFrame()
    if files.is_there(folder / ASIDE):
        rows = files.read_csv(folder / ASIDE, IDENTIFIERS, whole=True)
        aside = predictions.validate(rows, str(folder / ASIDE))
    return Searched(trials, aside, sealed.read(folder / CHOSEN))
