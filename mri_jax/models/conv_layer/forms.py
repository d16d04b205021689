"""The exact forms of a conv layer's heavy part, and which one a platform takes.

A form computes the pre-activation ``z`` of activated maps, the moments of each volume and the
selection of maxima, and the way back through all of it. On CPUs the `native` kernels are taken, or
where they are not wanted a sum of 2D convolutions (`planes`); on TPUs blocks of planes (`lanes`)
where channels are few; elsewhere XLA's own 3D convolution (`volume`). The form follows the platform
that a program is lowered for, not the default one.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array, lax

from mri_jax.models import choice
from mri_jax.models.conv_layer import lanes, mosaic, native, planes, triton, volume
from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments
from mri_jax.models.conv_layer.pooling import Selection


class Forward(NamedTuple):
    """What the forward pass of a form computes.

    Attributes:
      selection: The selected voxels, (N, X // 2, Y // 2, Z // 2, F); every voxel, with an offset of
        shape (), where nothing is pooled.
      moments: Moments of ``z`` in each volume, (N, F); None where they were not asked for.
      z: The pre-activation, (N, X, Y, Z, F); None where it is not kept.
    """

    selection: Selection
    moments: Moments | None
    z: Array | None


class Layer(NamedTuple):
    """What is fixed of a conv layer.

    Attributes:
      pool: Whether 2 x 2 x 2 max pooling follows.
      form: Which form is taken, of `mri_jax.models.choice`.
    """

    pool: bool
    form: str = choice.XLA

    def computes_again(self, x: Features) -> bool:
        """Returns whether the way back computes ``z`` again, on every platform.

        The first block's is the largest array of a network and the cheapest to compute.
        """
        return self.pool and x.value.shape[-1] == 1 and x.norm is None


class _Form(NamedTuple):
    """A form of the two passes, each for given inputs with ``pool`` and what is wanted by name.

    Attributes:
      forward: Returns what `Forward` holds.
      gradients: Returns what `backward` does.
    """

    forward: Callable[..., tuple[Selection, Moments | None, Array | None]]
    gradients: Callable[..., Gradients]


def forward(
    layer: Layer, x: Features, kernel: Array, sign: Array, *, with_moments: bool, keep_z: bool
) -> Forward:
    """Convolve, and select the maximum of every whole 2 x 2 x 2 window.

    Args:
      layer: The layer.
      x: Of (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      sign: (F,) of 1, -1 or 0; see `pooling.select_first_maximum`.
      with_moments: Whether moments are wanted.
      keep_z: Whether the backward pass will want ``z``.
    """
    keep_z = keep_z and not layer.computes_again(x)

    def pass_of(form: _Form) -> Callable[[Features, Array, Array], Forward]:
        def run(x: Features, kernel: Array, sign: Array) -> Forward:
            return Forward(
                *form.forward(
                    x, kernel, sign, pool=layer.pool, with_moments=with_moments, keep_z=keep_z
                )
            )

        return run

    branches = {name: pass_of(form) for name, form in _taken(layer, x, kernel).items()}
    return lax.platform_dependent(x, kernel, sign, **branches)


def backward(
    layer: Layer,
    x: Features,
    kernel: Array,
    gradient: PreActivationGradient,
    *,
    for_input: bool,
    for_kernel: bool,
) -> Gradients:
    """Returns gradients with respect to the input's value and norm, and to the kernel.

    Args:
      layer: The layer.
      x: Of (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      gradient: The gradient of the pre-activation.
      for_input: Whether the input's gradient is wanted; None is returned otherwise.
      for_kernel: Whether the kernel's gradient is wanted; None is returned otherwise.
    """

    def pass_of(form: _Form) -> Callable[[Features, Array, PreActivationGradient], Gradients]:
        def run(x: Features, kernel: Array, given: PreActivationGradient) -> Gradients:
            return form.gradients(
                x, kernel, given, pool=layer.pool, for_input=for_input, for_kernel=for_kernel
            )

        return run

    branches = {name: pass_of(form) for name, form in _taken(layer, x, kernel).items()}
    return lax.platform_dependent(x, kernel, gradient, **branches)


def _taken(layer: Layer, x: Features, kernel: Array) -> dict[str, _Form]:
    """Returns the form of each platform, and of those that are not named (``default``)."""
    if layer.form in _EVERYWHERE:
        return {"default": _EVERYWHERE[layer.form]}
    by_platform = {
        "cpu": _NATIVE if layer.form == choice.NATIVE else _PLANES,
        "default": _VOLUME,
    }
    if lanes.pays(kernel.shape):
        by_platform["tpu"] = _LANES
    if layer.form == choice.PALLAS and triton.fits(x, kernel, pool=layer.pool):
        by_platform["cuda"] = _TRITON
    if layer.form == choice.PALLAS and mosaic.fits(x, kernel, pool=layer.pool):
        by_platform["tpu"] = _MOSAIC
    return by_platform


_NATIVE = _Form(native.forward, native.gradients)
_PLANES = _Form(planes.forward, planes.gradients)
_VOLUME = _Form(volume.forward, volume.gradients)
_LANES = _Form(lanes.forward, lanes.gradients)
_TRITON = _Form(triton.forward, triton.gradients)
_MOSAIC = _Form(mosaic.forward, mosaic.gradients)
# Forms that are taken on whatever platform they are asked for.
_EVERYWHERE = {choice.LANES: _LANES, choice.VOLUME: _VOLUME}
