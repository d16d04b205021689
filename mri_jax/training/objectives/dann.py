"""DANN: features from which a discriminator cannot tell the sites.

Ganin et al. 2016, "Domain-adversarial training of neural networks": the discriminator minimises its
loss, and the gradient that it hands to the features is reversed and weighted by a schedule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax import Array

from mri_jax.models import CNNSpec, split
from mri_jax.training.objectives.adversary import discriminator, schedule, site_loss
from mri_jax.training.objectives.interface import (
    PAIRED,
    Asked,
    Objective,
    Terms,
    penultimate_size,
)


@dataclass(frozen=True)
class Dann(Objective):
    """Cross-entropy of the source, and of the sites with its gradient reversed.

    Attributes:
      weight: Of the reversed gradient at the end.
      hidden: Size of the discriminator's hidden layer.
      steps: Steps of the longest training: the end of the schedule.
    """

    weight: float
    hidden: int
    steps: int

    name = "dann"
    batches = PAIRED

    def layers(self, spec: CNNSpec, params: Mapping[str, Any], key: Array) -> dict[str, Any]:
        """See `Objective`."""
        return discriminator(penultimate_size(spec, params), self.hidden, key)

    def terms(self, asked: Asked) -> Terms:
        """See `Objective`."""
        source, target = asked.trained(0, asked.labelled), asked.trained(1, asked.unlabelled)
        strength = self.weight * schedule(asked.step / self.steps)
        told = site_loss(asked.params, source.features, target.features, strength)
        shared = told / split.parts(asked.batch_axis)
        loss = asked.cross_entropy(source.logits) + shared
        return Terms(loss, source.batch_stats, asked.memory)


def make(rates: Mapping[str, float], steps: int) -> Dann:
    """Returns the objective of a training of at most so many steps; see `mri_jax.adaptation`."""
    return Dann(weight=float(rates["weight"]), hidden=int(rates["hidden"]), steps=steps)
