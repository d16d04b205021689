"""Volumes at the coarse resolution at which the voxel-wise baseline sees them."""

import numpy as np

VOXEL_SPACING = 4.0
"""Resolution (mm) at which the voxel-wise model sees the volumes, whatever the study's grid."""


def block_mean(volume: np.ndarray, spacing: float) -> np.ndarray:
    """Returns (X, Y, Z) at ``spacing`` mm as a flat vector of block means at about `VOXEL_SPACING`.

    Blocks are cubes of ``round(VOXEL_SPACING / spacing)`` voxels (at least one); the planes left
    over at the far end of an axis are dropped.
    """
    step = max(1, round(VOXEL_SPACING / spacing))
    x, y, z = (size // step for size in volume.shape)
    cut = np.asarray(volume[: x * step, : y * step, : z * step], np.float32)
    return cut.reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5)).reshape(-1)
