"""The form of the native kernels (`kernels`): on CPUs, 1 or 8k channels and 8k filters.

One call convolves, takes the moments of each volume and selects the maxima; another goes back
through all of it. Both compute in float32 or float64, on XLA's threads, and give equal bytes
whatever their number.
"""

import jax
import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from mri_jax.models.conv_layer import kernels
from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, of_equal_parts
from mri_jax.models.conv_layer.pooling import Selection

_SUFFIX = {"float32": "f32", "float64": "f64"}


def supports(channels: int, filters: int, dtype: jnp.dtype) -> bool:
    """Returns whether there are kernels for a layer of so many channels and filters."""
    return filters % 8 == 0 and (channels == 1 or channels % 8 == 0) and dtype.name in _SUFFIX


def forward(
    x: Array, kernel: Array, sign: Array, *, pool: bool, with_moments: bool, keep_z: bool
) -> tuple[Selection, Moments | None, Array | None]:
    """Convolve, and select the maximum of every whole 2 x 2 x 2 window.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      sign: (F,) of 1, -1 or 0.
      pool: Whether maxima are selected; otherwise every voxel is.
      with_moments: Whether moments (F,) are computed.
      keep_z: Whether the pre-activation is returned.
    """
    kernels.register()
    n, *size, _ = x.shape
    filters = kernel.shape[-1]
    windows = (n, *(s // 2 for s in size), filters) if pool else (0,)
    moments_of = (n, filters) if with_moments else (0,)
    z, value, offset, mean, variance = jax.ffi.ffi_call(
        f"conv3_forward_{_SUFFIX[x.dtype.name]}",
        (
            ShapeDtypeStruct((n, *size, filters) if keep_z or not pool else (0,), x.dtype),
            ShapeDtypeStruct(windows, x.dtype),
            ShapeDtypeStruct(windows, jnp.int8),
            ShapeDtypeStruct(moments_of, x.dtype),
            ShapeDtypeStruct(moments_of, x.dtype),
        ),
        vmap_method="sequential",
    )(x, kernel, sign)
    selection = Selection(value, offset) if pool else Selection(z, jnp.zeros((), jnp.int8))
    found = of_equal_parts(Moments(mean, variance)) if with_moments else None
    return selection, found, z if keep_z else None


def gradients(
    x: Array,
    kernel: Array,
    given: PreActivationGradient,
    *,
    pool: bool,
    for_input: bool,
    for_kernel: bool,
) -> Gradients:
    """Returns gradients with respect to input and kernel.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      given: Gradient of the pre-activation; ``z`` may be missing where there is one channel.
      pool: Whether maxima were selected.
      for_input: Whether the input's gradient is wanted.
      for_kernel: Whether the kernel's gradient is wanted.
    """
    kernels.register()
    nothing = jnp.zeros((0,), x.dtype)
    constant, slope = nothing, nothing
    if given.everywhere is not None:
        constant, slope = (p.astype(x.dtype) for p in given.everywhere)
    dx, dk = jax.ffi.ffi_call(
        f"conv3_backward_{_SUFFIX[x.dtype.name]}",
        (
            ShapeDtypeStruct(x.shape if for_input else (0,), x.dtype),
            ShapeDtypeStruct(kernel.shape if for_kernel else (0,), x.dtype),
        ),
        vmap_method="sequential",
    )(
        x,
        kernel,
        nothing if given.z is None else given.z,
        given.selected.astype(x.dtype),
        given.offset if pool else jnp.zeros((0,), jnp.int8),
        constant,
        slope,
    )
    return dx if for_input else None, dk if for_kernel else None
