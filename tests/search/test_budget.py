"""What networks need, what they may need, and what a search will take."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from configs.search import get_config
from mri_jax.errors import UserError
from mri_jax.models.summary import layers, step_bytes
from mri_jax.planning.inner import inner_plan, parts_of
from mri_jax.planning.simulated import catalogue_to_make
from mri_jax.progress import duration
from mri_jax.search import dry_run
from mri_jax.search.budget import Budget, Speed
from mri_jax.settings.study import Study
from mri_jax.volumes.grids import GRIDS

GRID = GRIDS["demo"]


@pytest.fixture(scope="module")
def catalogue():
    return catalogue_to_make(study_of())


def speed_of(study: Study, catalogue, costs: "Measured") -> Speed:
    run = study.trial({})
    parts = parts_of(study, run, catalogue)
    plan_of = partial(inner_plan, study, catalogue=catalogue, parts=parts)
    return Speed.measured(run, plan_of, lambda plan: costs, GRID)


def study_of(**search: object) -> Study:
    values = get_config("smoke").to_dict()
    values["search"] |= search
    return Study.parse(values)


@dataclass
class Measured:
    """A machine on which a step takes 2 ms, and 1 ns a multiply-add and 3 ns a byte."""

    asked: int = 0

    def program(self, fit, grid):
        self.asked += 1
        rows = layers(fit.step.spec, grid.shape)
        work = fit.batch * sum(row.multiply_adds for row in rows)
        stored = fit.batch * sum(row.activation_bytes for row in rows)
        return SimpleNamespace(
            step_seconds=2e-3 + 1e-9 * work + 3e-9 * stored, compile_seconds=float(self.asked)
        )


def test_needs_are_those_of_the_network_and_seconds_are_predicted_from_others(catalogue):
    study, costs = study_of(), Measured()
    speed = speed_of(study, catalogue, costs)
    assert costs.asked == 4
    assert speed.compile_seconds == 2.5
    run = study.trial({"model.blocks": 4, "model.width": 1.5, "train.batch": 4})
    needs = Budget(study.search, GRID, speed).needs(run)
    rows = layers(run.spec, GRID.shape)
    assert needs.parameters == sum(row.parameters for row in rows)
    assert needs.multiply_adds == sum(row.multiply_adds for row in rows)
    assert 0 <= needs.mebibytes - step_bytes(run.spec, GRID.shape, 4) / 2**20 < 1
    work = 4 * needs.multiply_adds
    stored = 4 * sum(row.activation_bytes for row in rows)
    assert needs.step_seconds == pytest.approx(2e-3 + 1e-9 * work + 3e-9 * stored, rel=1e-6)
    assert needs.told["step_seconds"] == needs.step_seconds
    assert "step_seconds" not in Budget(study.search, GRID).needs(run).told


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"most_parameters": 300_000}, "config.search.most_parameters: 300,000 is less than 319"),
        ({"most_multiply_adds": 10**8}, "most_multiply_adds: 100,000,000 is less than 131,408"),
        ({"most_mebibytes": 10}, "config.search.most_mebibytes: 10 is less than 43 MiB a step"),
        ({"most_seconds": 0.1}, "config.search.most_seconds: 0.1 is less than 0.2"),
    ],
)
def test_what_is_beyond_a_budget_is_refused_by_name(limit, told, catalogue):
    study = study_of(**limit)
    assert study.search.needs_seconds == ("most_seconds" in limit)
    budget = Budget(study.search, GRID, speed_of(study, catalogue, Measured()))
    needs = budget.needs(study.trial({}))
    with pytest.raises(UserError) as refused:
        budget.check(needs)
    assert told in str(refused.value)
    loose = study_of(**{name: 100 * value for name, value in limit.items()})
    Budget(loose.search, GRID).check(needs)


def test_a_plan_says_what_trials_will_take(catalogue):
    study = study_of(trials=12)
    parts = parts_of(study, study.trial({}), catalogue)
    budget = Budget(study.search, GRID, Speed((0.1, 0.0, 0.0), GRID.shape, 5.0))
    drawn = list(dry_run._drawn(study, budget, catalogue, parts, 2**40))
    assert len(drawn) == 50
    # Five seconds of compiling; 19 subjects in two folds, 8 epochs, a tenth of a second a step.
    per_step = {2: (4 + 9 / 6) + (5 + 10 / 6), 4: (2 + 9 / 12) + (2 + 10 / 12)}
    low, high = sorted(5.0 + 8 * 0.1 * steps for steps in per_step.values())
    assert min(drawn) == pytest.approx(low, rel=0.1)
    assert max(drawn) == pytest.approx(high, rel=0.1)
    lines = dry_run._told(study, parts, drawn, 1000.0)
    assert lines[0].startswith("search: 24 trials of 2 networks each on 19 subjects of the source")
    assert "of 50 trials drawn by chance 50 can be started" in lines[1]
    chosen, each = 2 * study.train.folds, float(np.mean(drawn))
    assert f"{chosen} networks of whom it chooses about {duration(chosen / 2 * each)}" in lines[2]
    whole = duration(1000.0 + (24 + chosen / 2) * each)
    assert lines[3] == f"with the networks above in all about {whole} at most"
    tight = Budget(study_of(most_parameters=1).search, GRID, budget.speed)
    nothing = list(dry_run._drawn(study, tight, catalogue, parts, 2**40))
    told = dry_run._told(study, parts, nothing, 1000.0)[-1]
    assert told.startswith("none of 50 trials drawn by chance can be started; the first: config.se")
    assert "most_parameters: 1 is less than" in told
