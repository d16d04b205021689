"""Runs a study to its results folder."""

import contextlib

from etils import epath

from mri_jax.locks import Lock, folder_locked
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.plan import Plan
from mri_jax.settings.study import Study
from mri_jax.study import begin, conclude
from mri_jax.study.announce import announcement
from mri_jax.study.chosen import chosen_runs
from mri_jax.study.feeds import Volumes, check_volumes
from mri_jax.study.history import epoch_writer
from mri_jax.study.prepare import check_memory, check_split, open_volumes, planned
from mri_jax.study.running import Running
from mri_jax.study.scans import open_store, with_sites
from mri_jax.study.stages import StageFolders
from mri_jax.study.work import Work
from mri_jax.training import hosts
from mri_jax.volumes.store import VolumeStore


def run(
    study: Study,
    workdir: epath.PathLike,
    stages: epath.PathLike,
    how: Running | None = None,
) -> None:
    """Runs a study, or as much of it as is not there, and writes its results.

    Networks that a search in the same folder has chosen are among its own.

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
    workdir, folders = epath.Path(workdir), StageFolders(stages, how.say)
    with contextlib.ExitStack() as stack:
        alone = folder_locked(workdir, "work directory", how.say)
        locks: list[Lock] = []  # of the first of several processes
        hosts.agreed(lambda: locks.append(stack.enter_context(alone)))
        hosts.require_shared(folders.root)
        store = open_store(study) if how.store is None else how.store
        study = with_sites(study, store, how.say)
        study = begin.settled(workdir, study, how.on_host)
        begin.check_config(workdir, study)
        further = tuple(chosen_runs(study, workdir).values())
        catalogue, plan = planned(study, folders, store, further)
        check_memory(plan, catalogue, folders, hosts.agreed(lambda: how.memory))
        check_split(plan, how.split)
        # Where there are several processes the first one simulates, and the others find the scans.
        hosts.agreed(lambda: _made(study, catalogue, folders, store, how))
        volumes = open_volumes(study, catalogue, folders, store, how.interrupted)
        hosts.agreed(lambda: folders.add_digests(plan.stages()))
        how.say(how.said)
        how.say(announcement(study, plan, volumes.catalogue, folders))
        hosts.agreed(lambda: _check_pending(plan, volumes, folders))
        work = Work(study, further, plan, volumes, folders, epoch_writer(workdir, plan))
        # A refused study leaves nothing behind, so that the corrected one finds its folder free.
        computing = how.computing(work)
        hosts.agreed(lambda: begin.write(workdir, work, computing))
        how.build(work, computing)
        hosts.agreed(lambda: _conclude(workdir, work, how, locks[0]))


def _made(
    study: Study,
    catalogue: Catalogue,
    folders: StageFolders,
    store: VolumeStore | None,
    how: Running,
) -> None:
    if store is None:
        open_volumes(study, catalogue, folders, store, how.interrupted)


def _check_pending(plan: Plan, volumes: Volumes, folders: StageFolders) -> None:
    pending = [stage for stage in plan.stages() if not folders.finished(stage)]
    check_volumes(volumes, [r for s in pending for e in s.examples for r in e.rows])


def _conclude(workdir: epath.Path, work: Work, how: Running, lock: Lock) -> None:
    lock.require()
    conclude.write_results(work.study, workdir, work.plan, work.volumes, work.folders)
    if how.report:
        conclude.write_report(workdir, how.say)
    how.say(f"results: {workdir}")
