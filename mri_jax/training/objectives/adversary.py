"""A discriminator of two sites whose gradient is reversed where the features take it.

Ganin et al. 2016, "Domain-adversarial training of neural networks", section 4.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

_STEEPNESS = 10.0


def schedule(progress: Array) -> Array:
    """Returns ``2 / (1 + exp(-10 p)) - 1``: from 0 to nearly 1 while ``p`` goes from 0 to 1."""
    return 2 / (1 + jnp.exp(-_STEEPNESS * jnp.clip(progress, 0, 1))) - 1


@jax.custom_vjp
def reversed_gradient(features: Array, strength: Array) -> Array:
    """Returns the features; their gradient is multiplied by ``-strength``."""
    return features


def _forward(features: Array, strength: Array) -> tuple[Array, Array]:
    return features, strength


def _backward(strength: Array, gradient: Array) -> tuple[Array, Array]:
    return -strength.astype(gradient.dtype) * gradient, jnp.zeros_like(strength)


reversed_gradient.defvjp(_forward, _backward)


def discriminator(features: int, hidden: int, key: Array) -> dict[str, Any]:
    """Draws a discriminator of two sites: FC, ReLU, FC; see `site_loss`."""
    found, sizes = {}, (features, hidden, 1)
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        bound = fan_in**-0.5
        kernel = jax.random.uniform(
            jax.random.fold_in(key, i), (fan_in, fan_out), minval=-bound, maxval=bound
        )
        found[f"site{i}"] = {"kernel": kernel, "bias": jnp.zeros(fan_out)}
    return found


def site_loss(params: Mapping[str, Any], source: Array, target: Array, strength: Array) -> Array:
    """Returns the mean cross-entropy of telling the sites, (); both weigh alike.

    Args:
      params: With the layers of `discriminator`.
      source: (N, F) features.
      target: (M, F) features.
      strength: () with which the features' gradient is reversed.
    """
    losses = []
    for site, features in ((0.0, source), (1.0, target)):
        x = reversed_gradient(features, strength)
        hidden = jax.nn.relu(x @ params["site1"]["kernel"] + params["site1"]["bias"])
        logit = (hidden @ params["site2"]["kernel"] + params["site2"]["bias"])[:, 0]
        losses.append(optax.sigmoid_binary_cross_entropy(logit, jnp.full(logit.shape, site)).mean())
    return (losses[0] + losses[1]) / 2
