"""Where a model comes from: an exported folder, or a run, which keeps it for the next time."""

import sys
from collections.abc import Sequence

from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.filenames import safe_name
from mri_jax.prediction import folder
from mri_jax.prediction.build import build, fingerprint_of
from mri_jax.prediction.model import PortableModel
from mri_jax.runs.results import CONFIG, PREDICTIONS
from mri_jax.runs.trained import open_run

KEPT = "model"
"""Folder of a run that holds its model once it was asked for."""


def open_model(
    path: epath.PathLike,
    network: str = "",
    stages: Sequence[str] = (),
    stage_folder: epath.PathLike | None = None,
    store: epath.PathLike | None = None,
    forms: str | None = None,
) -> PortableModel:
    """Open an exported folder, or make the model of a run.

    The model of a run is kept in ``RUN/model/NAME-FINGERPRINT``, so that the features of its
    training scans are computed once.

    Args:
      path: A model folder or a results folder.
      network: The variant; by default the first of the run.
      stages: Which stages; by default all.
      stage_folder: As in `mri_jax.runs.trained.open_run`.
      store: As there.
      forms: How conv layers are computed where a model is made; as in `build`.

    Raises:
      UserError: Neither can be opened, or the network or a stage is not in it.
    """
    kinds = (folder.DESCRIPTION, CONFIG, PREDICTIONS)
    files.refuse_file(path, "results folder or model folder", *kinds)
    if folder.is_model(path):
        model = folder.load(path)
        if network not in ("", model.name):
            raise UserError(f"network: {network!r} is not in {path}; it is {model.name}")
        return model.only(stages) if stages else model
    run = open_run(path, stage_folder, store)
    variant = network or run.variants[0]
    chosen = tuple(stages) or run.stages(variant)
    digest = fingerprint_of(run, variant, chosen)
    kept = run.results.path / KEPT / f"{safe_name(variant, keep='_')}-{digest[:16]}"
    if folder.is_model(kept):
        return folder.load(kept)
    model = build(run, variant, chosen, forms=forms)
    try:
        folder.save(model, kept)
    except UserError as error:
        print(f"note: the model is not kept for the next time ({error})", file=sys.stderr)
    return model
