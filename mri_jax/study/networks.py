"""The networks of a study, before anything is trained."""

from mri_jax.models.summary import table
from mri_jax.settings.study import Study
from mri_jax.study.scans import grid_of, open_store


def described(study: Study) -> str:
    """Returns a table of every network: layers, shapes, parameters, memory of a training step.

    Raises:
      UserError: The store that the study names is absent or malformed, or its volumes are too small
        for a network.
    """
    grid = grid_of(study, open_store(study))
    shape = " x ".join(map(str, grid.shape))
    tables = [f"volumes of {shape} voxels ({grid.name}, {grid.spacing:g} mm)"]
    for run in study.runs:
        tables.append(f"{run.name}\n{table(run.spec, grid.shape, run.train.batch)}")
    return "\n\n".join(tables)
