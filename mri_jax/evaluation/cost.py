"""What fitting the plain classifiers costs on this machine."""

import time

import numpy as np

from mri_jax.evaluation.linear import fit_voxels


def voxels_seconds(scans: int) -> float:
    """Measures the seconds of fitting the voxel-wise classifier to so many scans."""
    blocks = np.random.default_rng(0).normal(size=(scans, 48 * 56 * 48)).astype(np.float32)
    started = time.perf_counter()
    fit_voxels(blocks, np.arange(scans) % 2, 0)
    return time.perf_counter() - started
