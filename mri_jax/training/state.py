"""What changes during training, and the batch it changes by."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np
from jax import Array

from mri_jax.seeding import stream_seed


@flax.struct.dataclass
class Batch:
    """Volumes and labels.

    Attributes:
      image: (N, X, Y, Z, C) float32, RAS+, unitless after normalisation; or the output of a frozen
        prefix.
      label: (N,) int32 class.
      weight: (N,) float32 weight in the loss; 1, or 0 for padding (in evaluation only, since a
        padded volume would enter BatchNorm's batch statistics).
    """

    image: Array
    label: Array
    weight: Array


@flax.struct.dataclass
class TrainState:
    """Everything a step reads and writes.

    Attributes:
      params: ``{"conv1": {"kernel"}, "bn1": {"scale", "bias"}, ..., "fc1": {"kernel", "bias"}}``.
      batch_stats: ``{"bn1": {"mean", "var", "count"}, ...}``.
      opt_state: Optimizer state of what trains, nothing else.
      step: () int32, steps taken.
      key: (2,) uint32, the run's random key; each step folds its number in.
    """

    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]
    opt_state: Any
    step: Array
    key: Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `CNN.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def random_key(seed: int, *purpose: str | int) -> np.ndarray:
    """A (2,) uint32 JAX key (threefry) for one named purpose; see `mri_jax.seeding`."""
    words = stream_seed(seed, *purpose)
    return np.array([words >> 32, words & 0xFFFFFFFF], np.uint32)


def typed_key(key: Array) -> Array:
    """The key of `random_key` as `jax.random` functions take it."""
    return jax.random.wrap_key_data(key, impl="threefry2x32")
