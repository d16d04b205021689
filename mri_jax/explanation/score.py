"""What is explained: the score of the positive class of one trained network."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array

from mri_jax.models import CNN, CNNSpec
from mri_jax.models.chosen import Forms


class ScoredNetwork(NamedTuple):
    """A trained network.

    Attributes:
      network: The architecture, and how its conv layers are computed.
      variables: ``{"params": ..., "batch_stats": ...}``; running statistics are used.
    """

    network: CNN
    variables: Any

    @classmethod
    def of(cls, spec: CNNSpec, variables: Any, forms: Forms | None) -> "ScoredNetwork":
        """Returns a network whose conv layers are computed by some forms; None: the machine's."""
        return cls(CNN(spec, forms=forms), variables)


def score_of(network: CNN, variables: Any, x: Array) -> Array:
    """Returns the score that is explained: logit of the positive class minus that of the negative.

    Args:
      network: Of two classes.
      variables: Parameters and statistics.
      x: (N, X, Y, Z, C) normalised volumes.

    Returns:
      (N,) differences of logits; positive speaks for the positive class.
    """
    return difference(network.apply(variables, x, train=False))


def difference(logits: Array) -> Array:
    """Returns the (N,) scores of (N, 2) logits."""
    return logits[:, 1] - logits[:, 0]


@partial(jax.jit, static_argnames="network")
def scores(network: CNN, variables: Any, x: Array) -> Array:
    """Returns what `score_of` does, by a compiled program."""
    return score_of(network, variables, x)
