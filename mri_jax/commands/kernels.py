"""Build the native CPU kernels, show what is used, and test them on this machine.

kernels

Studies, predictions and explanations build them at first use; --forms=xla does without.
"""

import argparse

from mri_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax kernels``: none."""


def run(args: argparse.Namespace) -> int:
    """Builds and tests; returns 0 when every result agrees with XLA's."""
    import jax

    from mri_jax.models.conv_layer import kernels, native_check

    print(f"library: {kernels.built()}")
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        for name, error in native_check.errors():
            allowed = f"(allowed {native_check.TOLERANCE:.0e})"
            print(f"{name:<48} difference from XLA {f'{error:.1e}' if error else 0} {allowed}")
            if not error <= native_check.TOLERANCE:  # NaN too
                raise UserError(
                    f"native kernels: disagree with XLA's convolution by {error:.1e}, more than "
                    f"{native_check.TOLERANCE:.0e}; use --forms=xla"
                )
    print(f"the kernels agree with XLA's convolution; {_used()}")
    return 0


def _used() -> str:
    from mri_jax.models import choice

    if choice.resolved(None) == choice.NATIVE:
        return "conv layers are computed by them"
    return "this machine computes on a GPU or TPU, which takes XLA's forms"
