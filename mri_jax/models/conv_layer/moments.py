"""Mean and variance of each channel: of volumes, and of a batch in one piece or split."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Moments(NamedTuple):
    """Mean and biased variance of each channel, (C,) each, or (N, C) of each volume."""

    mean: Array
    variance: Array


def of_volumes(z: Array) -> Moments:
    """Returns the moments of each volume, in at least float32; (N, X, Y, Z, C) to (N, C).

    The variance is taken around the mean (two passes), so a large offset does not cancel it.
    """
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    mean = wide.mean((1, 2, 3), keepdims=True)
    return Moments(mean[:, 0, 0, 0], jnp.square(wide - mean).mean((1, 2, 3)))


def of_parts(voxels: np.ndarray, sums: Array, squares: Array) -> Moments:
    """Returns the moments of volumes, (N, C), from those of their parts (Chan et al. 1983).

    Args:
      voxels: (P,), how many a part has.
      sums: (N, C, P).
      squares: (N, C, P), the sum of squared distances from the mean of the part.
    """
    mean = sums.sum(2) / voxels.sum()
    count = jnp.asarray(voxels, sums.dtype)
    between = count * jnp.square(sums / count - mean[..., None])
    return Moments(mean, (squares + between).sum(2) / voxels.sum())


def of_groups(each: Moments, size: int) -> Moments:
    """Returns moments (N, C) of each volume's groups of ``size`` channels, from those of channels.

    With one channel a group they are the same (Ulyanov et al. 2016); with more the variance is that
    within the channels plus that between their means (Wu & He 2018).
    """
    n, channels = each.mean.shape
    mean, variance = (moment.reshape(n, channels // size, size) for moment in each)
    shared = mean.mean(2, keepdims=True)
    spread = (variance + jnp.square(mean - shared)).mean(2)
    return Moments(jnp.repeat(shared[..., 0], size, 1), jnp.repeat(spread, size, 1))


def of_whole_batch(each: Moments, axis: str | None) -> Moments:
    """Returns moments (C,) of the whole batch from those of its volumes (N, C), in any split.

    The variance is that within the volumes plus that between their means, without cancellation
    (Chan et al. 1983).

    Args:
      each: Of this device's volumes.
      axis: Mapped axis that counts the parts of the batch; None: it is in one piece.
    """
    if axis is not None:
        each = Moments(*(lax.all_gather(moment, axis, tiled=True) for moment in each))
    mean = each.mean.mean(0)
    return Moments(mean, (each.variance + jnp.square(each.mean - mean)).mean(0))
