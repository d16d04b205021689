"""The voxel grids of a study, in millimetres of template (MNI152) space, axes RAS+."""

import math
from dataclasses import dataclass

import numpy as np

from mri_jax.errors import UserError


@dataclass(frozen=True)
class Grid:
    """A box of voxels in template space.

    Attributes:
      name: Its name in configs and stores.
      shape: Voxels along X (left to right), Y (posterior to anterior), Z (inferior to superior).
      spacing: Edge of a voxel in mm.
      origin: Template coordinates (mm) of the centre of voxel (0, 0, 0).
    """

    name: str
    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64: voxel indices to template millimetres, RAS+."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine


def grids_of_box(
    centre: tuple[float, float, float], extent: tuple[float, float, float]
) -> dict[str, Grid]:
    """Returns the three grids of a template's space.

    Args:
      centre: Template coordinates (mm) of the centre of the box.
      extent: Its edges (mm) along X, Y, Z.

    Returns:
      ``paper``, the box itself at 1 mm; ``dev`` at 2 mm and ``demo`` at 4 mm, both over the box
      grown to a multiple of 32 mm, so that the shapes can be halved four and three times.
    """
    shape = tuple(math.ceil(edge - 1e-6) for edge in extent)
    grids = {}
    for name, spacing, multiple in (("paper", 1.0, 1), ("dev", 2.0, 16), ("demo", 4.0, 8)):
        x, y, z = (math.ceil(n / spacing / multiple) * multiple for n in shape)
        size = (x, y, z)
        i, j, k = (c - (n - 1) / 2 * spacing for c, n in zip(centre, size, strict=True))
        grids[name] = Grid(name, size, spacing, (i, j, k))
    return grids


# The box of the MNI templates that SPM and Clinica use, 181 x 217 x 181 mm around (0, -18, 18).
GRIDS = grids_of_box((0.0, -18.0, 18.0), (181.0, 217.0, 181.0))


def grid_named(name: str) -> Grid:
    """Returns the grid of that name.

    Raises:
      UserError: There is none.
    """
    if name not in GRIDS:
        raise UserError(f"grid: {name!r} is unknown; choose one of {', '.join(GRIDS)}")
    return GRIDS[name]
