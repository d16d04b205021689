"""What a conv layer takes beside its input and the statistics."""

from typing import NamedTuple

from jax import Array


class Parameters(NamedTuple):
    """What a conv layer learns.

    Attributes:
      kernel: (3, 3, 3, C, F).
      scale: (F,) of BatchNorm, any sign.
      bias: (F,) of BatchNorm.
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
      native: Whether CPUs take the native kernels where there are any for the layer.
    """

    pool: bool
    epsilon: float
    batch_axis: str | None = None
    native: bool = False
