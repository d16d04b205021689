"""Mean and variance of each channel, over a batch in one piece or split over devices."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Moments(NamedTuple):
    """Mean and biased variance of each channel, (C,) each."""

    mean: Array
    variance: Array


def moments(z: Array) -> Moments:
    """Mean and biased variance over batch and space, in at least float32; (N, X, Y, Z, C) to (C,).

    The variance is taken around the mean (two passes), so a large offset does not cancel it.
    """
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    mean = wide.mean((0, 1, 2, 3))
    return Moments(mean, jnp.square(wide - mean).mean((0, 1, 2, 3)))


def of_whole_batch(part: Moments, axis: str | None) -> Moments:
    """Returns moments of the whole batch from those of parts of one size, without cancellation.

    The variance is that within the parts plus that between their means (Chan et al. 1983).

    Args:
      part: Of this device's part of the batch.
      axis: Mapped axis that counts the parts; None: the batch is in one piece.
    """
    if axis is None:
        return part
    return of_equal_parts(lax.all_gather(part, axis))


def of_equal_parts(each: Moments) -> Moments:
    """Returns moments (C,) of the whole from those of parts of one size, (P, C)."""
    mean = each.mean.mean(0)
    return Moments(mean, (each.variance + jnp.square(each.mean - mean)).mean(0))
