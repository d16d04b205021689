"""The networks of a config: layers, shapes, parameters, and the memory of a training step.

summary --config=configs/depth.py:dev
"""

import argparse

from mri_jax import files
from mri_jax.settings.config_file import fields_of
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

    print(described(Study.parse(fields_of(args.config))))
    return 0
