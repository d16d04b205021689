"""What a conv layer takes and gives beside the statistics."""

from typing import NamedTuple

import jax
from jax import Array

from mri_jax.models import choice
from mri_jax.models.conv_layer.moments import Moments


class Norm(NamedTuple):
    """A normalisation with its statistics put in: ``factor * (x - mean) + bias``.

    Attributes:
      mean: (C,), or (N, 1, 1, 1, C) where each volume has its own.
      factor: Likewise, the scale over the standard deviation.
      bias: (C,).
    """

    mean: Array
    factor: Array
    bias: Array


class Features(NamedTuple):
    """Feature maps, to which BatchNorm and ReLU may still have to be applied.

    A layer hands its selected pre-activations on, and the next one normalises them while it reads
    them: no array of the normalised maps is written.

    Attributes:
      value: (N, X, Y, Z, C).
      norm: What is applied before ReLU; None: ``value`` is the feature maps themselves.
    """

    value: Array
    norm: Norm | None = None

    def activated(self) -> Array:
        """Returns the feature maps, (N, X, Y, Z, C)."""
        return self.value if self.norm is None else activated(self.value, self.norm)


def normalised(value: Array, norm: Norm) -> Array:
    """Returns ``norm(value)`` in the dtype of the norm, (N, X, Y, Z, C)."""
    return norm.factor * (value - norm.mean) + norm.bias


def activated(value: Array, norm: Norm) -> Array:
    """Returns ``relu(norm(value))`` in the dtype of ``value``, (N, X, Y, Z, C)."""
    return jax.nn.relu(normalised(value, norm)).astype(value.dtype)


def norm_of(stats: Moments, parameters: "Parameters", epsilon: float) -> Norm:
    """Returns the norm of some statistics, (C,) each or (N, C) of each volume."""
    factor = parameters.scale * jax.lax.rsqrt(stats.variance + epsilon)
    if stats.mean.ndim == 1:
        return Norm(stats.mean, factor, parameters.bias)
    own = (slice(None), None, None, None)
    return Norm(stats.mean[own], factor[own], parameters.bias)


class Parameters(NamedTuple):
    """What a conv layer learns.

    Attributes:
      kernel: (3, 3, 3, C, F).
      scale: (F,) of the normalisation, any sign.
      bias: (F,) of the normalisation.
    """

    kernel: Array
    scale: Array
    bias: Array


class Setting(NamedTuple):
    """What is fixed of a conv layer before any array is known.

    Attributes:
      pool: Whether 2 x 2 x 2 max pooling follows.
      epsilon: Added to the variance.
      batch_axis: Mapped axis over which the batch is split; the statistics are then those of the
        whole batch. None: the batch is in one piece.
      group: How many channels share the statistics of a volume, which are then all that normalises
        it; None: BatchNorm.
      form: How it is computed, of `mri_jax.models.choice`.
    """

    pool: bool
    epsilon: float
    batch_axis: str | None = None
    group: int | None = None
    form: str = choice.XLA
