"""How conv layers are computed: one owner of the choice, for networks and for command lines.

Every form computes one function, up to rounding (`mri_jax.models.conv_layer`). All layers take one
form, by its name, or each layer its own, as was measured (`mri_jax.models.chosen`).

- ``native``: on CPUs by the kernels of `mri_jax.models.conv_layer.kernels`, which a C++ compiler
  builds at first use; accelerators as ``xla``.
- ``xla``: by XLA, in the form that suits the platform.
- ``lanes``: by XLA, as 2D convolutions of blocks of planes, the form of TPUs, on every platform.
- ``volume``: by XLA, as 3D convolutions, the form of GPUs, on every platform.
- ``pallas``: the first layer by kernels that do not write its pre-activation, on NVIDIA GPUs those
  of `mri_jax.models.conv_layer.triton`, or of `mri_jax.models.conv_layer.triton_whole` where it is
  not pooled, on TPUs, where it is pooled, those of `mri_jax.models.conv_layer.mosaic`; other layers
  and platforms as ``xla``.
- ``reference``: by XLA, plainly: convolution, BatchNorm, ReLU, max pooling.

JAX is imported when a choice is made, so that a command line can name the forms without it.
"""

import sys
from functools import cache

from mri_jax.errors import UserError
from mri_jax.models.chosen import Forms

NATIVE, XLA, LANES, VOLUME, PALLAS, REFERENCE = FORMS = (
    "native",
    "xla",
    "lanes",
    "volume",
    "pallas",
    "reference",
)
MEASURE = "measure"
"""What ``--forms`` takes beside them: each layer's form is measured before a study trains."""
ASKED = (*FORMS, MEASURE)


def name(forms: Forms | None) -> str:
    """Returns the form of all layers, or ``measure`` where each has its own."""
    found = forms if forms == MEASURE else resolved(forms)
    return found if isinstance(found, str) else MEASURE


def resolved(forms: Forms | None) -> Forms:
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
    if isinstance(forms, str) and forms not in FORMS:
        raise UserError(f"forms: {forms!r} must be one of {', '.join(FORMS)}")
    return forms


def required(forms: str | None) -> str:
    """Returns how a study computes by a command line's ``--forms``, where it can be had.

    Without one a CPU has a fixed form, and GPUs and TPUs measure.

    Raises:
      UserError: As `available` does.
    """
    import jax

    asked = available(forms)
    if asked == MEASURE or (asked is None and jax.default_backend() != "cpu"):
        return MEASURE
    return name(asked)


def available(forms: str | None) -> str | None:
    """Returns what a command line's ``--forms`` asks for, where it can be had.

    Raises:
      UserError: ``native`` is asked for where no CPU computes, or where kernels cannot be had; or
        ``pallas`` where a CPU computes.
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
    if forms == PALLAS and jax.default_backend() == "cpu":
        raise UserError("--forms: pallas kernels are for GPUs and TPUs; this machine has none")
    return forms


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


def kernel_library(forms: Forms) -> str | None:
    """Returns the file name of the kernels that some forms use; None where they use none."""
    from mri_jax.models.conv_layer import kernels

    used = {forms} if isinstance(forms, str) else {choice.form for choice in forms}
    return kernels.built().name if NATIVE in used else None
