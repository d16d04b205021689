"""What a search did and what it brought: numbers for its section of the report."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mri_jax.evaluation import differences, families, summary, thresholds
from mri_jax.evaluation.cells import entries
from mri_jax.evaluation.comparisons import holm
from mri_jax.evaluation.importance import Importance, importance
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs import search as files_of
from mri_jax.runs.results import Results
from mri_jax.runs.search import BESIDE, COMPLETE, PREFIX, Searched
from mri_jax.seeding import generator
from mri_jax.settings.search import OBJECTIVES
from mri_jax.settings.space import Line
from mri_jax.settings.study import Study

WORDS = {
    "auc": "AUC",
    "loss": "held-out loss",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "step_seconds": "seconds a step",
}
"""What people call objectives."""


@dataclass(frozen=True)
class SearchAnalysis:
    """A finished search.

    Attributes:
      study: What was asked.
      searched: What was found.
      aside: The chosen networks and the config's own on the subjects set aside.
      seed: Seed of intervals and permutations.
      key: What the names of its tables and figures begin with.
    """

    study: Study
    searched: Searched
    aside: FamilyAnalysis
    seed: int
    key: str = "search"

    @property
    def kinds(self) -> dict[str, str]:
        """What people call the searches, by their names."""
        own = {"tpe": "TPE", "random": "random search", "grid": "grid"}[self.study.search.sampler]
        beside = {BESIDE: "random trials beside"} if self.study.search.beside else {}
        return {self.study.search.sampler: own, **beside}

    @property
    def objective(self) -> str:
        """The first objective, which chooses the winner."""
        return self.study.search.objectives[0]

    @property
    def sign(self) -> int:
        """1 where more of it is better, else -1."""
        return 1 if OBJECTIVES[self.objective] == "maximize" else -1

    @property
    def complete(self) -> pd.DataFrame:
        """Trials of all kinds that have scores, with numbers where a field has them."""
        rows = self.searched.trials
        rows = rows[rows["state"].eq(COMPLETE)].copy()
        for line in self.lines:
            column = f"{PREFIX}{line.field}"
            if line.type == "choice":
                rows[column] = rows[column].fillna("").astype(str)
            else:
                rows[column] = pd.to_numeric(rows[column], errors="coerce")
        return rows

    @property
    def lines(self) -> tuple[Line, ...]:
        """The fields that were searched."""
        return self.study.lines

    @cached_property
    def importances(self) -> list[tuple[Importance, float]]:
        """The importance of each field, the largest first, and Holm's p of all of them."""
        found = [self._importance(line) for line in self.lines]
        adjusted = holm(pd.Series([each.p for each in found]))
        pairs = list(zip(found, adjusted.tolist(), strict=True))
        return sorted(pairs, key=lambda pair: -np.nan_to_num(pair[0].share, nan=-1.0))

    def _importance(self, line: Line) -> Importance:
        rows, column = self.complete, f"{PREFIX}{line.field}"
        numeric = line.type != "choice"
        drawn = rows[rows[column].notna() if numeric else rows[column].ne("")]
        values = drawn[column].to_numpy()
        if numeric and line.log:
            values = np.log(values.astype(float))
        rng = generator(self.seed, "importance", line.field)
        objective = drawn[self.objective].to_numpy(float)
        return importance(line.field, values, objective, numeric, rng)


def searches(analysis: Analysis) -> list[SearchAnalysis]:
    """Returns the searches among the runs of a report."""
    named = zip(analysis.names, analysis.runs, strict=True)
    found = ((name, _of_run(run, analysis.seed)) for name, run in named)
    there = [(name, each) for name, each in found if each is not None]
    if len(there) == 1:
        return [each for _, each in there]
    return [replace(each, key=f"search-{name}") for name, each in there]


def _of_run(run: Results, seed: int) -> SearchAnalysis | None:
    searched = files_of.read(run.path)
    if searched is None or run.study is None or searched.aside.empty:
        return None
    (family,) = families.declare(searched.aside)
    cells = tuple(entries(searched.aside, family))
    overview = summary.summarise(searched.aside, family, seed, list(cells))
    aside = FamilyAnalysis(
        family=family,
        entries=cells,
        summary=overview,
        differences=differences.compare(searched.aside, family, seed, list(cells)),
        anova=differences.anova_table(overview, family),
        points=thresholds.operating_points(searched.aside, family, seed, list(cells)),
        calibration=thresholds.calibration_table(searched.aside, family, list(cells)),
        classes=(run.study.task.negative, run.study.task.positive),
    )
    return SearchAnalysis(run.study, searched, aside, seed)
