"""The work directory of a study before anything is trained."""

from typing import Any

from etils import epath

from mri_jax.errors import UserError
from mri_jax.problems import counted
from mri_jax.runs import results
from mri_jax.settings.study import Study
from mri_jax.study import outputs, provenance
from mri_jax.study.computing import Computing
from mri_jax.study.work import Work

# How many differing fields a message names.
_SHOWN = 4


def settled(workdir: epath.Path, study: Study, on_host: bool) -> Study:
    """Returns the study with its activations' type where that is left to the device.

    A study that has begun keeps its type; another one takes bfloat16 on GPUs and TPUs.

    Args:
      workdir: The results folder.
      study: What is asked.
      on_host: Whether a CPU computes.
    """
    here = study.with_dtype("float32" if on_host else "bfloat16")
    if here == study or not _begun(workdir):
        return here
    try:
        before = Study.read(workdir / results.CONFIG).model.dtype
    except UserError:  # of another version, which `check_config` tells
        return here
    return study.with_dtype(before)


def _begun(workdir: epath.Path) -> bool:
    # A config without a plan was written by versions that wrote it before they checked the plan.
    return (workdir / results.CONFIG).exists() and (workdir / results.PLAN).exists()


def check_config(workdir: epath.Path, study: Study) -> None:
    """Check that ``config.json``, where a study has begun, is the same.

    Raises:
      UserError: The work directory holds another study (the differing fields are named), or a
        store or a model, among whose files results would be lost.
    """
    for name, kind in (("store.json", "a store of volumes"), ("model.json", "an exported model")):
        if (workdir / name).exists():
            raise UserError(f"--workdir: {workdir} is {kind}; choose another folder for results")
    if not _begun(workdir):
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


def write(workdir: epath.Path, work: Work, computing: Computing) -> None:
    """Writes what is asked, of which scans, how they came to be, by what it runs, and the plan."""
    work.study.write(workdir / results.CONFIG)
    outputs.write_cohort(workdir, work.plan, work.volumes.catalogue)
    provenance.write_provenance(workdir, work.plan, work.volumes, computing)
    outputs.write_plan(workdir, work.plan, work.folders)
