"""The form of GPUs: XLA's own 3D convolution, and as few passes over what it gives as XLA allows.

Where windows are pooled, the pre-activation is filled up with a plane of zeros behind each odd
axis while it is read. The eight places of a window are then arrays of one shape, and XLA makes the
maxima, their offsets and the sums of the moments in one kernel, which reads the pre-activation
once.
"""

from collections.abc import Mapping
from functools import reduce
from math import prod

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mri_jax.models.conv_layer.arguments import Features, Norm
from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments
from mri_jax.models.conv_layer.pooling import (
    OFFSETS,
    Selection,
    scatter_windows,
    select_first_maximum,
)
from mri_jax.models.conv_layer.reference import convolve, flipped

Size = tuple[int, ...]

# So many voxels along each axis, at least, tell about where the mean lies.
_ALONG = 12
# Of volumes of so few voxels XLA makes all sums by one kernel.
_FEW = 4096


def forward(
    x: Features, kernel: Array, sign: Array, *, pool: bool, with_moments: bool, keep_z: bool
) -> tuple[Selection, Moments | None, Array | None]:
    """Returns what `forms.Forward` holds; see `forms.forward`."""
    maps = x.activated()
    size = maps.shape[1:4]
    z = convolve(maps, kernel)
    if pool:
        filled = _filled_up(z)
        places = {(i, j, k): filled[:, i::2, j::2, k::2] for i, j, k in OFFSETS}
        # The barrier keeps the shape of the places, in which one kernel makes moments too.
        found = lax.optimization_barrier(select_first_maximum([*places.values()], sign))
        selection = Selection(*(_cut(p, tuple(s // 2 for s in size)) for p in found))
    else:
        places = {(0, 0, 0): z}
        selection = Selection(z, jnp.zeros((), jnp.int8))
    moments = _moments(z, places) if with_moments else None
    return selection, moments, z if keep_z else None


def gradients(
    x: Features,
    kernel: Array,
    given: PreActivationGradient,
    *,
    pool: bool,
    for_input: bool,
    for_kernel: bool,
) -> Gradients:
    """Returns what `forms.backward` does.

    ``z`` is computed again, which XLA finds to be what the forward pass has computed.
    """
    maps = x.activated()
    dz = given.selected
    if pool:
        dz = scatter_windows(dz, given.offset, (*maps.shape[:-1], kernel.shape[-1]))
    if given.everywhere is not None:
        z = convolve(maps, kernel)
        # Behind a barrier: XLA makes the two by one kernel.
        both = lax.optimization_barrier(jnp.stack(given.everywhere))
        constant, slope = both[:, :, None, None, None]
        dz = dz + (constant + slope * z)
    dz = dz.astype(maps.dtype)
    # The gradient of the input is a convolution with the flipped kernel.
    dx = _through_norm(x, convolve(dz, flipped(kernel))) if for_input else None
    dk = kernel_gradient(maps, dz) if for_kernel else None
    return Gradients(dx, dk)


def kernel_gradient(x: Array, dz: Array) -> Array:
    """Returns the gradient of `reference.convolve` with respect to its kernel, in their dtype.

    For bfloat16 GPUs sum in float32 and round once. Asked for float32, XLA would widen both first.

    Args:
      x: (N, X, Y, Z, C).
      dz: (N, X, Y, Z, F).

    Returns:
      (3, 3, 3, C, F).
    """
    return lax.conv_general_dilated(
        x,
        dz,
        (1, 1, 1),
        ((1, 1), (1, 1), (1, 1)),
        dimension_numbers=("CXYZN", "IXYZO", "XYZNC"),
    )


def _filled_up(maps: Array) -> Array:
    """Returns maps with a plane of zeros behind each odd axis."""
    behind = [(0, 0), *((0, s % 2) for s in maps.shape[1:4]), (0, 0)]
    return jnp.pad(maps, behind) if np.any(behind) else maps


def _cut(maps: Array, size: Size) -> Array:
    x, y, z = size
    return maps[:, :x, :y, :z]


def _through_norm(x: Features, gradient: Array) -> Features:
    """Returns the gradient of value and norm, given that of the activated maps.

    That of the norm's mean is that of its bias, times its factor.
    """
    if x.norm is None:
        return Features(gradient)
    # Without the barrier XLA keeps the norm's result of the forward pass in float32.
    mean, factor = lax.optimization_barrier((x.norm.mean, x.norm.factor))
    bias = x.norm.bias
    rest = x.value - mean
    given = jnp.where(factor * rest + bias > 0, gradient.astype(rest.dtype), 0)
    maps = [given, given * rest]
    few = prod(given.shape[1:4]) <= _FEW
    of_bias, of_factor = (of.sum((0, 1, 2, 3)) for of in maps) if few else _summed(maps).sum(1)
    norm = Norm(-factor * of_bias, of_factor, of_bias)
    return Features((factor * given).astype(x.value.dtype), norm)


def _moments(z: Array, places: Mapping[tuple[int, int, int], Array]) -> Moments:
    """Returns the moments of each volume, (N, F), in at least float32, from one pass over it.

    The squares are taken around the mean of some voxels, which lie all over the volume. Of V voxels
    it is at most sqrt(V / (number of those)) standard deviations from the mean of all, in practice
    a small part of one.

    Args:
      z: The pre-activation.
      places: What stands at each place of its windows.
    """
    wide, size = jnp.promote_types(z.dtype, jnp.float32), z.shape[1:4]
    x, y, w = (max(1, s // _ALONG) for s in size)
    some = z[:, ::x, ::y, ::w].astype(wide)
    # Divided before they are added up, which XLA does in one kernel.
    level = (some / prod(some.shape[1:4])).sum((1, 2, 3), keepdims=True)
    step = 1 if len(places) == 1 else 2
    rests = [
        jnp.where(_inside(of.shape[1:4], size, place, step), of.astype(wide) - level, 0)
        for place, of in places.items()
    ]
    sums = [reduce(jnp.add, rests), reduce(jnp.add, map(jnp.square, rests))]
    shift, squares = _summed(sums) / prod(size)
    return Moments(level[:, 0, 0, 0] + shift, squares - jnp.square(shift))


def _summed(maps: list[Array]) -> Array:
    """Returns the sums of maps over their voxels, (maps, N, C).

    XLA sums a plane by one kernel, and the planes of all maps, put together, by another.
    """
    return jnp.stack([of.sum((2, 3)) for of in maps]).sum(2)


def _inside(shape: Size, size: Size, place: Size, step: int) -> Array | bool:
    """Returns which of the voxels ``step * index + place`` are in a volume, (X, Y, Z, 1)."""
    inside: Array | bool = True
    for axis in range(3):
        within = step * np.arange(shape[axis]) + place[axis] < size[axis]
        if not within.all():
            others = [a for a in range(4) if a != axis]
            inside = inside & jnp.asarray(np.expand_dims(within, others))
    return inside
