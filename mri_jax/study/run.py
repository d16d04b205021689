"""Runs a study to its results folder."""

from etils import epath

from mri_jax.locks import folder_locked
from mri_jax.settings.study import Study
from mri_jax.study import begin, conclude
from mri_jax.study.announce import announcement
from mri_jax.study.chosen import chosen_runs
from mri_jax.study.feeds import check_volumes
from mri_jax.study.history import epoch_writer
from mri_jax.study.prepare import check_memory, open_volumes, planned
from mri_jax.study.running import Running
from mri_jax.study.scans import open_store, with_sites
from mri_jax.study.stages import StageFolders
from mri_jax.study.work import Work


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
    with folder_locked(workdir, "work directory"):
        store = open_store(study) if how.store is None else how.store
        study = with_sites(study, store, how.say)
        study = begin.settled(workdir, study, how.on_host)
        begin.check_config(workdir, study)
        further = tuple(chosen_runs(study, workdir).values())
        catalogue, plan = planned(study, folders, store, further)
        check_memory(plan, catalogue, folders, how.memory)
        volumes = open_volumes(study, catalogue, folders, store, how.interrupted)
        folders.add_digests(plan.stages())
        how.say(how.said)
        how.say(announcement(study, plan, volumes.catalogue, folders))
        pending = [stage for stage in plan.stages() if not folders.finished(stage)]
        check_volumes(volumes, [r for s in pending for e in s.examples for r in e.rows])
        work = Work(study, further, plan, volumes, folders, epoch_writer(workdir, plan))
        forms = how.forms(work)
        # A refused study leaves nothing behind, so that the corrected one finds its folder free.
        begin.write(workdir, work, how.named, forms, how.kernels(forms))
        how.build(work, forms)
        conclude.write_results(study, workdir, plan, volumes, folders)
        if how.report:
            conclude.write_report(workdir, how.say)
        how.say(f"results: {workdir}")
