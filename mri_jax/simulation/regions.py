"""The regions that disease changes, in template millimetres, cut out of the tissue maps.

No atlas is shipped: a region is a few tubes or half-spaces in MNI coordinates, intersected with
grey matter or fluid. The coordinates were read off the ICBM152 2009a symmetric template; the
centroids lie within a centimetre of those published for the AAL atlas (Tzourio-Mazoyer et al. 2002,
doi:10.1006/nimg.2001.0978), the hippocampus' within 6 mm, which a test checks.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mri_jax.volumes.grids import Grid

HIPPOCAMPUS, MEDIAL, LATERAL, CORTEX, VENTRICLES = range(5)
REGIONS = ("hippocampus", "amygdala_parahippocampal", "lateral_temporal", "cortex", "ventricles")

# Centre lines in the right hemisphere: x, y, z and radius (mm); sections are 1.35 times as wide as
# high.
_HIPPOCAMPUS = (
    (27, -9, -23, 5.0),
    (27, -13, -20, 6.0),
    (28, -18, -17, 5.8),
    (30, -24, -14, 5.2),
    (31, -29, -11.5, 5.0),
    (30, -33, -7.5, 4.8),
    (26, -37, -2.5, 4.5),
    (20, -39, 3, 4),
)
_AMYGDALA = ((22, -1, -20, 7.0), (24, -5, -19, 7.0))
_PARAHIPPOCAMPAL = ((24, 1, -32, 6.5), (23, -8, -32, 6.5), (22, -17, -28, 6.5), (21, -26, -21, 6.0),
                    (19, -33, -15, 5.5))  # fmt: skip
_FLATTENING = 1.35


def coordinates(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Template coordinates (mm) along the axes, shaped to broadcast over (X, Y, Z)."""
    x, y, z = (
        (start + grid.spacing * np.arange(n)).astype(np.float32)
        for start, n in zip(grid.origin, grid.shape, strict=True)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


def region_maps(gm: np.ndarray, csf: np.ndarray, grid: Grid) -> np.ndarray:
    """Soft membership of every region.

    Args:
      gm: (X, Y, Z) fraction of grey matter, 0 to 1.
      csf: (X, Y, Z) fraction of cerebrospinal fluid.
      grid: Where they lie.

    Returns:
      (5, X, Y, Z) float32 in the order of `REGIONS`; they sum to at most 1 in every voxel.
    """
    x, y, z = coordinates(grid)
    side = np.abs(x)
    hippocampus = _tube(_HIPPOCAMPUS, side, y, z)
    medial = (_tube(_AMYGDALA, side, y, z) | _tube(_PARAHIPPOCAMPAL, side, y, z)) & ~hippocampus
    taken = hippocampus | medial
    lateral = _lateral_temporal(side, y, z) & ~taken
    cortex = ~(taken | lateral | _cerebellum(side, y, z) | _deep(side, y, z))
    ventricles = _lateral_ventricles(csf, side, y, z) & ~hippocampus
    grey = [np.where(inside, gm, 0) for inside in (hippocampus, medial, lateral, cortex)]
    return np.stack([*grey, np.where(ventricles, csf, 0)]).astype(np.float32)


def _tube(
    line: Sequence[tuple[float, ...]], side: np.ndarray, y: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """Returns voxels within the (changing) radius of a centre line, wider than high."""
    inside = np.zeros(np.broadcast_shapes(side.shape, y.shape, z.shape), bool)
    for (x0, y0, z0, r0), (x1, y1, z1, r1) in itertools.pairwise(line):
        # Only in the box around this piece of the line, a small part of the head.
        r = max(r0, r1)
        box = np.ix_(
            _between(side, x0, x1, _FLATTENING * r), _between(y, y0, y1, r), _between(z, z0, z1, r)
        )
        px, py, pz = side[box[0], 0, 0], y[0, box[1], 0], z[0, 0, box[2]]
        dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
        along = (px - x0) * dx + (py - y0) * dy + (pz - z0) * dz
        t = np.clip(along / (dx * dx + dy * dy + dz * dz), 0, 1)
        across = ((px - x0 - t * dx) / _FLATTENING) ** 2
        distance = across + (py - y0 - t * dy) ** 2 + (pz - z0 - t * dz) ** 2
        inside[box] |= distance <= (r0 + t * (r1 - r0)) ** 2
    return inside


def _between(values: np.ndarray, start: float, end: float, reach: float) -> np.ndarray:
    """Returns indices of coordinates at most ``reach`` and a voxel outside of two others, mm."""
    low, high = min(start, end) - reach - 1, max(start, end) + reach + 1
    return np.flatnonzero((values >= low) & (values <= high))


def _lateral_temporal(side: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Temporal lobe lateral to the collateral sulcus, below the Sylvian fissure."""
    fissure = 1.0 - 0.45 * y - np.where(side < 46, 8.0, 0.0)
    lobe = (side > 33) & (y > -62) & (y < 24) & (z < fissure) & (z < 18)
    return lobe & ~_cerebellum(side, y, z)


def _cerebellum(side: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Below the tentorium, whose height falls from the midline outward."""
    tentorium = np.interp(
        side, (0, 4, 14, 24, 30, 40, 52, 80), (0, 0, -10, -15, -19, -23, -28, -34)
    )
    brainstem = (side < 17) & (y > -48) & (y < -8) & (z < -6)
    return ((y < -34) & (z < tentorium)) | brainstem


def _deep(side: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Thalamus and basal ganglia, whose grey matter is no cortex."""
    ellipsoid = ((side - 14) / 20) ** 2 + ((y + 2) / 32) ** 2 + ((z - 4) / 18) ** 2
    return ellipsoid < 1


def _lateral_ventricles(
    csf: np.ndarray, side: np.ndarray, y: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """Returns the fluid with both frontal horns, and the temporal horns; no third ventricle."""
    box = (side < 44) & (y > -62) & (y < 40) & (z > -28) & (z < 36)
    third = (side < 4.5) & (z < 9)
    cistern = (side < 19) & (y < -26) & (z < 9)
    basal = (z < 0) & ~((side > 26) & (y > -46) & (y < -6))
    fluid = (csf > 0.4) & box & ~third & ~cistern & ~basal
    labels, _ = ndimage.label(fluid)
    seeds = fluid & (side > 6) & (side < 14) & (y > 0) & (y < 22) & (z > 6) & (z < 22)
    kept = np.isin(labels, np.unique(labels[seeds])) & (labels > 0)
    near_hippocampus = (side > 26) & (side < 42) & (y > -46) & (y < -6) & (z < 0)
    return ndimage.binary_dilation(kept | (fluid & near_hippocampus), iterations=1)
