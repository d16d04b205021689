"""What normalising a volume costs on this machine."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mri_jax.volumes.grids import Grid
from mri_jax.volumes.normalise import Normalisation, normalise


def volume_seconds(grid: Grid, how: Normalisation, threads: int) -> float:
    """Measures the seconds of a volume that is normalised for the first time."""
    rng = np.random.default_rng(0)
    volume = rng.normal(size=grid.shape).astype(np.float16)
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(n // 8, -n // 8) for n in grid.shape)] = True
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: normalise(volume, mask, how), range(2 * threads)))
    return (time.perf_counter() - started) / (2 * threads)
