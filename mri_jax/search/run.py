"""Runs a search: its trials, whom it chooses, and then the study with the chosen networks in it."""

import time
from collections.abc import Sequence

import pandas as pd
from etils import epath
from filelock import Timeout

from mri_jax import files, sealed
from mri_jax.errors import UserError
from mri_jax.evaluation.variants import RANDOM, SEARCHED
from mri_jax.interruption import Interrupted
from mri_jax.locks import lock_of
from mri_jax.planning.plan import Plan
from mri_jax.runs import search as results
from mri_jax.search import record
from mri_jax.search.bench import Bench
from mri_jax.search.budget import Budget, Speed
from mri_jax.search.drawing import say_nothing
from mri_jax.search.ledger import PLACE, Ledger
from mri_jax.search.trial import run_trial
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study
from mri_jax.study import begin
from mri_jax.study.announce import announcement
from mri_jax.study.chosen import chosen_runs
from mri_jax.study.feeds import check_volumes
from mri_jax.study.history import epoch_writer
from mri_jax.study.prepare import check_memory, open_volumes, planned
from mri_jax.study.run import run as run_study
from mri_jax.study.running import Running
from mri_jax.study.scans import open_store
from mri_jax.study.stages import StageFolders
from mri_jax.study.work import Work

_WAIT = 1.0
"""Seconds between looks at trials that other processes run."""


class Here:
    """Runs trials in this process."""

    def trials(self, bench: Bench, ledgers: Sequence[Ledger]) -> None:
        """Runs trials until none is left.

        Raises:
          Interrupted: Asked to stop; the trial that runs is saved.
        """
        work_through(bench, ledgers)

    def aside(self, bench: Bench, runs: Sequence[Run]) -> None:
        """Has networks say something of those who were set aside."""
        look_aside(bench, runs)


def run(
    study: Study,
    workdir: epath.PathLike,
    stages: epath.PathLike,
    how: Running | None = None,
    where: Here | None = None,
) -> None:
    """Runs a search, or as much of it as is not there, and then its study.

    Several processes may do so at once: each takes trials that nobody else runs, and one of them
    chooses and goes on with the study.

    Args:
      study: What is asked.
      workdir: The results folder.
      stages: The folder of stages, which other studies may share.
      how: By default on every device, to the end.
      where: By default in this process.

    Raises:
      Interrupted: ``how.interrupted`` said so; the same call continues.
      UserError: Anything the user can mend.
    """
    say_nothing()
    how, where, workdir = how or Running(), where or Here(), epath.Path(workdir)
    if files.on_bucket(workdir):
        raise UserError(
            f"--workdir: {workdir} is in object storage, which cannot append; a search keeps its "
            "journal on a file system"
        )
    study = begin.settled(workdir, study, how.on_host)
    begin.check_config(workdir, study)
    bench, plan = _opened(study, workdir, stages, how)
    ledgers = ledgers_of(bench, workdir / results.FOLDER)
    if not (workdir / results.FOLDER / results.CHOSEN).exists():
        _announce(bench, plan)
        where.trials(bench, ledgers)
    try:
        held = lock_of(workdir / results.FOLDER / "end.lock").acquire(timeout=0)
    except Timeout:
        how.say("the search has ended; another process writes the results")
        return
    with held:
        _choose(bench, ledgers, workdir, where)
        del bench  # with the volumes that it holds, beside which the study's may not fit
        run_study(study, workdir, stages, how)


def _opened(
    study: Study, workdir: epath.Path, stages: epath.PathLike, how: Running
) -> tuple[Bench, Plan]:
    """Returns what trials share, and the plan of the study's own networks, both checked."""
    folders = StageFolders(stages, how.say)
    store = open_store(study) if how.store is None else how.store
    further = tuple(chosen_runs(study, workdir).values())
    catalogue, plan = planned(study, folders, store, further)
    check_memory(plan, catalogue, folders, how.memory)
    volumes = open_volumes(study, catalogue, folders, store, how.interrupted)
    bench = Bench(study, volumes.catalogue, volumes, folders, how)
    inner = set(bench.parts.inner) | set(bench.parts.aside)
    subjects = volumes.catalogue.frame["subject_id"]
    check_volumes(volumes, [row for row, name in enumerate(subjects) if name in inner])
    work = Work(study, further, plan, volumes, folders, epoch_writer(workdir, plan))
    begin.write(workdir, work, how.computing(work))
    return bench, plan


