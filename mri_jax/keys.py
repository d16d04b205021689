"""Random keys of JAX: each is a pure function of a seed and a named purpose."""

import jax
import numpy as np
from jax import Array

from mri_jax.seeding import stream_seed


def key_data(seed: int) -> np.ndarray:
    """Returns the (2,) uint32 words of a seed from 0 to 2**64 - 1."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def random_key(seed: int, *purpose: str | int) -> np.ndarray:
    """Returns the (2,) uint32 words of the key for one named purpose; see `mri_jax.seeding`."""
    return key_data(stream_seed(seed, *purpose))


def typed_key(words: np.ndarray | Array) -> Array:
    """Returns the key (threefry) of (2,) uint32 words as the functions of `jax.random` take it."""
    return jax.random.wrap_key_data(jax.numpy.asarray(words), impl="threefry2x32")
