"""Prints what a search would take: ``launch.py --plan``."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import optuna
from etils import epath

from mri_jax.errors import UserError
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.feasible import check_memory
from mri_jax.planning.inner import Parts, inner_plan, parts_of
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.problems import counted
from mri_jax.progress import duration
from mri_jax.runs.search import BESIDE
from mri_jax.search.budget import Budget, Speed
from mri_jax.search.drawing import sampler, say_nothing, values_of
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study
from mri_jax.study import dry_run
from mri_jax.study.measured import Costs
from mri_jax.study.prepare import planned
from mri_jax.study.running import Running
from mri_jax.study.stages import StageFolders

_DRAWN = 50
"""Random trials whose cost stands for that of all."""


def print_plan(
    study: Study, workdir: epath.PathLike, stages: epath.PathLike, how: Running | None = None
) -> None:
    """Prints what the study's own networks will cost, and what the search will; runs nothing.

    Raises:
      UserError: What a search would refuse.
    """
    say_nothing()
    how = how or Running()
    own = dry_run.print_plan(study, workdir, stages, how)
    study = study.with_dtype("float32" if how.on_host else "bfloat16")
    folders = StageFolders(stages, how.say)
    catalogue, _ = planned(study, folders, how.store)
    parts = parts_of(study, study.trial({}), catalogue)
    grid = catalogue.grid

    def costs_of(plan: Plan) -> Costs:
        return Costs(folders.root, how.wave_of(plan, grid.shape, folders), study, how.say)

    plan_of = partial(inner_plan, study, catalogue=catalogue, parts=parts)
    budget = Budget(study.search, grid, Speed.measured(study.trial({}), plan_of, costs_of, grid))
    drawn = list(_drawn(study, budget, catalogue, parts, how.memory))
    how.say("\n".join(_told(study, parts, drawn, own)))


def _told(study: Study, parts: Parts, drawn: Sequence[float | UserError], own: float) -> list[str]:
    """Returns lines on a search, after those on the study's own networks, which take ``own``."""
    search = study.search
    trials = search.trials * (1 + search.beside)
    lines = [
        (
            f"search: {counted(trials, 'trial')} of {search.folds} networks each on "
            f"{len(parts.inner)} subjects of the source, {len(parts.aside)} set aside"
        )
    ]
    begun = [seconds for seconds in drawn if isinstance(seconds, float)]
    if not begun:
        why = f"none of {len(drawn)} trials drawn by chance can be started; the first: {drawn[0]}"
        return [*lines, why]
    low, middle, high = np.quantile(begun, (0.1, 0.5, 0.9))
    share = len(begun) / len(drawn)
    whole = trials * share * float(np.mean(begun))
    networks = (1 + search.beside) * study.train.folds
    again = networks * float(np.mean(begun)) / search.folds
    return [
        *lines,
        (
            f"of {len(drawn)} trials drawn by chance {len(begun)} can be started; one takes "
            f"{duration(middle)} (a tenth less than {duration(low)}, a tenth more than "
            f"{duration(high)})"
        ),
        (
            f"the search about {duration(whole)} at most (pruning and early stopping end sooner), "
            f"{counted(networks, 'network')} of whom it chooses about {duration(again)}"
        ),
        f"with the networks above in all about {duration(own + whole + again)} at most",
    ]


def _drawn(
    study: Study, budget: Budget, catalogue: Catalogue, parts: Parts, memory: int
) -> Iterator[float | UserError]:
    """Yields the seconds of trials drawn by chance, or why one would not be started."""
    place = optuna.create_study(directions=["minimize"] * len(study.search.objectives))
    for number in range(_DRAWN):
        place.sampler = sampler(study.search, BESIDE, study.seed, number)
        values = values_of(place.ask(), study.lines)
        try:
            run = study.trial(values)
            needs = budget.needs(run)
            budget.check(needs)
            seconds = _seconds(study, run, catalogue, parts, needs.step_seconds, memory)
            yield seconds + (budget.speed.compile_seconds if budget.speed else 0.0)
        except UserError as error:
            yield error


def _seconds(
    study: Study, run: Run, catalogue: Catalogue, parts: Parts, step: float, memory: int
) -> float:
    """Returns the seconds of a trial at its largest number of epochs, without compiling."""
    seconds = 0.0
    for stage in inner_plan(study, run, catalogue, parts).stages():
        if isinstance(stage, TrainStage):
            check_memory(stage.fit, catalogue.grid.shape, memory)
            steps = len(stage.train) // stage.fit.batch
            # An evaluation is a third of a step: it goes forwards alone.
            held_out = len(stage.validation) / stage.fit.batch / 3
            seconds += stage.fit.stopping.max_epochs * (steps + held_out) * step
    return seconds
