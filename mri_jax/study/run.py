"""A study from its config to its results folder."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from etils import epath

from mri_jax import files, results
from mri_jax.errors import naming
from mri_jax.locks import folder_locked
from mri_jax.reporting.report import write_report
from mri_jax.study import estimate, outputs, simulated, tables, verdicts
from mri_jax.study.costs import Costs
from mri_jax.study.data import Catalogue, open_catalogue
from mri_jax.study.device import memory_of, one_fold_each
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds, Volumes, check_volumes
from mri_jax.study.plan import Plan, TrainStage
from mri_jax.study.planning import make_plan
from mri_jax.study.settings import Study
from mri_jax.study.stages import StageFolders
from mri_jax.training.folds import Wave
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.store import VolumeStore


def run(
    config: Mapping[str, Any],
    workdir: epath.PathLike,
    stages: epath.PathLike,
    interrupted: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
    report: bool = True,
    wave: Wave | None = None,
) -> None:
    """Run a study, or as much of it as is not there, and write its results.

    Args:
      config: Nested mapping with the fields of ``configs/base.py``.
      workdir: The results folder.
      stages: The folder of stages, which other studies may share.
      interrupted: Whether to save and stop; asked often.
      say: Where the summary goes.
      report: Whether to write figures, tables and ``report.html`` at the end.
      wave: What to train on; by default every device trains a fold.

    Raises:
      Interrupted: ``interrupted`` said so; the same call continues.
      UserError: Anything the user can mend.
    """
    study = Study.from_config(config)
    workdir, folders, wave = epath.Path(workdir), StageFolders(stages, say), wave or one_fold_each()
    with folder_locked(workdir, "work directory"):
        outputs.check_config(workdir, config)
        plan, volumes = prepare(study, folders, wave, interrupted)
        folders.add_digests(plan.stages())
        say(announcement(study, plan, volumes.catalogue, folders))
        pending = [stage for stage in plan.stages() if not folders.finished(stage)]
        check_volumes(volumes, [r for s in pending for e in s.examples for r in e.rows])
        # A refused study leaves nothing behind, so that the corrected one finds its folder free.
        outputs.write_config(workdir, config)
        outputs.write_cohort(workdir, plan, volumes.catalogue)
        outputs.write_provenance(workdir, volumes.catalogue, volumes.store)
        outputs.write_plan(workdir, plan, folders)
        Executor(
            folders=folders,
            volumes=volumes,
            feeds=Feeds(volumes, study.data),
            wave=wave,
            interrupted=interrupted,
            on_epoch=_epoch_writer(workdir, plan),
            save_seconds=study.save_seconds,
            say=say,
        ).run(plan.stages())
        _write_results(study, workdir, plan, volumes, folders, say)
        if report:
            written = write_report([str(workdir)])
            say(f"report: {written.page}")


def prepare(
    study: Study,
    folders: StageFolders,
    wave: Wave,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[Plan, Volumes]:
    """The plan and the volumes, which are simulated first where the study makes them itself.

    Raises:
      Interrupted: ``interrupted`` said so during the simulation.
      UserError: The scans cannot be used as asked, or the device is too small.
    """
    catalogue, plan = planned(study, folders)
    check_memory(plan, catalogue, folders, wave)
    if study.data.simulated:
        catalogue, store = simulated.make(study, _simulations(folders), interrupted)
        plan = make_plan(study, catalogue)
    else:
        store = _store(study)
    volumes = Volumes(
        store=store,
        catalogue=catalogue,
        how=study.data.normalisation,
        references=folders.root / "references",
        threads=study.data.threads,
    )
    return plan, volumes


def voxels_of(study: Study) -> int:
    """How many voxels a volume of the study has."""
    if study.data.simulated:
        return math.prod(GRIDS[study.data.simulation.grid].shape)
    return math.prod(_store(study).info.grid.shape)


def _store(study: Study) -> VolumeStore:
    """The store that a study names."""
    with naming("config.data.store"):
        return VolumeStore(study.data.store)


def planned(study: Study, folders: StageFolders) -> tuple[Catalogue, Plan]:
    """The scans and the plan; simulated scans need not be there yet."""
    if study.data.simulated:
        catalogue = simulated.catalogue_to_make(study)
    else:
        store = _store(study)
        catalogue = open_catalogue(study.data.cohort, store, study, elsewhere=folders.root)
    return catalogue, make_plan(study, catalogue)


def _simulations(folders: StageFolders) -> epath.Path:
    """Where simulated cohorts are kept: on this machine, since volumes are memory maps."""
    if files.on_bucket(folders.root):
        return epath.Path("~/.cache/mri_jax/simulated").expanduser()
    return folders.root / "simulated"


def check_memory(plan: Plan, catalogue: Catalogue, folders: StageFolders, wave: Wave) -> None:
    """Refuse what the device cannot hold, before anything is simulated or compiled."""
    memory = memory_of(wave)
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and not folders.finished(stage):
            estimate.check_memory(stage.fit, catalogue.grid.shape, memory)


def print_plan(
    config: Mapping[str, Any],
    stages: epath.PathLike,
    say: Callable[[str], None] = print,
    wave: Wave | None = None,
) -> None:
    """Print the stages of a study, which are cached, and what the others will cost; run nothing.

    Simulated cohorts that are not there yet are not made: their scans' names are enough.
    """
    study, folders = Study.from_config(config), StageFolders(stages, say)
    wave = wave or one_fold_each()
    catalogue, plan = planned(study, folders)
    scans = simulated.scans_to_make(study, _simulations(folders))
    say(announcement(study, plan, catalogue, folders))
    check_memory(plan, catalogue, folders, wave)
    costs = Costs(folders.root, wave, study, say)
    say(estimate.report(plan, folders, costs, catalogue.grid, scans, memory_of(wave)))


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
        length, asked = stage.fit.stopping, run.train.stopping
        if length != asked:
            steps = len(stage.train) // stage.fit.batch
            raised = length.max_epochs > asked.max_epochs
            lines.append(
                f"{run.name}: {steps} steps an epoch, so {length.min_epochs} to "
                f"{length.max_epochs} epochs, patience {length.patience} "
                f"(config.train.min_steps={run.limits.min_steps}, "
                f"patience_steps={run.limits.patience_steps}"
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
    say: Callable[[str], None],
) -> None:
    catalogue = volumes.catalogue
    predictions = outputs.predictions_of(plan, catalogue, folders)
    remarks = verdicts.remarks(plan, folders, predictions)
    outputs.write_plan(workdir, plan, folders, remarks)
    outputs.write_history(workdir, plan, folders)
    outputs.write_first_layer(workdir, plan, volumes, folders)
    outputs.write_scores(workdir, predictions)
    written = pd.DataFrame(files.read_json(workdir / results.PLAN)["stages"])
    found = tables.comparisons(predictions, written)
    tables.write(workdir, found, catalogue.simulated)
    for table in found:
        say(f"\n{tables.shown(table, catalogue.simulated)}")
    if remarks:
        say("\n" + "\n".join(map(verdicts.line, remarks, remarks.values())))
    effects = tables.effects(predictions)
    if effects:
        say("\n" + "\n".join(effects))
    if study.preset == "smoke":
        say("\nPreset smoke: a few subjects and epochs; these scores mean nothing.")
    say(f"\nresults: {workdir}")
