"""Gradient x input and integrated gradients.

With running statistics the networks are continuous and piecewise linear in the volume, so the
gradient is exact almost everywhere; every form of the conv layers gives the same gradient as the
plain form.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.explanation.score import ScoredNetwork, score_of, scores
from mri_jax.models import CNN


@partial(jax.jit, static_argnames="network")
def input_gradient(network: CNN, variables: Any, x: Array) -> Array:
    """Returns the gradient of each volume's own score with respect to it: (N, X, Y, Z, C)."""
    return jax.grad(lambda v: score_of(network, variables, v).sum())(x)


@partial(jax.jit, static_argnames="network")
def gradient_times_input(network: CNN, variables: Any, x: Array, baseline: Array) -> Array:
    """Gradient x (input - baseline), of each voxel (Shrikumar et al. 2016, arXiv:1605.01713).

    Args:
      network: The network.
      variables: Parameters and statistics.
      x: (N, X, Y, Z, C).
      baseline: () or (X, Y, Z, C): what counts as no signal, usually the constant background.

    Returns:
      (N, X, Y, Z, C) in units of the score.
    """
    return input_gradient(network, variables, x) * (x - baseline)


@partial(jax.jit, static_argnames="network", donate_argnums=4)
def _along_path(
    network: CNN, variables: Any, x: Array, baseline: Array, total: Array, share: Array
) -> Array:
    """Add the gradients at some points of the straight path from ``baseline`` to ``x``."""
    points = baseline + share[:, None, None, None, None] * (x - baseline)
    return total + input_gradient(network, variables, points).sum(0)


def integrated_gradients(
    asked: ScoredNetwork, x: np.ndarray, baseline: np.ndarray, steps: int, chunk: int
) -> tuple[np.ndarray, float]:
    """Integrated gradients of one volume (Sundararajan et al. 2017, arXiv:1703.01365).

    The integral over the straight path from the baseline is taken by the midpoint rule.

    Args:
      asked: The network.
      x: (X, Y, Z, C).
      baseline: (X, Y, Z, C), where the path starts.
      steps: Points on the path.
      chunk: Points computed together, which bounds the memory; must divide ``steps``.

    Returns:
      (X, Y, Z, C) attributions, and the completeness error: their sum minus the difference of the
      scores of ``x`` and the baseline, which would be 0 with enough steps.
    """
    if steps % chunk:
        raise ValueError(f"chunk {chunk} does not divide {steps} steps")
    network, variables = asked
    shares = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    total = jnp.zeros(x.shape, jnp.float32)
    for part in shares.reshape(-1, chunk):
        total = _along_path(network, variables, x, baseline, total, part)
    attribution = np.asarray(total / steps * (x - baseline))
    ends = np.concatenate([np.asarray(scores(network, variables, v[None])) for v in (x, baseline)])
    error = float(attribution.sum(dtype=np.float64) - (float(ends[0]) - float(ends[1])))
    return attribution, error
