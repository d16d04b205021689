"""The voxel grids of a study, in millimetres of template (MNI152) space, axes RAS+."""

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


# `paper` is the box of the MNI templates that SPM and Clinica use; `dev` and `demo` cover one box
# of 192 x 224 x 192 mm with the same centre, (0, -18, 18).
GRIDS = {
    "paper": Grid("paper", (181, 217, 181), 1.0, (-90.0, -126.0, -72.0)),
    "dev": Grid("dev", (96, 112, 96), 2.0, (-95.0, -129.0, -77.0)),
    "demo": Grid("demo", (48, 56, 48), 4.0, (-94.0, -128.0, -76.0)),
}


def grid_named(name: str) -> Grid:
    """The grid of that name.

    Raises:
      UserError: There is none.
    """
    if name not in GRIDS:
        raise UserError(f"grid: {name!r} is unknown; choose one of {', '.join(GRIDS)}")
    return GRIDS[name]
