"""Logits and penultimate features of an ensemble."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax import Array

from mri_jax.models import CNN, CNNSpec


class Forward:
    """Networks of one architecture on the device.

    Args:
      spec: The architecture.
      variables: Of each network.
    """

    def __init__(self, spec: CNNSpec, variables: Sequence[Mapping[str, Any]]):
        self._spec = spec
        self._variables = [jax.device_put(each) for each in variables]

    def __call__(self, volumes: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
        """Ask every network.

        Args:
          volumes: At most ``size`` arrays (X, Y, Z, C), normalised.
          size: The batch is filled up to it, so that one program serves all batches.

        Returns:
          Logits (networks, N, classes) float64 and penultimate features (networks, N, F) float64.
        """
        filled = list(volumes) + [volumes[0]] * (size - len(volumes))
        x = jax.device_put(np.stack(filled))
        found = [_program(self._spec)(variables, x) for variables in self._variables]
        logits, features = (np.stack([np.asarray(f[i], np.float64) for f in found]) for i in (0, 1))
        return logits[:, : len(volumes)], features[:, : len(volumes)]


@cache
def _program(spec: CNNSpec) -> Any:
    def both(network: CNN, x: Array) -> tuple[Array, Array]:
        kept: dict[str, Array] = {}
        # Not `intermediates=True`: that keeps the full-size maps of every layer.
        logits = network.head(network.trunk(x, train=False), train=False, kept=kept)
        return logits, kept["penultimate"]

    return jax.jit(lambda variables, x: CNN(spec).apply(variables, x, method=both))
