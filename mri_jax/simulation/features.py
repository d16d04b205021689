"""What plain classifiers see of simulated scans."""

import numpy as np
import pandas as pd

from mri_jax.evaluation.blocks import block_mean
from mri_jax.volumes.normalise import Normalisation, normalise
from mri_jax.volumes.store import VolumeStore


def features_of(table: pd.DataFrame, store: VolumeStore) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, V) volumes at 4 mm and (N, P) percentiles of intensities, both normalised."""
    voxels, levels = [], []
    for subject, session in zip(table["subject_id"], table["session_id"], strict=True):
        mask = np.asarray(store.mask(subject, session))
        volume = normalise(store.volume(subject, session), mask, Normalisation())
        voxels.append(block_mean(volume, store.info.grid.spacing).astype(np.float16))
        levels.append(np.percentile(volume[mask], np.arange(5, 100, 5)))
    flat = np.stack(voxels)
    return flat[:, flat.any(axis=0)].astype(np.float32), np.stack(levels)
