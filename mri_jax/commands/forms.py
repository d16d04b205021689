"""The switch ``--forms`` of commands that ask finished networks; training has it in launch.py."""

import argparse

from mri_jax.models import choice


def add_forms(parser: argparse.ArgumentParser) -> None:
    """Declares ``--forms``, which `mri_jax.models.choice.available` understands."""
    parser.add_argument(
        "--forms",
        choices=choice.FORMS,
        help="how conv layers are computed; default: by native kernels on a CPU with a C++ "
        "compiler, else by XLA",
    )
