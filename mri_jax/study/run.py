"""Runs a study to its results folder, or prints what it would take."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.locks import folder_locked
from mri_jax.planning import fits, simulated
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.planning.planner import make_plan
from mri_jax.runs import results
from mri_jax.settings.study import Study, named
from mri_jax.study import estimate, outputs, scans, tables, verdicts
from mri_jax.study.costs import Costs
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds, Volumes, check_volumes
from mri_jax.study.stages import StageFolders
from mri_jax.training.devices import memory_of, one_fold_each
from mri_jax.training.folds import Wave
from mri_jax.volumes.store import VolumeStore


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Running:
    """How a study runs here; determines nothing of what it finds.

    Attributes:
      wave: What to train on; by default every device trains a fold.
      store: The study's store, where it is open already.
      interrupted: Whether to save and stop; asked often.
      say: Where the summary goes.
      report: Whether to write figures, tables and ``report.html`` at the end.
    """

    wave: Wave | None = None
    store: VolumeStore | None = None
    interrupted: Callable[[], bool] = _never
    say: Callable[[str], None] = print
    report: bool = True


def run(
    study: Study, workdir: epath.PathLike, stages: epath.PathLike, how: Running | None = None
) -> None:
    """Runs a study, or as much of it as is not there, and writes its results.

    Args:
      study: What is asked.
      workdir: The results folder.
      stages: The folder of stages, which other studies may share.
      how: By default on every device, to the end.

    Raises:
      Interrupted: ``how.interrupted`` said so; the same call continues.
      UserError: Anything the user can mend.
    """
    how = how or Running()
    workdir, folders, wave = epath.Path(workdir), StageFolders(stages, how.say), _wave(how)
    with folder_locked(workdir, "work directory"):
        outputs.check_config(workdir, study)
        store = how.store or scans.open_store(study)
        catalogue, plan = planned(study, folders, store)
        check_memory(plan, catalogue, folders, wave)
        volumes = open_volumes(study, catalogue, folders, store, how.interrupted)
        folders.add_digests(plan.stages())
        how.say(announcement(study, plan, volumes.catalogue, folders))
        pending = [stage for stage in plan.stages() if not folders.finished(stage)]
        check_volumes(volumes, [r for s in pending for e in s.examples for r in e.rows])
        # A refused study leaves nothing behind, so that the corrected one finds its folder free.
        outputs.write_config(workdir, study)
        outputs.write_cohort(workdir, plan, volumes.catalogue)
        outputs.write_provenance(workdir, volumes.catalogue, volumes.store)
        outputs.write_plan(workdir, plan, folders)
        Executor(
            folders=folders,
            volumes=volumes,
            feeds=Feeds(volumes, study.data, wave),
            wave=wave,
            interrupted=how.interrupted,
            on_epoch=_epoch_writer(workdir, plan),
            save_seconds=study.save_seconds,
            say=how.say,
        ).run(plan.stages())
        _write_results(study, workdir, plan, volumes, folders)
        if how.report:
            # Its packages take seconds to import, and a study that is refused needs none of them.
            from mri_jax.reporting.report import write_report

            written = write_report([str(workdir)])
            how.say(f"report: {written.page}")


def print_plan(study: Study, stages: epath.PathLike, how: Running | None = None) -> None:
    """Prints the stages of a study, which are cached, and what the others will cost; runs nothing.

    Simulated cohorts that are not there yet are not made: their scans' names are enough.
    """
    how = how or Running()
    folders, wave = StageFolders(stages, how.say), _wave(how)
    catalogue, plan = planned(study, folders, how.store)
    to_simulate = scans.scans_to_make(study, folders.root)
    how.say(announcement(study, plan, catalogue, folders))
    check_memory(plan, catalogue, folders, wave)
    costs = Costs(folders.root, wave, study, how.say)
    memory = memory_of(wave)
    how.say(estimate.report(plan, folders, costs, catalogue.grid, to_simulate, memory))


def _wave(how: Running) -> Wave:
    return how.wave or one_fold_each()


def planned(
    study: Study, folders: StageFolders, store: VolumeStore | None = None
) -> tuple[Catalogue, Plan]:
    """Returns the scans and the plan; simulated scans need not be there yet.

    Args:
      study: What is asked.
      folders: Of stages; descriptions of volumes go there if the store cannot be written.
      store: The study's store, where it is open already.
    """
    store = store or scans.open_store(study)
    if store is None:
        catalogue = simulated.catalogue_to_make(study)
    else:
        catalogue = scans.open_catalogue(study.data.cohort, store, study, folders.root)
    return catalogue, make_plan(study, catalogue)


def open_volumes(
    study: Study,
    catalogue: Catalogue,
    folders: StageFolders,
    store: VolumeStore | None,
    interrupted: Callable[[], bool] = _never,
) -> Volumes:
    """Returns the volumes of a catalogue, which are made first where there is no store of them.

    Raises:
      Interrupted: ``interrupted`` said so during the simulation.
      UserError: The scans cannot be used as asked.
    """
    if store is None:
        catalogue, store = scans.make(study, catalogue, folders.root, interrupted)
    return Volumes(
        store=store,
        catalogue=catalogue,
        how=study.data.intensities,
        references=folders.root / "references",
        threads=study.data.threads,
    )


def check_memory(plan: Plan, catalogue: Catalogue, folders: StageFolders, wave: Wave) -> None:
    """Refuses what the device cannot hold, before anything is simulated or compiled."""
    memory = memory_of(wave)
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and not folders.finished(stage):
            estimate.check_memory(stage.fit, catalogue.grid.shape, memory)


def announcement(study: Study, plan: Plan, catalogue: Catalogue, folders: StageFolders) -> str:
    """What is said of a study before it runs."""
    notes = [f"note: {note}" for note in notes_on(plan, catalogue)]
    return "\n".join([summary(plan, folders), *lengths(study, plan), *notes])


def notes_on(plan: Plan, catalogue: Catalogue) -> list[str]:
    """What the user should know before it runs: of the table, and of targets with one class."""
    tested: dict[str, set[int]] = {}
    for entry in plan.entries:
        for answer in entry.answers:
            if answer.split == "test":
                tested.setdefault(answer.cohort, set()).update(answer.examples.labels)
    possible = {0: "negatives alone: SPE and ACC", 1: "positives alone: SEN and ACC"}
    return [
        *catalogue.notes,
        *(
            f"{cohort} is tested on {possible[labels.pop()]} can be had, and no AUC"
            for cohort, labels in tested.items()
            if len(labels) == 1
        ),
    ]


def lengths(study: Study, plan: Plan) -> list[str]:
    """A line for each run whose limits in steps change its limits in epochs."""
    lines = []
    for run in study.runs:
        stages = (e.network for e in plan.entries if e.run == run.name and e.stage == "source")
        stage = next(s for s in stages if isinstance(s, TrainStage))
        length, asked = stage.fit.stopping, fits.length(run.train)
        if length != asked:
            steps = len(stage.train) // stage.fit.batch
            raised = length.max_epochs > asked.max_epochs
            lines.append(
                f"{run.name}: {steps} steps an epoch, so {length.min_epochs} to "
                f"{length.max_epochs} epochs, patience {length.patience} "
                f"({named('train.min_steps')}={run.train.min_steps}, "
                f"patience_steps={run.train.patience_steps}"
                + (f", which raise max_epochs={asked.max_epochs})" if raised else ")")
            )
    return lines


def summary(plan: Plan, folders: StageFolders) -> str:
    """How many stages there are of each kind, and how many are finished."""
    stages = plan.stages()
    lines = []
    for kind in ("source", "tune", "evaluate", "baseline"):
        found = [stage for stage in stages if stage.kind == kind]
        done = sum(folders.finished(stage) for stage in found)
        if found:
            lines.append(f"{len(found)} {kind} ({done} cached)")
    return "stages: " + ", ".join(lines)


def _epoch_writer(workdir: epath.Path, plan: Plan) -> Callable[[TrainStage, dict[str, Any]], None]:
    """Appends a line an epoch to ``metrics.jsonl``; at the end the file is written anew.

    Buckets cannot append: there the file is written at the end alone.
    """
    if files.on_bucket(workdir):
        return lambda stage, figures: None
    names: dict[str, dict[str, Any]] = {}
    for entry in plan.entries:
        names.setdefault(entry.network.fingerprint, outputs.entry_names(entry))
    path = workdir / results.HISTORY

    def write(stage: TrainStage, figures: dict[str, Any]) -> None:
        if stage.fingerprint not in names:  # an inner fold of a tuning
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**names[stage.fingerprint], **figures}) + "\n")

    return write


def _write_results(
    study: Study,
    workdir: epath.Path,
    plan: Plan,
    volumes: Volumes,
    folders: StageFolders,
) -> None:
    catalogue, say = volumes.catalogue, folders.say
    predictions = outputs.predictions_of(plan, catalogue, folders)
    remarks = verdicts.remarks(plan, folders, predictions)
    rows = outputs.write_plan(workdir, plan, folders, remarks)
    outputs.write_history(workdir, plan, folders)
    outputs.write_first_layer(workdir, plan, volumes, folders)
    outputs.write_scores(workdir, predictions)
    found = tables.comparisons(predictions, pd.DataFrame(rows))
    tables.write(workdir, found, catalogue.simulated)
    for table in found:
        say(f"\n{tables.shown(table, catalogue.simulated)}")
    if remarks:
        say("\n" + "\n".join(map(verdicts.line, remarks, remarks.values())))
    effects = tables.effects(predictions)
    if effects:
        say("\n" + "\n".join(effects))
    if study.smoke:
        say("\nPreset smoke: a few subjects and epochs; these scores mean nothing.")
    say(f"\nresults: {workdir}")
