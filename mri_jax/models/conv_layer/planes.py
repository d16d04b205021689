"""The convolution as a sum of 2D convolutions over planes, and the kernel's gradient by patches.

XLA's 3D convolution on CPUs is slow where its 2D one is not. A 3 x 3 x 3 convolution is the sum
over three planes of 2D convolutions: the same sum in another order.
"""

from itertools import product

import jax
import jax.numpy as jnp
from jax import Array, lax

from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, of_volumes
from mri_jax.models.conv_layer.pooling import Selection, scatter_windows, select_windows
from mri_jax.models.conv_layer.reference import flipped

# Numbers that one pass of a loop over planes gathers: enough to amortise its calls, few enough to
# stay in cache.
SLAB_NUMBERS = 2_200_000
_PLANES = ("NHWC", "HWIO", "NHWC")


def forward(
    x: Features, kernel: Array, sign: Array, *, pool: bool, with_moments: bool, keep_z: bool
) -> tuple[Selection, Moments | None, Array | None]:
    """Returns what `forms.Forward` holds; see `forms.forward`."""
    z = convolve(x.activated(), kernel)
    nowhere = jnp.zeros((), jnp.int8)
    return (
        select_windows(z, sign) if pool else Selection(z, nowhere),
        of_volumes(z) if with_moments else None,
        z if keep_z else None,
    )


def gradients(
    x: Features,
    kernel: Array,
    given: PreActivationGradient,
    *,
    pool: bool,
    for_input: bool,
    for_kernel: bool,
) -> Gradients:
    """Returns what `forms.backward` does."""
    maps, back = jax.vjp(Features.activated, x)
    dz = given.selected
    if pool:
        dz = scatter_windows(dz, given.offset, (*maps.shape[:-1], kernel.shape[-1]))
    if given.everywhere is not None:
        z = convolve(maps, kernel) if given.z is None else given.z
        constant, slope = (p[:, None, None, None] for p in given.everywhere)
        dz = dz + (constant + slope * z)
    dz = dz.astype(maps.dtype)
    # The gradient of the input is a convolution with the flipped kernel.
    dx = back(convolve(dz, flipped(kernel)))[0] if for_input else None
    dk = kernel_gradient(maps, dz).astype(kernel.dtype) if for_kernel else None
    return Gradients(dx, dk)


def convolve(x: Array, kernel: Array) -> Array:
    """3D convolution, stride 1, zero padding to the same size.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.

    Returns:
      (N, X, Y, Z, F).
    """
    n, planes, y, z, channels = x.shape
    filters = kernel.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    def in_plane(images: Array, weights: Array) -> Array:
        stack = images.reshape(-1, y, z, channels)
        out = lax.conv_general_dilated(stack, weights, (1, 1), "SAME", dimension_numbers=_PLANES)
        return out.reshape(n, images.shape[1], y, z, -1)

    if filters >= 16 and filters >= channels:
        first, middle, last = (in_plane(padded[:, t : t + planes], kernel[t]) for t in range(3))
        return first + middle + last
    # Few filters starve the matrix product inside: compute all three taps of a plane at once.
    side_by_side = jnp.moveaxis(kernel, 0, 3).reshape(3, 3, channels, 3 * filters)
    taps = in_plane(padded, side_by_side)
    return (
        taps[:, :planes, ..., :filters]
        + taps[:, 1 : planes + 1, ..., filters : 2 * filters]
        + taps[:, 2:, ..., 2 * filters :]
    )


def kernel_gradient(x: Array, dz: Array) -> Array:
    """Returns the gradient of `convolve` with respect to its kernel, in at least float32.

    It is computed as matrix products of patches, over slabs of planes that stay in cache.

    Args:
      x: (N, X, Y, Z, C).
      dz: (N, X, Y, Z, F).

    Returns:
      (3, 3, 3, C, F).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    planes, y, z, channels = x.shape[1:]
    filters = dz.shape[-1]
    group = planes_per_slab(planes, y * z * (9 * channels + 3 * filters))
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    slabs = padded.reshape(-1, group, y + 2, z + 2, channels)
    around = jnp.pad(dz, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    around = around.reshape(-1, y * z, filters)
    first = (jnp.arange(len(x))[:, None] * (planes + 2) + jnp.arange(0, planes, group)).ravel()

    def add(
        carry: tuple[Array, Array, Array], slab: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array, Array], None]:
        total, patches, shifted = carry
        volume, start = slab
        # Pieces are written into place, because XLA on CPUs computes a concatenation number by
        # number. Tap t multiplies plane i + t - 1 of x with plane i of dz.
        for tap, (j, k) in enumerate(product(range(3), repeat=2)):
            piece = volume[:, j : j + y, k : k + z]
            patches = lax.dynamic_update_slice_in_dim(patches, piece, tap * channels, axis=3)
        for tap in range(3):
            piece = lax.dynamic_slice_in_dim(around, start + 2 - tap, group)
            shifted = lax.dynamic_update_slice_in_dim(shifted, piece, tap * filters, axis=2)
        product_of_slab = lax.dot_general(
            patches.reshape(-1, 9 * channels),
            shifted.reshape(-1, 3 * filters),
            (((0,), (0,)), ((), ())),
            preferred_element_type=wide,
        )
        return (total + product_of_slab, patches, shifted), None

    carry = (
        jnp.zeros((9 * channels, 3 * filters), wide),
        jnp.zeros((group, y, z, 9 * channels), x.dtype),
        jnp.zeros((group, y * z, 3 * filters), dz.dtype),
    )
    (total, _, _), _ = lax.scan(add, carry, (slabs, first))
    return jnp.moveaxis(total.reshape(3, 3, channels, 3, filters), 3, 0)


def planes_per_slab(planes: int, numbers: int) -> int:
    """Returns the largest divisor of ``planes`` that keeps a slab within `SLAB_NUMBERS`, or 1.

    Args:
      planes: How many planes there are.
      numbers: What is gathered for one of them.
    """
    fitting = [d for d in range(1, planes + 1) if planes % d == 0 and d * numbers <= SLAB_NUMBERS]
    return max(fitting, default=1)
