"""What changes during training, and the batch it changes by."""

from collections.abc import Mapping
from typing import Any

import flax.struct
from jax import Array


@flax.struct.dataclass
class Batch:
    """Volumes and labels.

    Attributes:
      image: (N, X, Y, Z, C) float32, RAS+, unitless after normalisation; or the output of a frozen
        prefix.
      label: (N,) int32 class.
      weight: (N,) float32 weight in the loss.
      unlabelled: (M, X, Y, Z, C) float32 further volumes, without labels; None: there are none.
    """

    image: Array
    label: Array
    weight: Array
    unlabelled: Array | None = None


@flax.struct.dataclass
class TrainState:
    """Everything a step reads and writes.

    Attributes:
      params: ``{"conv1": {"kernel"}, "bn1": {"scale", "bias"}, ..., "fc1": {"kernel", "bias"}}``,
        and layers of the objective's own.
      batch_stats: ``{"bn1": {"mean", "var", "count"}, ...}``.
      opt_state: Optimizer state of what trains, as one vector in the order of its tree.
      step: () int32, steps taken.
      key: (2,) uint32, words of the training's random key; see `mri_jax.training.step.step_keys`.
      memory: What the objective remembers.
    """

    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]
    opt_state: Any
    step: Array
    key: Array
    memory: Mapping[str, Any] = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """Returns parameters and statistics as `CNN.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}
