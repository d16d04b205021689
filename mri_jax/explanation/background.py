"""The cohort's mean volume and brain, against which scans are set."""

import numpy as np

from mri_jax.explanation.methods import Background
from mri_jax.progress import Progress
from mri_jax.volumes.stream import Reader


def background_of(reader: Reader, threads: int) -> Background:
    """Returns the mean volume and brain of all scans of the reader (no labels are used)."""
    total = np.zeros(reader.shape, np.float64)
    inside = np.zeros(reader.shape[:3], np.int32)
    with Progress(len(reader), "scan", "cohort mean") as progress:
        for row, volume in enumerate(reader.stream(range(len(reader)), threads, prefetch=2)):
            total += volume
            inside += np.asarray(reader.store.mask(*reader.keys[row]))
            progress.advance()
    return Background(
        mean=(total / len(reader)).astype(np.float32),
        brain=2 * inside >= len(reader),
        reach=inside > 0,
        constant=reader.how.background,
    )
