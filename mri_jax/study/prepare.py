"""The plan of a study and its volumes, before anything is trained."""

from collections.abc import Callable

from mri_jax.errors import UserError
from mri_jax.planning import feasible, simulated
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.planning.planner import make_plan
from mri_jax.problems import counted
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study, named
from mri_jax.study import making, scans
from mri_jax.study.feeds import Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.volumes.store import VolumeStore


def planned(
    study: Study,
    folders: StageFolders,
    store: VolumeStore | None = None,
    further: tuple[Run, ...] = (),
) -> tuple[Catalogue, Plan]:
    """Returns the scans and the plan; simulated scans need not be there yet.

    Args:
      study: What is asked.
      folders: Folders of stages; descriptions of volumes go there if the store cannot be written.
      store: The study's store, where it is open already.
      further: Networks beside those that the study names.
    """
    store = scans.open_store(study) if store is None else store
    if store is None:
        catalogue = simulated.catalogue_to_make(study)
    else:
        catalogue = scans.open_catalogue(study.data.cohort, store, study, folders.root)
    return catalogue, make_plan(study, catalogue, further)


def open_volumes(
    study: Study,
    catalogue: Catalogue,
    folders: StageFolders,
    store: VolumeStore | None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Volumes:
    """Returns the volumes of a catalogue, which are made first where there is no store of them.

    Raises:
      Interrupted: ``interrupted`` said so during the simulation.
      UserError: The scans cannot be used as asked.
    """
    if store is None:
        catalogue, store = making.make(study, catalogue, folders.root, interrupted)
    return Volumes(
        store=store,
        catalogue=catalogue,
        how=study.data.intensities,
        references=folders.root / "references",
        threads=study.data.threads,
    )


def check_split(plan: Plan, split: int) -> None:
    """Refuses batches that cannot be divided among ``split`` devices.

    Raises:
      UserError: The first such network.
    """
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and stage.fit.seen_at_once % split:
            raise UserError(
                f"--devices_per_fold: {split} devices cannot share the "
                f"{counted(stage.fit.seen_at_once, 'volume')} that {stage.label} sees at once "
                f"({named('train.batch')}, accumulate)"
            )


def check_memory(plan: Plan, catalogue: Catalogue, folders: StageFolders, memory: int) -> None:
    """Refuses what ``memory`` bytes a fold cannot hold, before anything is made or compiled."""
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and not folders.finished(stage):
            feasible.check_memory(stage.fit, catalogue.grid.shape, memory)
