"""The form of the native kernels (`kernels`), on CPUs.

One call applies the norm of the layer before, convolves, takes the moments of each volume and
selects the maxima; another goes back through all of it. Both compute in float32 or float64, on
XLA's threads, and give equal bytes whatever their number. They know 8k channels and filters, and a
single channel without norm: others are filled up with zeros. bfloat16 is computed in float32.
"""

import jax
import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from mri_jax.models.conv_layer import kernels
from mri_jax.models.conv_layer.arguments import Features, Norm
from mri_jax.models.conv_layer.gradient import Everywhere, Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments
from mri_jax.models.conv_layer.pooling import Selection

_SUFFIX = {"float32": "f32", "float64": "f64"}


def forward(
    x: Features, kernel: Array, sign: Array, *, pool: bool, with_moments: bool, keep_z: bool
) -> tuple[Selection, Moments | None, Array | None]:
    """Convolve, and select the maximum of every whole 2 x 2 x 2 window.

    Args:
      x: Of (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      sign: (F,) of 1, -1 or 0.
      pool: Whether maxima are selected; otherwise every voxel is.
      with_moments: Whether the moments of each volume (N, F) are computed.
      keep_z: Whether the pre-activation is returned.
    """
    kernels.register()
    filters, dtype = kernel.shape[-1], x.value.dtype
    value, norm, weights = _filled_up(x, kernel)
    wide, all_filters = value.dtype, weights.shape[-1]
    n, *size, _ = value.shape
    windows = (n, *(s // 2 for s in size), all_filters) if pool else (0,)
    moments_of = (n, all_filters) if with_moments else (0,)
    z, chosen, offset, mean, variance = jax.ffi.ffi_call(
        f"conv3_forward_{_SUFFIX[wide.name]}",
        (
            ShapeDtypeStruct((n, *size, all_filters) if keep_z or not pool else (0,), wide),
            ShapeDtypeStruct(windows, wide),
            ShapeDtypeStruct(windows, jnp.int8),
            ShapeDtypeStruct(moments_of, wide),
            ShapeDtypeStruct(moments_of, wide),
        ),
        vmap_method="sequential",
    )(value, *norm, weights, _up_to(sign.astype(wide), all_filters))
    if pool:
        selection = Selection(chosen[..., :filters].astype(dtype), offset[..., :filters])
    else:
        selection = Selection(z[..., :filters].astype(dtype), jnp.zeros((), jnp.int8))
    found = Moments(mean[:, :filters], variance[:, :filters]) if with_moments else None
    return selection, found, z[..., :filters].astype(dtype) if keep_z else None


def gradients(
    x: Features,
    kernel: Array,
    given: PreActivationGradient,
    *,
    pool: bool,
    for_input: bool,
    for_kernel: bool,
) -> Gradients:
    """Returns gradients with respect to input and kernel.

    Args:
      x: Of (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.
      given: Gradient of the pre-activation; ``z`` is that of `forward`, and may be missing where
        ``x`` has one channel and no norm.
      pool: Whether maxima were selected.
      for_input: Whether the input's gradient is wanted.
      for_kernel: Whether the kernel's gradient is wanted.
    """
    kernels.register()
    channels, filters = kernel.shape[3:]
    value, norm, weights = _filled_up(x, kernel)
    wide, all_filters = value.dtype, weights.shape[-1]
    nothing = jnp.zeros((0,), wide)
    everywhere = Everywhere(nothing, nothing)
    if given.everywhere is not None:
        everywhere = Everywhere(*(_up_to(p.astype(wide), all_filters) for p in given.everywhere))
    of_norm = (len(value), value.shape[-1]) if for_input and x.norm is not None else (0,)
    dx, dk, factor, bias = jax.ffi.ffi_call(
        f"conv3_backward_{_SUFFIX[wide.name]}",
        (
            ShapeDtypeStruct(value.shape if for_input else (0,), wide),
            ShapeDtypeStruct(weights.shape if for_kernel else (0,), wide),
            ShapeDtypeStruct(of_norm, wide),
            ShapeDtypeStruct(of_norm, wide),
        ),
        vmap_method="sequential",
    )(
        value,
        *norm,
        weights,
        nothing if given.z is None else _up_to(given.z.astype(wide), all_filters),
        _up_to(given.selected.astype(wide), all_filters),
        _up_to(given.offset, all_filters) if pool else jnp.zeros((0,), jnp.int8),
        *everywhere,
    )
    through = None
    if x.norm is not None and for_input:
        d_factor, d_bias = (of_each.sum(0)[:channels] for of_each in (factor, bias))
        found = Norm(-x.norm.factor * d_bias, d_factor, d_bias)
        through = Norm(*(d.astype(p.dtype) for d, p in zip(found, x.norm, strict=True)))
    return Gradients(
        Features(dx[..., :channels].astype(x.value.dtype), through) if for_input else None,
        dk[..., :channels, :filters].astype(kernel.dtype) if for_kernel else None,
    )


def _filled_up(x: Features, kernel: Array) -> tuple[Array, tuple[Array, ...], Array]:
    """Returns the maps, what their norm is, and the kernel, as the kernels take them."""
    wide = jnp.promote_types(x.value.dtype, jnp.float32)
    channels, filters = kernel.shape[3:]
    if channels > 1 or x.norm is not None:
        channels = _next_multiple(channels)
    norm = (jnp.zeros((0,), wide),) * 3 if x.norm is None else x.norm
    weights = jnp.swapaxes(_up_to(jnp.swapaxes(kernel, 3, 4), channels), 3, 4)
    return (
        _up_to(x.value.astype(wide), channels),
        tuple(p.astype(wide) if x.norm is None else _up_to(p.astype(wide), channels) for p in norm),
        _up_to(weights.astype(wide), _next_multiple(filters)),
    )


def _next_multiple(count: int) -> int:
    return -(-count // 8) * 8


def _up_to(values: Array, count: int) -> Array:
    """Returns values with zeros at the end of the last axis, so that it has ``count`` numbers."""
    more = count - values.shape[-1]
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, more)]) if more else values
