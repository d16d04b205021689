"""Occlusion: how much the score falls when a part of the volume is replaced by the cohort's mean.

Regions of any shape are filled and passed through the whole network, a batch at a time (`drops`).
For patches (cubes of one size) only what a patch can change is computed anew in the first blocks
(`windows.patch_drops`).
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
def _occluded_scores(
    network: CNN, variables: Any, x: Array, fill: Array, labels: Array, chosen: Array
) -> Array:
    """Returns scores with, in turn, the voxels of each chosen label filled: (B,)."""
    hidden = labels[None] == chosen[:, None, None, None]
    return score_of(network, variables, jnp.where(hidden[..., None], fill, x))


def drops(
    asked: ScoredNetwork,
    x: np.ndarray,
    fill: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    chunk: int,
) -> np.ndarray:
    """Returns the score of the volume minus its score with each labelled part filled.

    Args:
      asked: The network.
      x: (X, Y, Z, C).
      fill: (X, Y, Z, C) what replaces a part, the mean volume of the cohort.
      labels: (X, Y, Z) int32.
      chosen: (R,) labels to occlude one by one.
      chunk: Occluded volumes computed together, which bounds the memory.

    Returns:
      (R,) float64; positive where the part speaks for the positive class.
    """
    network, variables = asked
    clean = float(np.asarray(scores(network, variables, x[None]))[0])
    given = jnp.asarray(x), jnp.asarray(fill), jnp.asarray(labels)
    found = [
        np.asarray(_occluded_scores(network, variables, *given, part))
        for part in in_chunks(np.asarray(chosen, np.int32), chunk)
    ]
    return clean - np.concatenate(found)[: len(chosen)].astype(np.float64)


def in_chunks(items: np.ndarray, chunk: int) -> list[np.ndarray]:
    """Returns rows in parts of ``chunk``, the last one filled up with its own last row again."""
    missing = -len(items) % chunk
    filled = np.concatenate([items, np.repeat(items[-1:], missing, axis=0)])
    return list(filled.reshape(-1, chunk, *items.shape[1:]))


def patch_starts(inside: np.ndarray, size: int) -> np.ndarray:
    """Returns the first voxels of the cubes that tile the volume and touch it.

    Args:
      inside: (X, Y, Z) bool: where occlusion may change a volume.
      size: Edge of a cube in voxels; cubes at the end of an axis may reach beyond it.

    Returns:
      (P, 3) int32, multiples of ``size``, in row-major order.
    """
    corners = np.argwhere(inside) // size
    return (np.unique(corners, axis=0) * size).astype(np.int32)


def spread(
    values: np.ndarray, starts: np.ndarray, size: int, shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns a map of patches: each voxel holds its patch's value, divided by the patch's voxels.

    Args:
      values: (P,).
      starts: (P, 3).
      size: Edge of the cubes in voxels.
      shape: (X, Y, Z).

    Returns:
      (X, Y, Z) float32; the sum over a patch is its value.
    """
    painted = np.zeros(shape, np.float32)
    for value, start in zip(values, starts, strict=True):
        box = painted[tuple(slice(s, s + size) for s in start)]
        box[...] = value / box.size
    return painted
