"""The networks that a search chose, as its results folder keeps them."""

from dataclasses import replace

from etils import epath

from mri_jax import files, sealed
from mri_jax.runs import search as results
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study


def chosen_runs(study: Study, workdir: epath.Path) -> dict[str, Run]:
    """Returns the networks that a search has chosen, by how; none before it has.

    Args:
      study: The study of the search.
      workdir: Its results folder.
    """
    path = workdir / results.FOLDER / results.CHOSEN
    if not files.is_there(path):
        return {}
    found = {}
    for how, about in sealed.read(path)["chosen"].items():
        # JSON has no tuples.
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in about["values"].items()}
        run = study.trial(values)
        found[how] = replace(run, variant=replace(run.variant, chosen=how))
    return found
