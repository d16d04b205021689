"""Prints what a study would take: ``launch.py --plan``."""

from etils import epath

from mri_jax.settings.study import Study
from mri_jax.study import begin, estimate
from mri_jax.study.announce import announcement
from mri_jax.study.making import scans_to_make
from mri_jax.study.measured import Costs
from mri_jax.study.prepare import check_memory, check_split, planned
from mri_jax.study.running import Running
from mri_jax.study.scans import open_store, with_sites
from mri_jax.study.stages import StageFolders


def print_plan(
    study: Study, workdir: epath.PathLike, stages: epath.PathLike, how: Running | None = None
) -> float:
    """Prints the stages of a study, which are cached, and what the others will cost; runs nothing.

    Simulated cohorts that are not there yet are not made: their scans' names are enough.

    Returns:
      The seconds that it takes at most.

    Raises:
      UserError: What `run` would refuse.
    """
    how = how or Running()
    store = open_store(study) if how.store is None else how.store
    study = with_sites(study, store, how.say)
    study = begin.settled(epath.Path(workdir), study, how.on_host)
    begin.check_config(epath.Path(workdir), study)
    folders = StageFolders(stages, how.say)
    catalogue, plan = planned(study, folders, store)
    to_simulate = scans_to_make(study, folders.root)
    check_memory(plan, catalogue, folders, how.memory)
    check_split(plan, how.split)
    how.say(how.said)
    how.say(announcement(study, plan, catalogue, folders))
    wave = how.wave_of(plan, catalogue.grid.shape, folders)
    costs = Costs(folders.root, wave, study, how.say)
    told, seconds = estimate.report(plan, folders, costs, catalogue.grid, to_simulate)
    how.say(told)
    return seconds
