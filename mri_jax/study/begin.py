"""The work directory of a study before anything is trained."""

from typing import Any

from etils import epath

from mri_jax.errors import UserError
from mri_jax.models.chosen import Forms
from mri_jax.planning.plan import Plan
from mri_jax.problems import counted
from mri_jax.runs import results
from mri_jax.settings.study import Study
from mri_jax.study import outputs, provenance
from mri_jax.study.feeds import Volumes
from mri_jax.study.stages import StageFolders

# How many differing fields a message names.
_SHOWN = 4


def check_config(workdir: epath.Path, study: Study) -> None:
    """Check that ``config.json``, where a study has begun, is the same.

    Raises:
      UserError: The work directory holds another study (the differing fields are named), or a
        store or a model, among whose files results would be lost.
    """
    for name, kind in (("store.json", "a store of volumes"), ("model.json", "an exported model")):
        if (workdir / name).exists():
            raise UserError(f"--workdir: {workdir} is {kind}; choose another folder for results")
    # A config without a plan was written by versions that wrote it before they checked the plan.
    if not (workdir / results.CONFIG).exists() or not (workdir / results.PLAN).exists():
        return
    other = "choose another --workdir (finished stages are found all the same)"
    try:
        differ = Study.read(workdir / results.CONFIG).unlike(study)
    except UserError as error:  # of another version
        raise UserError(f"{error}; {other}") from None
    if differ:
        shown = "; ".join(
            f"{name} is {_shown(there)}, not {_shown(here)}"
            for name, (there, here) in list(differ.items())[:_SHOWN]
        )
        if len(differ) > _SHOWN:
            shown += f"; and {counted(len(differ) - _SHOWN, 'more field')}"
        raise UserError(f"{workdir}: is the work directory of another config: {shown}; {other}")


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)


def write(
    workdir: epath.Path,
    study: Study,
    plan: Plan,
    volumes: Volumes,
    folders: StageFolders,
    forms: Forms | None,
) -> None:
    """Writes what is asked, of which scans, how they came to be, by what forms, and the plan."""
    study.write(workdir / results.CONFIG)
    outputs.write_cohort(workdir, plan, volumes.catalogue)
    provenance.write_provenance(workdir, plan, volumes.catalogue, volumes.store, forms)
    outputs.write_plan(workdir, plan, folders)
