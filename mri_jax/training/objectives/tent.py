"""TENT: the entropy of decisions about unlabelled scans.

Wang et al. 2021, "Tent: fully test-time adaptation by entropy minimization". There the statistics
are those of each batch; batches of two volumes are too few for that, so the network keeps those of
the whole adaptation part, which it starts with (`adabn`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
from jax import Array

from mri_jax.models import split
from mri_jax.training.objectives.interface import UNLABELLED, Asked, Objective, Terms


@dataclass(frozen=True)
class Tent(Objective):
    """The mean entropy of the decisions, in nats."""

    name = "tent"
    batches = UNLABELLED

    def terms(self, asked: Asked) -> Terms:
        """See `Objective`."""
        made = asked.evaluated(asked.unlabelled)
        number = made.logits.shape[0] * split.parts(asked.batch_axis)
        return Terms(entropy(made.logits).sum() / number, made.batch_stats, asked.memory)


def make(rates: Mapping[str, float], steps: int) -> Tent:
    """Returns the objective of a training of at most so many steps; see `mri_jax.adaptation`."""
    return Tent()


def entropy(logits: Array) -> Array:
    """Returns the entropy in nats of the decision that (N, classes) logits stand for, (N,)."""
    logs = jax.nn.log_softmax(logits)
    return -(jax.nn.softmax(logits) * logs).sum(axis=-1)
