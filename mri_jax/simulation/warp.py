"""Deformations in JAX: sampling, the exponential of a velocity field, its Jacobian.

Fields are (X, Y, Z, 3) in voxels of their grid. A deformation maps a subject's voxel to the
template's point (pull-back), so an image is made by sampling the template at it.
"""

import jax
import jax.numpy as jnp
from jax import Array

# 2**SQUARINGS Euler steps keep steps far below a voxel for the largest velocities drawn.
SQUARINGS = 6


def lattice(shape: tuple[int, ...]) -> Array:
    """Returns (X, Y, Z, 3) float32: the index of every voxel."""
    axes = [jnp.arange(n, dtype=jnp.float32) for n in shape]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


def sample(values: Array, points: Array) -> Array:
    """Trilinear interpolation; beyond the border the border's value.

    Args:
      values: (X, Y, Z, C).
      points: (..., 3) in voxels of `values`.

    Returns:
      (..., C).
    """
    x, y, z, channels = values.shape
    last = jnp.array([x - 1, y - 1, z - 1], jnp.float32)
    points = jnp.clip(points, 0, last)
    low = jnp.minimum(jnp.floor(points), last - 1)
    share = points - low
    index = low.astype(jnp.int32)
    base = (index[..., 0] * y + index[..., 1]) * z + index[..., 2]
    rows = values.reshape(-1, channels)

    def at(offset: int) -> Array:
        return rows.at[base + offset].get(mode="promise_in_bounds")

    fx, fy, fz = (share[..., axis, None] for axis in range(3))

    def line(offset: int) -> Array:
        return at(offset) * (1 - fz) + at(offset + 1) * fz

    def plane(offset: int) -> Array:
        return line(offset) * (1 - fy) + line(offset + z) * fy

    return plane(0) * (1 - fx) + plane(y * z) * fx


def exponential(velocity: Array, squarings: int = SQUARINGS) -> Array:
    """Displacement after unit time along a stationary velocity, by scaling and squaring.

    Args:
      velocity: (X, Y, Z, 3) in voxels.
      squarings: How often the small displacement is composed with itself.

    Returns:
      (X, Y, Z, 3) displacement in voxels: the deformation is ``lattice + displacement``.
    """
    here = lattice(velocity.shape[:3])

    def square(_: int, displacement: Array) -> Array:
        return displacement + sample(displacement, here + displacement)

    return jax.lax.fori_loop(0, squarings, square, velocity / 2**squarings)


def jacobian_determinant(displacement: Array) -> Array:
    """Returns (X-1, Y-1, Z-1) determinant of the deformation over every cell, by its mean edges."""
    edges = []
    for axis in range(3):
        edge = jnp.diff(displacement, axis=axis)
        for other in range(3):
            if other != axis:
                low = jax.lax.slice_in_dim(edge, 0, edge.shape[other] - 1, axis=other)
                high = jax.lax.slice_in_dim(edge, 1, edge.shape[other], axis=other)
                edge = (low + high) / 2
        edges.append(edge.at[..., axis].add(1.0))
    a, b, c = edges
    return jnp.sum(a * jnp.cross(b, c), axis=-1)