def ledgers_of(bench: Bench, folder: epath.Path) -> list[Ledger]:
    """Returns the search and, where it is asked for, the random trials beside it."""
    study, search = bench.study, bench.study.search
    kinds = [search.sampler, *([results.BESIDE] if search.beside else [])]
    asked = files.fingerprint(
        {
            "space": study.search.space,
            "objectives": search.objectives,
            "folds": search.folds,
            "pruner": [search.pruner, search.prune_after, search.startup],
            "config": [s.fingerprint for s in bench.plan(study.trial({})).stages()],
        }
    )
    return [Ledger(folder, kind, search, study.lines, study.seed, asked) for kind in kinds]


def _announce(bench: Bench, plan: Plan) -> None:
    study, say, parts = bench.study, bench.how.say, bench.parts
    say(bench.how.said)
    say(announcement(study, plan, bench.catalogue, bench.folders))
    say(
        f"search: {len(parts.inner)} subjects of the source in {study.search.folds} inner folds, "
        f"{len(parts.aside)} set aside"
    )


def work_through(bench: Bench, ledgers: Sequence[Ledger]) -> None:
    """Runs trials until none is left, and waits for those that other processes run.

    Raises:
      Interrupted: ``bench.how.interrupted`` said so; the trial that runs is saved.
    """
    if all(ledger.done for ledger in ledgers):
        return
    say, budget = bench.how.say, budget_of(bench)
    for ledger in ledgers:
        while not ledger.done:
            taken = ledger.take()
            if taken is None:
                time.sleep(_WAIT)
            else:
                again = ", which was interrupted, goes on" if taken.goes_on else ""
                say(f"{taken.name}{again}: {record.described(taken.values)}")
                say(f"{taken.name}: {run_trial(taken, ledger, bench, budget)}")
            if bench.how.interrupted():
                raise Interrupted


def budget_of(bench: Bench) -> Budget:
    """Returns what networks may need; steps are measured only where their seconds are asked for."""
    search, grid = bench.study.search, bench.catalogue.grid
    speed = None
    if search.needs_seconds:
        speed = Speed.measured(bench.study.trial({}), bench.plan, bench.costs, grid)
    return Budget(search, grid, speed)


def _choose(bench: Bench, ledgers: list[Ledger], workdir: epath.Path, where: Here) -> None:
    """Writes whom the search chooses, once, all trials, and what those set aside say of them."""
    study, lines, folder = bench.study, bench.study.lines, workdir / results.FOLDER
    trials = record.table(ledgers, lines, study.search.objectives)
    if not (folder / results.CHOSEN).exists():
        found = {}
        for how, ledger in zip((SEARCHED, RANDOM), ledgers, strict=False):
            trial = record.best(ledger, study.search.objectives)
            if trial is not None:
                place = trial.user_attrs[PLACE] + 1
                values = record.values_of(trial, lines)
                found[how] = {"search": ledger.kind, "trial": place, "values": values}
        if SEARCHED not in found:
            raise UserError(
                f"{folder}: no trial of the search has a score; the first: "
                f"{trials['reason'].iloc[0]}"
            )
        sealed.write(folder / results.CHOSEN, {"chosen": found}, ())
    for about in sealed.read(folder / results.CHOSEN)["chosen"].values():
        bench.how.say(record.told_of_chosen(about, study.model))
    files.write_csv(folder / results.TRIALS, trials)
    runs = [*chosen_runs(study, workdir).values(), study.trial({})]
    where.aside(bench, runs)
    said = [bench.predictions(bench.aside(run)) for run in runs]
    files.write_csv(folder / results.ASIDE, pd.concat(said, ignore_index=True))


def look_aside(bench: Bench, runs: Sequence[Run]) -> None:
    """Has networks of trials, and the config's own, say something of those who were set aside."""
    for run in runs:
        plan = bench.aside(run)
        bench.train(plan, lambda stage, figures: None, bench.how.interrupted)
