"""AD2A: a spatial gate whose weights agree between the sites, and an adversary of sites.

Guan et al. 2021, "Multi-site MRI harmonization via attention-guided deep domain adaptation for
brain disorder identification" (Medical Image Analysis 71): an encoder, attention discovery,
consistency of the attention between sites, adversarial transfer. BUILD_NOTES.md says what of it
could be read, and what is assumed.
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
    Pass,
    Terms,
    penultimate_size,
)


@dataclass(frozen=True)
class AD2A(Objective):
    """Cross-entropy of the source, distance of the sites' gates, and the adversary of `Dann`.

    Attributes:
      consistency: Weight of the mean squared difference of the gates.
      weight: Of the reversed gradient at the end of its schedule.
      hidden: Size of the discriminator's hidden layer.
      steps: Steps of the longest training: the end of the schedule.
    """

    consistency: float
    weight: float
    hidden: int
    steps: int

    name = "ad2a"
    batches = PAIRED

    def layers(self, spec: CNNSpec, params: Mapping[str, Any], key: Array) -> dict[str, Any]:
        """See `Objective`."""
        return discriminator(penultimate_size(spec, params), self.hidden, key)

    def terms(self, asked: Asked) -> Terms:
        """See `Objective`."""
        source, target = asked.trained(0, asked.labelled), asked.trained(1, asked.unlabelled)
        apart = ((_gate(source) - _gate(target)) ** 2).mean()
        strength = self.weight * schedule(asked.step / self.steps)
        told = site_loss(asked.params, source.features, target.features, strength)
        shared = (self.consistency * apart + told) / split.parts(asked.batch_axis)
        loss = asked.cross_entropy(source.logits) + shared
        return Terms(loss, source.batch_stats, asked.memory)


def _gate(made: Pass) -> Array:
    """Returns the weights of the positions, (N, X, Y, Z), of the network's only gate."""
    (gate,) = made.gates.values()
    return gate


def make(rates: Mapping[str, float], steps: int) -> AD2A:
    """Returns the objective of a training of at most so many steps; see `mri_jax.adaptation`."""
    return AD2A(
        consistency=float(rates["consistency"]),
        weight=float(rates["weight"]),
        hidden=int(rates["hidden"]),
        steps=steps,
    )
