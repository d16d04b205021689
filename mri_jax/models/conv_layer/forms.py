"""The exact forms of a conv layer's heavy part, and which one a platform takes.

A form computes the pre-activation ``z``, its moments and the selection of maxima, and the gradients
of input and kernel; BatchNorm and ReLU are the same for all (`layer`). On CPUs the first layer is
`packed` and the others are `planes`; elsewhere every layer is `volume`. The form follows the
platform that a program is lowered for, not the default one. Where `native` kernels are asked for,
CPUs take them for every layer that they support. `docs/performance.md` has the
measurements behind every rule here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from mri_jax.models.conv_layer import native, packed, planes, reference, volume
from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, moments
from mri_jax.models.conv_layer.pooling import Selection, scatter_windows, select_windows

# Up to how many input channels the packed form pays (docs/performance.md).
_PACKED_CHANNELS = 3

Convolve = Callable[[Array, Array], Array]


class Forward(NamedTuple):
    """What the forward pass of a form computes.

    Attributes:
      selection: The selected voxels, (N, X // 2, Y // 2, Z // 2, F); every voxel, with an offset of
        shape (), where nothing is pooled.
      moments: Moments of ``z`` over all voxels, (F,); None where they were not asked for.
      z: The pre-activation, (N, X, Y, Z, F); None where it is not kept.
    """

    selection: Selection
    moments: Moments | None
    z: Array | None


class Layer(NamedTuple):
    """What is fixed of a conv layer.

    Attributes:
      pool: Whether 2 x 2 x 2 max pooling follows.
      channels: Number of input channels.
      native: Whether CPUs take the native kernels.
    """

    pool: bool
    channels: int
    native: bool = False

    @property
    def packs(self) -> bool:
        """Whether the packed form pays on CPUs. ``z`` of such a layer is kept on no platform."""
        return self.pool and self.channels <= _PACKED_CHANNELS


def forward(
    layer: Layer, x: Array, kernel: Array, sign: Array, *, with_moments: bool, keep_z: bool
) -> Forward:
    """Convolve, and select the maximum of every whole 2 x 2 x 2 window.

    Args:
      layer: The layer.
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      sign: (F,) of 1, -1 or 0; see `pooling.select_first_maximum`.
      with_moments: Whether moments are wanted.
      keep_z: Whether the backward pass will want ``z``.
    """

    def packed_form(x: Array, kernel: Array, sign: Array) -> Forward:
        return Forward(*packed.select(x, kernel, sign, with_moments), None)

    def form_of(convolve: Convolve) -> Callable[[Array, Array, Array], Forward]:
        def run(x: Array, kernel: Array, sign: Array) -> Forward:
            z = convolve(x, kernel)
            nowhere = jnp.zeros((), jnp.int8)
            return Forward(
                select_windows(z, sign) if layer.pool else Selection(z, nowhere),
                moments(z) if with_moments else None,
                z if keep_z and not layer.packs else None,
            )

        return run

    def native_form(x: Array, kernel: Array, sign: Array) -> Forward:
        kept = keep_z and not layer.packs
        return Forward(
            *native.forward(
                x, kernel, sign, pool=layer.pool, with_moments=with_moments, keep_z=kept
            )
        )

    on_cpu = packed_form if layer.packs else form_of(planes.convolve)
    if _takes_native(layer, kernel):
        on_cpu = native_form
    return lax.platform_dependent(x, kernel, sign, cpu=on_cpu, default=form_of(reference.convolve))


def backward(
    layer: Layer,
    x: Array,
    kernel: Array,
    gradient: PreActivationGradient,
    *,
    for_input: bool,
    for_kernel: bool,
) -> tuple[Array | None, Array | None]:
    """Returns gradients with respect to input and kernel, (N, X, Y, Z, C) and (3, 3, 3, C, F).

    Args:
      layer: The layer.
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      gradient: The gradient of the pre-activation.
      for_input: Whether the input's gradient is wanted; None is returned otherwise.
      for_kernel: Whether the kernel's gradient is wanted; None is returned otherwise.
    """

    def packed_form(x: Array, kernel: Array, given: PreActivationGradient) -> Gradients:
        return packed.gradients(x, kernel, given, for_input=for_input, for_kernel=for_kernel)

    def form_of(
        convolve: Convolve, kernel_gradient: Convolve
    ) -> Callable[[Array, Array, PreActivationGradient], Gradients]:
        def run(x: Array, kernel: Array, given: PreActivationGradient) -> Gradients:
            dz = given.selected
            if layer.pool:
                dz = scatter_windows(dz, given.offset, (*x.shape[:-1], kernel.shape[-1]))
            if given.everywhere is not None:
                z = convolve(x, kernel) if given.z is None else given.z
                dz = dz + (given.everywhere.constant + given.everywhere.slope * z)
            dz = dz.astype(x.dtype)
            # The gradient of the input is a convolution with the flipped kernel.
            dx = convolve(dz, flipped(kernel)) if for_input else None
            return dx, kernel_gradient(x, dz) if for_kernel else None

        return run

    def native_form(x: Array, kernel: Array, given: PreActivationGradient) -> Gradients:
        return native.gradients(
            x, kernel, given, pool=layer.pool, for_input=for_input, for_kernel=for_kernel
        )

    on_cpu = packed_form if layer.packs else form_of(planes.convolve, planes.kernel_gradient)
    if _takes_native(layer, kernel):
        on_cpu = native_form
    elsewhere = form_of(reference.convolve, volume.kernel_gradient)
    return lax.platform_dependent(x, kernel, gradient, cpu=on_cpu, default=elsewhere)


def _takes_native(layer: Layer, kernel: Array) -> bool:
    channels, filters = kernel.shape[3:]
    return layer.native and native.supports(channels, filters, kernel.dtype)


def flipped(kernel: Array) -> Array:
    """Returns the kernel of the transposed convolution, (3, 3, 3, F, C) of (3, 3, 3, C, F)."""
    return jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)
