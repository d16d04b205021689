"""The weights of a gate of positions: by what features were multiplied, which explains no score."""

from functools import partial
from typing import Any

import jax
from jax import Array

from mri_jax.errors import UserError
from mri_jax.explanation.gradcam import LEAST_SIDE, upsample
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.attention import POSITIONAL, POSITIONS


def blocks_of(spec: CNNSpec) -> tuple[int, ...]:
    """Returns the blocks that a gate of positions follows; of gates of channels alone none."""
    return spec.attention_blocks if spec.attention in POSITIONAL else ()


def map_shape(block: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns (X, Y, Z) of the gate after a block's pooling."""
    x, y, z = shape[:3]
    return x >> block, y >> block, z >> block


def default_block(spec: CNNSpec, shape: tuple[int, ...]) -> int:
    """Returns the deepest gated block whose gate has `LEAST_SIDE` voxels a side, else the first."""
    blocks = blocks_of(spec)
    wide = [block for block in blocks if min(map_shape(block, shape)) >= LEAST_SIDE]
    return max(wide, default=blocks[0])


def check(spec: CNNSpec, block: int) -> None:
    """Check that there is a gate to show: after a block that a user gave, or 0 for any.

    Raises:
      UserError: The network has none.
    """
    blocks = blocks_of(spec)
    if not blocks:
        raise UserError(
            f"method: attention shows gates of positions (config.model.attention: "
            f"{', '.join(POSITIONAL)}), and this network has none"
        )
    if block and block not in blocks:
        named = ", ".join(map(str, blocks))
        raise UserError(f"block: {block} has no gate to show; blocks that have one: {named}")


@partial(jax.jit, static_argnames=("network", "block"))
def gate_of(network: CNN, variables: Any, x: Array, block: int) -> Array:
    """Returns the weights of the gate after a block, (N, X', Y', Z'), of (N, X, Y, Z, C)."""
    gates: dict[str, Array] = {}
    last = sum(network.spec.repetitions[:block])
    network.apply(variables, x, train=False, last=last, gates=gates, method="trunk")
    return gates[f"att{block}/{POSITIONS}"]


def attention_map(network: CNN, variables: Any, x: Array, block: int) -> Array:
    """Returns the weights on the volume's own voxels, interpolated; (N, X, Y, Z)."""
    shape = (x.shape[1], x.shape[2], x.shape[3])
    return upsample(gate_of(network, variables, x, block), shape, 2**block)
