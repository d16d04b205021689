"""Random streams: every draw is a pure function of a seed and a named purpose."""

import hashlib

import numpy as np


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Returns a 64-bit seed for one purpose, independent of every other purpose.

    Args:
      seed: The study's seed.
      *purpose: What the stream is for, e.g. ``("folds", "ADNI1")`` or ``("order", fold, epoch)``.

    Returns:
      The first eight bytes of SHA-256 over the seed and the purpose, as an unsigned integer. It
      does not depend on the process, the platform or Python's hash seed.
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(p).__name__}:{p}" for p in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Returns a NumPy generator for one purpose; see `stream_seed`."""
    return np.random.default_rng(stream_seed(seed, *purpose))
