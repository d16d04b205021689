"""The networks of a run as one portable folder, which predict takes in place of the run.

  export-model RUN --out DIR [--network cnn5-w1] [--stage source --stage tuned-high]

The folder holds parameters, spec, preprocessing settings, thresholds, calibrator, references and a
model card filled from the run; no subject ids, no scores of subjects, no pickle.
"""

import argparse
from pathlib import Path

from mri_jax import backend
from mri_jax.commands.predict import add_choice
from mri_jax.models import choice
from mri_jax.prediction import folder
from mri_jax.prediction.open import open_model
from mri_jax.showing import simulated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax export-model``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a results folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Export; 0."""
    backend.start()
    forms = choice.available(args.forms)
    model = open_model(args.run, args.network, args.stage, args.stages, args.store, forms)
    folder.save(model, args.out)
    stages = ", ".join(ensemble.stage for ensemble in model.ensembles)
    word = f"{simulated.WORD}: " if model.simulated else ""
    print(f"{word}{args.out}: {model.name} ({stages}); read {args.out / folder.CARD}")
    return 0
