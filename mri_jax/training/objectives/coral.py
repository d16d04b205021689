"""CORAL: the covariances of both sites' penultimate features are aligned.

Sun and Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation", equations 1 to
4. A batch holds few volumes, and the covariance of two vectors has rank one; so the covariances are
those of the last features of each site, of which those of the batch alone have a gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mri_jax.models import CNNSpec, split
from mri_jax.training.objectives.interface import (
    PAIRED,
    Asked,
    Objective,
    Terms,
    penultimate_size,
)


@dataclass(frozen=True)
class Coral(Objective):
    """Cross-entropy of the source, and ``weight`` times the distance of the sites' covariances.

    Attributes:
      weight: Weight of the distance.
      memory: How many features of each site are remembered.
    """

    weight: float
    memory: int

    name = "coral"
    batches = PAIRED

    def remembered(self, spec: CNNSpec, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `Objective`."""
        empty = jnp.zeros((self.memory, penultimate_size(spec, params)))
        return {"source": empty, "target": empty, "filled": jnp.zeros((), jnp.int32)}

    def terms(self, asked: Asked) -> Terms:
        """See `Objective`."""
        source, target = asked.trained(0, asked.labelled), asked.trained(1, asked.unlabelled)
        filled, recent = asked.memory["filled"], {}
        for site, made in (("source", source), ("target", target)):
            features = split.gathered(made.features, asked.batch_axis)
            recent[site] = jnp.concatenate([features, asked.memory[site]])[: self.memory]
        filled = jnp.minimum(filled + features.shape[0], self.memory)
        known = jnp.arange(self.memory) < filled
        distance = coral_loss(recent["source"], recent["target"], known)
        shared = self.weight * distance / split.parts(asked.batch_axis)
        loss = asked.cross_entropy(source.logits) + shared
        remembered = {**jax.lax.stop_gradient(recent), "filled": filled}
        return Terms(loss, source.batch_stats, remembered)


def make(rates: Mapping[str, float], steps: int) -> Coral:
    """Returns the objective of a training of at most so many steps; see `mri_jax.adaptation`."""
    return Coral(weight=float(rates["weight"]), memory=int(rates["memory"]))


def coral_loss(source: Array, target: Array, known: Array) -> Array:
    """Returns the squared distance of two covariances over ``4 F ** 2``, ().

    Args:
      source: (N, F) features.
      target: (N, F) features.
      known: (N,) bool, which rows count; at least two.
    """
    size = source.shape[1]
    apart = _covariance(source, known) - _covariance(target, known)
    return (apart**2).sum() / (4 * size**2)


def _covariance(features: Array, known: Array) -> Array:
    weight = known.astype(features.dtype)[:, None]
    number = weight.sum()
    centred = (features - (weight * features).sum(axis=0) / number) * weight
    return centred.T @ centred / (number - 1)
