"""L2-SP: a penalty on the distance from the network that fine-tuning starts from.

Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning with convolutional
networks". The penalty there is of two parts, one for layers of the source network and one for new
ones; here no layer is new.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mri_jax.models import CNNSpec, split
from mri_jax.training.objectives.interface import Asked, Objective, Terms


@dataclass(frozen=True)
class L2SP(Objective):
    """Cross-entropy, and ``weight / 2`` times the squared distance from the starting point.

    Attributes:
      weight: Weight of the penalty.
    """

    weight: float

    name = "l2-sp"

    def remembered(self, spec: CNNSpec, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `Objective`."""
        return {"start": jax.tree.map(jnp.asarray, dict(params))}

    def terms(self, asked: Asked) -> Terms:
        """See `Objective`."""
        made = asked.trained(0, asked.labelled)
        distances = jax.tree.map(
            lambda now, start: ((now - start) ** 2).sum(), asked.params, asked.memory["start"]
        )
        penalty = self.weight / 2 * sum(jax.tree.leaves(distances))
        shared = penalty / split.parts(asked.batch_axis)
        loss = asked.cross_entropy(made.logits) + shared
        return Terms(loss, made.batch_stats, asked.memory)


def make(rates: Mapping[str, float], steps: int) -> L2SP:
    """Returns the objective of a training of at most so many steps; see `mri_jax.adaptation`."""
    return L2SP(weight=float(rates["weight"]))
