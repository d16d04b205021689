"""The template that scans are brought to: a T1w head and its brain mask in one space."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from mri_jax.errors import UserError
from mri_jax.files import check_regular, sha256_of_file
from mri_jax.volumes.grids import GRIDS, Grid, grids_of_box
from mri_jax.volumes.resampling import Image, block_mean, transform_points

PACKAGED = "mni152"
_HEAD = "icbm152_sym_nlin6_T1w_head_1mm.nii.gz"
_MASK = "icbm152_sym_nlin6_brain_mask_1mm.nii.gz"
# Skull and scalp within this distance (mm) of the brain take part in finding the head.
RIM = 12.0
COARSE = 2.0


@dataclass(frozen=True, eq=False)
class Template:
    """A head and a brain mask on one RAS+ grid.

    Attributes:
      name: ``mni152``, or the file name of the user's head.
      head: (X, Y, Z) float32 intensities of a T1w head.
      mask: (X, Y, Z) bool, True inside the (filled) brain.
      affine: (4, 4) voxel indices to template millimetres.
      grids: The grids of that space by name.
      sha256: Checksums of the head's and the mask's file.
    """

    name: str
    head: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    grids: dict[str, Grid]
    sha256: tuple[str, str]

    @cached_property
    def centre(self) -> np.ndarray:
        """(3,) mm: the centre of mass of the brain."""
        return self.affine[:3, :3] @ np.argwhere(self.mask).mean(0) + self.affine[:3, 3]

    @cached_property
    def coarse(self) -> tuple[Image, Image]:
        """Head and mask (as float, 0 to 1) at about 2 mm, for all that is estimated."""
        head = block_mean(Image(self.head, self.affine), COARSE)
        mask = block_mean(Image(self.mask.astype(np.float32), self.affine), COARSE)
        return head, mask

    @cached_property
    def depth(self) -> Image:
        """Signed distance (mm) to the surface of the brain at about 2 mm, positive inside."""
        brain = self.coarse[1]
        inside = ndimage.distance_transform_edt(brain.data > 0.5, sampling=brain.spacing)
        outside = ndimage.distance_transform_edt(brain.data <= 0.5, sampling=brain.spacing)
        return Image((inside - outside).astype(np.float32), brain.affine)

    @cached_property
    def surroundings(self) -> Image:
        """(X, Y, Z) float32, 0 or 1, at about 2 mm: the brain and the tissue within `RIM` mm."""
        near = self.depth.data >= -RIM
        return Image(near.astype(np.float32), self.depth.affine)

    @cached_property
    def radius(self) -> float:
        """Largest distance (mm) of the surroundings from the brain's centre."""
        near = self.surroundings
        points = transform_points(near.affine, np.argwhere(near.data))
        return float(np.linalg.norm(points - self.centre, axis=1).max())

    def grid(self, name: str) -> Grid:
        """Returns the grid of that name in this template's space."""
        if name not in self.grids:
            raise UserError(f"grid: {name!r} is unknown; choose one of {', '.join(self.grids)}")
        return self.grids[name]


@lru_cache(maxsize=2)
def load_template(head: str = PACKAGED, mask: str = "") -> Template:
    """Returns the packaged template, or a user's.

    Args:
      head: ``mni152`` (ICBM 152 non-linear 6th generation symmetric, MNI/McGill), or the path of a
        T1w head such as Colin27.
      mask: With a path: the path of its brain mask on the same voxels.

    Raises:
      UserError: A file is absent, or head and mask differ in shape or affine.
    """
    if head == PACKAGED:
        folder = resources.files("mri_jax.volumes") / "template"
        with resources.as_file(folder) as path:
            return _read(PACKAGED, path / _HEAD, path / _MASK, packaged=True)
    if not mask:
        raise UserError(f"template: {head} needs its brain mask; give --template-mask")
    return _read(Path(head).name, Path(head), Path(mask), packaged=False)


def _read(name: str, head: Path, mask: Path, packaged: bool) -> Template:
    for path in (head, mask):
        check_regular(path)
    images = [nib.as_closest_canonical(nib.load(path)) for path in (head, mask)]
    if images[0].shape != images[1].shape or not np.allclose(
        images[0].affine, images[1].affine, atol=1e-3
    ):
        raise UserError(f"template: {head.name} and {mask.name} differ in shape or affine")
    affine = images[0].affine
    axes = affine[:3, :3]
    if not np.allclose(axes, np.diag(np.diag(axes)), atol=1e-4):
        raise UserError(f"template: {head.name}: its axes must run along RAS+ without rotation")
    inside = np.asarray(images[1].dataobj) > 0
    if not 5e5 < inside.sum() * abs(np.linalg.det(axes)) < 3e6:
        raise UserError(f"template: {mask.name} does not hold the volume of a brain")
    if packaged:
        grids = GRIDS
    else:
        extent = np.diag(axes) * inside.shape
        centre = affine[:3, 3] + np.diag(axes) * (np.array(inside.shape) - 1) / 2
        grids = grids_of_box(tuple(centre), tuple(extent))
    return Template(
        name=name,
        head=np.asarray(images[0].dataobj, np.float32),
        mask=inside,
        affine=affine,
        grids=grids,
        sha256=(sha256_of_file(head), sha256_of_file(mask)),
    )
