"""The plain form of a block: convolution, BatchNorm, ReLU and max pooling, as written in the paper.

It is the standard the fast form is held to, and what intermediates are read from.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
from jax import Array

from mri_jax.models.conv_layer.moments import Moments, moments, of_whole_batch


class ConvStages(NamedTuple):
    """What a conv layer computes on the way, each (N, X, Y, Z, C).

    Attributes:
      pre_activation: Output of the convolution, before BatchNorm.
      feature_map: After BatchNorm and ReLU, before pooling.
      output: ``feature_map`` pooled where pooling follows, else the same.
    """

    pre_activation: Array
    feature_map: Array
    output: Array


def convolve(x: Array, kernel: Array) -> Array:
    """3D convolution, stride 1, zero padding to the same size.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).

    Returns:
      (N, X, Y, Z, F).
    """
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NXYZC", "XYZIO", "NXYZC")
    )


def affine_of(scale: Array, bias: Array, stats: Moments, epsilon: float) -> tuple[Array, Array]:
    """BatchNorm as ``a * z + b``: the factors (C,) and offsets (C,)."""
    factor = scale * jax.lax.rsqrt(stats.variance + epsilon)
    return factor, bias - stats.mean * factor


def max_pool(x: Array) -> Array:
    """2 x 2 x 2 max pooling, stride 2; the last plane of an odd axis is dropped."""
    return nn.max_pool(x, (2, 2, 2), (2, 2, 2))


def conv_layer(
    x: Array,
    kernel: Array,
    scale: Array,
    bias: Array,
    running: Moments | None,
    *,
    pool: bool,
    epsilon: float,
    batch_axis: str | None = None,
) -> tuple[ConvStages, Moments]:
    """One conv layer with what follows it.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).
      scale: (F,) of BatchNorm, any sign.
      bias: (F,) of BatchNorm.
      running: Statistics to normalise with; None takes those of the batch.
      pool: Whether max pooling follows.
      epsilon: Added to the variance.
      batch_axis: Mapped axis over which the batch is split; the statistics are then those of the
        whole batch. None: the batch is in one piece.

    Returns:
      The stages, and the statistics used.
    """
    z = convolve(x, kernel.astype(x.dtype))
    stats = of_whole_batch(moments(z), batch_axis) if running is None else running
    factor, offset = affine_of(scale, bias, stats, epsilon)
    feature_map = nn.relu(z * factor + offset).astype(x.dtype)
    return ConvStages(z, feature_map, max_pool(feature_map) if pool else feature_map), stats
