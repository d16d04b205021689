"""The form of GPUs: XLA's own 3D convolution, and as few passes over what it gives as XLA allows.

Where windows are pooled, a volume is computed with a plane of zeros behind each odd axis. The eight
places of a window are then arrays of one shape, and XLA makes the maxima, their offsets and the
sums of the moments in one kernel, which reads the pre-activation once.
"""

from functools import reduce
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mri_jax.models.conv_layer.arguments import Features
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

# Of how many planes one tells about where the mean lies.
_OF_PLANES = 16


def forward(
    x: Features, kernel: Array, sign: Array, *, pool: bool, with_moments: bool, keep_z: bool
) -> tuple[Selection, Moments | None, Array | None]:
    """Returns what `forms.Forward` holds; see `forms.forward`."""
    maps = x.activated()
    size = maps.shape[1:4]
    z = convolve(_filled_up(maps) if pool else maps, kernel)
    if pool:
        places = {place: z[:, place[0] :: 2, place[1] :: 2, place[2] :: 2] for place in OFFSETS}
        # The barrier keeps the shape of the places, in which one kernel makes moments too.
        found = lax.optimization_barrier(select_first_maximum([*places.values()], sign))
        selection = Selection(*(_cut(p, tuple(s // 2 for s in size)) for p in found))
    else:
        places = {(0, 0, 0): z}
        selection = Selection(z, jnp.zeros((), jnp.int8))
    moments = _moments(z, places, size) if with_moments else None
    return selection, moments, _cut(z, size) if keep_z else None


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
    size = maps.shape[1:4]
    dz = given.selected
    if pool:
        maps = _filled_up(maps)
        dz = scatter_windows(dz, given.offset, (*maps.shape[:-1], kernel.shape[-1]))
    if given.everywhere is not None:
        z = convolve(maps, kernel)
        constant, slope = (p[:, None, None, None] for p in given.everywhere)
        inside = _inside(z.shape[1:4], size, (0, 0, 0), 1)
        dz = dz + jnp.where(inside, constant + slope * z, 0)
    dz = dz.astype(maps.dtype)
    dx = None
    if for_input:
        # Without the barrier XLA keeps the norm's result of the forward pass in float32.
        behind = Features(x.value, lax.optimization_barrier(x.norm))
        _, back = jax.vjp(Features.activated, behind)
        # The gradient of the input is a convolution with the flipped kernel.
        dx = back(_cut(convolve(dz, flipped(kernel)), size))[0]
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
    # Behind a barrier: XLA would make two arrays, one with the convolution's own padding.
    return lax.optimization_barrier(jnp.pad(maps, behind)) if np.any(behind) else maps


def _cut(maps: Array, size: Size) -> Array:
    x, y, z = size
    return maps[:, :x, :y, :z]


def _moments(z: Array, places: dict[Size, Array], size: Size) -> Moments:
    """Returns the moments of each volume, (N, F), in at least float32, from one pass over it.

    The squares are taken around the mean of a sixteenth of the planes. That is at most four
    standard deviations from the mean of all: the planes alone would make the variance larger.

    Args:
      z: The pre-activation.
      places: What stands at each place of its windows.
      size: (X, Y, Z) of the volume.
    """
    wide = jnp.promote_types(z.dtype, jnp.float32)
    level = _cut(z, size)[:, ::_OF_PLANES].astype(wide).mean((1, 2, 3), keepdims=True)
    step = 1 if len(places) == 1 else 2
    rests = [
        jnp.where(_inside(of.shape[1:4], size, place, step), of.astype(wide) - level, 0)
        for place, of in places.items()
    ]

    def mean(values: list[Array]) -> Array:
        return reduce(jnp.add, values).sum((1, 2, 3)) / prod(size)

    shift = mean(rests)
    squares = mean([jnp.square(rest) for rest in rests])
    return Moments(level[:, 0, 0, 0] + shift, squares - jnp.square(shift))


def _inside(shape: Size, size: Size, place: Size, step: int) -> Array | bool:
    """Returns which of the voxels ``step * index + place`` are in a volume, (X, Y, Z, 1)."""
    inside: Array | bool = True
    for axis in range(3):
        within = step * np.arange(shape[axis]) + place[axis] < size[axis]
        if not within.all():
            others = [a for a in range(4) if a != axis]
            inside = inside & jnp.asarray(np.expand_dims(within, others))
    return inside
