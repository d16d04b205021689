"""What is explained: the score of the positive class of one trained network."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array

from mri_jax.models import CNN, CNNSpec


class ScoredNetwork(NamedTuple):
    """A trained network.

    Attributes:
      spec: The architecture.
      variables: ``{"params": ..., "batch_stats": ...}``; running statistics are used.
    """

    spec: CNNSpec
    variables: Any


def score_of(spec: CNNSpec, variables: Any, x: Array) -> Array:
    """Returns the score that is explained: logit of the positive class minus that of the negative.

    Args:
      spec: The architecture, of two classes.
      variables: Parameters and statistics.
      x: (N, X, Y, Z, C) normalised volumes.

    Returns:
      (N,) differences of logits; positive speaks for the positive class.
    """
    return difference(CNN(spec).apply(variables, x, train=False))


def difference(logits: Array) -> Array:
    """Returns the (N,) scores of (N, 2) logits."""
    return logits[:, 1] - logits[:, 0]


@partial(jax.jit, static_argnames="spec")
def scores(spec: CNNSpec, variables: Any, x: Array) -> Array:
    """Returns what `score_of` does, by a compiled program."""
    return score_of(spec, variables, x)
