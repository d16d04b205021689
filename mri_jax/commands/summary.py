"""The networks of a config: layers, shapes, parameters, and the memory of a training step.

summary --config=configs/depth.py:dev
"""

import argparse
import runpy
from pathlib import Path

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.settings.study import Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``python -m mri_jax summary``."""
    parser.add_argument(
        "--config",
        type=files.expanded,
        required=True,
        metavar="FILE[:PRESET]",
        help="as launch.py takes it; fields are not overridden here",
    )


def run(args: argparse.Namespace) -> int:
    """Prints a table of every network."""
    from mri_jax.study.networks import described

    print(described(_study(args.config)))
    return 0


def _study(config: str) -> Study:
    """Returns the study of a config file.

    Raises:
      UserError: The file is absent, ends in an error, or holds no study.
    """
    path, _, preset = config.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--config: {path}: no such file")
    try:
        found = runpy.run_path(path)["get_config"](*filter(None, [preset])).to_dict()
    except Exception as error:  # a config file is a program
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"--config: {path}: {told[:300]}") from None
    return Study.parse(found)
