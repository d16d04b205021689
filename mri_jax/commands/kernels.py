"""Build the native CPU kernels, show what is used, and test them on this machine.

kernels
"""

import argparse

from mri_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``python -m mri_jax kernels``: none."""


def run(args: argparse.Namespace) -> int:
    """Build and test; 0 when every result agrees with XLA's."""
    from mri_jax.models.conv_layer import kernels, native_check

    print(f"library: {kernels.built()}")
    worst = 0.0
    for name, error in native_check.errors():
        print(f"{name:<32} largest relative error {error:.1e}")
        worst = max(worst, error)
    if not worst <= native_check.TOLERANCE:
        raise UserError(
            f"native kernels: disagree with XLA's convolution by {worst:.1e}, more than "
            f"{native_check.TOLERANCE:.0e}; set model.form to fast"
        )
    print("the kernels agree with XLA's convolution; model.form=native uses them")
    return 0
