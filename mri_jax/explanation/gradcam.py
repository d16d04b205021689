"""Grad-CAM in three dimensions (Selvaraju et al. 2017, arXiv:1610.02391)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mri_jax.errors import UserError
from mri_jax.explanation.score import difference
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.conv_layer import max_pool

LEAST_SIDE = 6
"""Voxels that the default block's map has at least along every axis."""


def map_shapes(spec: CNNSpec, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Returns (X, Y, Z) of each block's map: after its last BatchNorm and ReLU, before pooling."""
    x, y, z = shape[:3]
    return [(x >> i, y >> i, z >> i) for i in range(len(spec.repetitions))]


def default_block(spec: CNNSpec, shape: tuple[int, ...]) -> int:
    """Returns the deepest block (from 1) whose map has `LEAST_SIDE` voxels a side; at least 1."""
    wide = [i for i, s in enumerate(map_shapes(spec, shape), start=1) if min(s) >= LEAST_SIDE]
    return max(wide, default=1)


def check_block(spec: CNNSpec, block: int) -> None:
    """Check a block number that a user gave.

    Raises:
      UserError: The network has no such block.
    """
    if not 1 <= block <= len(spec.repetitions):
        raise UserError(f"block: {block} must lie between 1 and {len(spec.repetitions)}")


@partial(jax.jit, static_argnames=("network", "block"))
def coarse_map(network: CNN, variables: Any, x: Array, block: int) -> Array:
    """Returns the map of a block, each channel weighted by its mean gradient, before upsampling.

    Signed: the rectifier of the original method is left out, so that what speaks for the negative
    class (negative values) can be seen too. The original map is the positive part.

    Args:
      network: The network.
      variables: Parameters and statistics.
      x: (N, X, Y, Z, C).
      block: From 1.

    Returns:
      (N, X', Y', Z').
    """
    spec = network.spec
    last = sum(spec.repetitions[:block])
    begin = next(first for first, end in spec.stretches if end == last)

    def layers(first: int, end: int, features: Array, kept: dict | None = None) -> Array:
        return network.apply(
            variables, features, train=False, first=first, last=end, kept=kept, method="trunk"
        )

    kept: dict[str, Array] = {}
    layers(begin, last, layers(1, begin - 1, x), kept)
    features = kept[f"conv{last}/feature_map"]

    def score(features: Array) -> Array:
        gated, _ = network.apply(variables, max_pool(features), last, method="gated")
        deep = layers(last + 1, len(spec.conv_filters), gated)
        return difference(network.apply(variables, deep, train=False, method="head")).sum()

    weights = jax.grad(score)(features).mean((1, 2, 3), keepdims=True)
    return (weights * features).sum(-1)


@partial(jax.jit, static_argnames=("shape", "factor"))
def upsample(coarse: Array, shape: tuple[int, int, int], factor: int) -> Array:
    """Linear interpolation of a block's map onto the volume's voxels.

    Voxel j of the map stands for voxels ``factor * j`` to ``factor * (j + 1) - 1`` of the volume
    and lies at their centre. Planes that pooling drops at the end of an axis get 0.

    Args:
      coarse: (N, X', Y', Z').
      shape: (X, Y, Z) of the volume.
      factor: Volume voxels a map voxel, ``2 ** (block - 1)``.

    Returns:
      (N, X, Y, Z).
    """
    scale = jnp.full(3, float(factor))
    return jax.image.scale_and_translate(
        coarse,
        (len(coarse), *shape),
        (1, 2, 3),
        scale,
        jnp.zeros(3),
        method="linear",
        antialias=False,
    )


def grad_cam(network: CNN, variables: Any, x: Array, block: int) -> Array:
    """Grad-CAM on the volume's own voxels: `coarse_map`, upsampled; (N, X, Y, Z)."""
    shape = (x.shape[1], x.shape[2], x.shape[3])
    return upsample(coarse_map(network, variables, x, block), shape, 2 ** (block - 1))
