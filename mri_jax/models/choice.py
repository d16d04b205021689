"""How conv layers are computed: one owner of the choice, for networks and for command lines.

Every form computes one function, up to rounding (`mri_jax.models.conv_layer`):

- ``native``: on CPUs by the kernels of `mri_jax.models.conv_layer.kernels`, which a C++ compiler
  builds at first use; accelerators as ``xla``.
- ``xla``: by XLA, in the form that suits the platform.
- ``lanes``: by XLA, as 2D convolutions of blocks of planes, the form of TPUs, on every platform.
- ``reference``: by XLA, plainly: convolution, BatchNorm, ReLU, max pooling.

JAX is imported when a choice is made, so that a command line can name the forms without it.
"""

import sys
from functools import cache

from mri_jax.errors import UserError

NATIVE, XLA, LANES, REFERENCE = FORMS = ("native", "xla", "lanes", "reference")


def resolved(forms: str | None) -> str:
    """Returns the forms that were chosen, or those of this machine where None were.

    Raises:
      UserError: There are no such forms.

    Example:
      >>> from mri_jax.models.choice import resolved
      >>> resolved("reference")
      'reference'
      >>> resolved(None) in ("native", "xla")
      True
    """
    if forms is None:
        return of_this_machine()
    if forms not in FORMS:
        raise UserError(f"forms: {forms!r} must be one of {', '.join(FORMS)}")
    return forms


def required(forms: str | None) -> str:
    """Returns what `resolved` does, of a command line's ``--forms``, where it can be had.

    Raises:
      UserError: ``native`` is asked for where no CPU computes, or where kernels cannot be had.
    """
    import jax

    from mri_jax.models.conv_layer import kernels

    if forms == NATIVE:
        if jax.default_backend() != "cpu":
            raise UserError(
                f"--forms: native kernels are for CPUs; this machine computes on a "
                f"{jax.default_backend().upper()}"
            )
        try:
            kernels.register()
        except UserError as error:
            raise UserError(f"--forms={NATIVE}: {error}") from None
    return resolved(forms)


@cache
def of_this_machine() -> str:
    """Returns ``native`` where JAX computes on a CPU and the kernels can be had, else ``xla``.

    Where a GPU or TPU computes, no kernel is built: the CPU of such a machine takes XLA's forms.
    Where kernels cannot be had, a line on standard error says why, and what it costs.
    """
    import jax

    from mri_jax.models.conv_layer import kernels

    if jax.default_backend() != "cpu":
        return XLA
    try:
        kernels.register()
    except UserError as error:
        price = "until then XLA computes, which takes about 6 times as long (a step at 2 mm)"
        print(f"note: {error}; {price}", file=sys.stderr, flush=True)
        return XLA
    return NATIVE


def kernel_library(forms: str) -> str | None:
    """Returns the file name of the kernels that some forms use; None where they use none."""
    from mri_jax.models.conv_layer import kernels

    return kernels.built().name if forms == NATIVE else None
