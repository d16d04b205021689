"""What an ensemble makes of scans: logits, and features that tell how unusual a scan is.

Two kinds of features, since each misses what the other sees. The penultimate ones decide, and were
trained to forget what two classes have in common. The moments of every conv layer's channels
(means as in Lee et al. 2018, arXiv:1807.03888, and standard deviations, which move with contrast,
noise and smoothness) keep how strongly each filter responds, whether or not a decision uses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.models import CNN, CNNSpec
from mri_jax.models.chosen import Forms
from mri_jax.prediction.model import LAYERS, PENULTIMATE


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """What the networks of an ensemble compute for N scans.

    Attributes:
      logits: (networks, N, classes) float64.
      features: By kind (`mri_jax.prediction.model.KINDS`), (networks, N, F) float64.
    """

    logits: np.ndarray
    features: dict[str, np.ndarray]


class NetworksOnDevice:
    """Networks of one architecture on the device.

    Args:
      spec: The architecture.
      variables: Variables of each network.
      forms: How conv layers are computed (`mri_jax.models.choice`); None: the machine's choice.
    """

    def __init__(
        self,
        spec: CNNSpec,
        variables: Sequence[Mapping[str, Any]],
        forms: Forms | None = None,
    ):
        self._network = CNN(spec, forms=forms)
        self._variables = [jax.device_put(each) for each in variables]

    def __call__(self, volumes: Sequence[np.ndarray], size: int) -> NetworkOutputs:
        """Ask every network.

        Args:
          volumes: At most ``size`` arrays (X, Y, Z, C), normalised.
          size: The batch is filled up to it, so that one program serves all batches.
        """
        filled = list(volumes) + [volumes[0]] * (size - len(volumes))
        x = jax.device_put(np.stack(filled))
        found = [_program(self._network)(variables, x) for variables in self._variables]
        stacked = jax.tree.map(
            lambda *each: np.stack([np.asarray(a, np.float64)[: len(volumes)] for a in each]),
            *found,
        )
        return NetworkOutputs(*stacked)


def moments(x: Array) -> Array:
    """Returns mean and SD of each channel over a map; (N, X, Y, Z, C) to (N, 2 C)."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.concatenate([wide.mean((1, 2, 3)), wide.std((1, 2, 3))], axis=-1)


@cache
def _program(network: CNN) -> Any:
    def ask(network: CNN, x: Array) -> tuple[Array, dict[str, Array]]:
        layers = []
        # One by one, not `intermediates=True`: that keeps the full-size maps of every layer.
        for first, last in network.spec.stretches:
            x = network.trunk(x, train=False, first=first, last=last)
            layers.append(moments(x))
        kept: dict[str, Array] = {}
        logits = network.head(x, train=False, kept=kept)
        return logits, {
            PENULTIMATE: kept["penultimate"],
            LAYERS: jnp.concatenate(layers, axis=-1),
        }

    return jax.jit(lambda variables, x: network.apply(variables, x, method=ask))
