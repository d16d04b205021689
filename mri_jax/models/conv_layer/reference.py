"""The plain form of a block: convolution, BatchNorm, ReLU and max pooling, as written in the paper.

Tests hold the other forms to it, and intermediates are read from it.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mri_jax.models.conv_layer.arguments import Parameters, Setting, norm_of, normalised
from mri_jax.models.conv_layer.moments import Moments, of_groups, of_volumes, of_whole_batch


class ConvStages(NamedTuple):
    """What a conv layer computes on the way, each (N, X, Y, Z, C).

    Attributes:
      pre_activation: Output of the convolution, before BatchNorm.
      feature_map: After the norm, what joins it and ReLU, before pooling.
      output: ``feature_map`` pooled where pooling follows, else the same.
    """

    pre_activation: Array
    feature_map: Array
    output: Array


def convolve(x: Array, kernel: Array) -> Array:
    """Returns a 3D convolution with stride 1 and zero padding to the same size.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).

    Returns:
      (N, X, Y, Z, F).
    """
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NXYZC", "XYZIO", "NXYZC")
    )


def flipped(kernel: Array) -> Array:
    """Returns the kernel of the transposed convolution, (3, 3, 3, F, C) of (3, 3, 3, C, F)."""
    return jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)


def max_pool(x: Array) -> Array:
    """Returns the maxima of 2 x 2 x 2 windows; the last plane of an odd axis is dropped."""
    return nn.max_pool(x, (2, 2, 2), (2, 2, 2))


def conv_layer(
    x: Array,
    parameters: Parameters,
    running: Moments | None,
    setting: Setting,
    shortcut: Array | None = None,
) -> tuple[ConvStages, Moments]:
    """Computes a conv layer with what follows it.

    Args:
      x: (N, X, Y, Z, C).
      parameters: Kernel, and BatchNorm's scale and bias.
      running: Statistics to normalise with; None takes those of the batch, or of each volume where
        ``setting`` has a ``group``.
      setting: What is fixed; ``form`` changes nothing here.
      shortcut: (N, X, Y, Z, F), added before ReLU (He et al. 2016); None: nothing is.

    Returns:
      The stages, and the statistics used.
    """
    z = convolve(x, parameters.kernel.astype(x.dtype))
    if running is not None:
        stats = running
    elif setting.group:
        stats = of_groups(of_volumes(z), setting.group)
    else:
        stats = of_whole_batch(of_volumes(z), setting.batch_axis)
    normal = normalised(z, norm_of(stats, parameters, setting.epsilon))
    feature_map = nn.relu(normal if shortcut is None else normal + shortcut).astype(z.dtype)
    output = max_pool(feature_map) if setting.pool else feature_map
    return ConvStages(z, feature_map, output), stats
