"""Brain extraction: where the brain ends and the head begins.

``template``
    The packaged head is laid on the scan by an affine transform, then bent to it by demons
    (Vercauteren et al. 2009, doi:10.1016/j.neuroimage.2008.10.040), only to carry the brain mask:
    the scan itself is never bent, since that would remove the atrophy a study looks for.
``deepbet``
    A network (Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845), an optional extra.
``mask``
    The user's own mask.
``none``
    The scan is already without skull: the brain is where it is not zero.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from mri_jax.errors import UserError
from mri_jax.volumes.intensities import BRAIN_ML, is_brain_sized, millilitres
from mri_jax.volumes.registration import AffineFit
from mri_jax.volumes.resampling import Image, coarsen, pull, transform_points
from mri_jax.volumes.templates import Template

METHODS = ("template", "deepbet", "mask", "none")
# Printed once a run; docs/preprocessing.md has the table and the command.
ADVICE = (
    "brain extraction by registration to the template (Dice 0.98 with deepbet's masks on 22 adult "
    "heads); for a study install the extra and use --brain deepbet"
)
LEVELS = ((4.0, 40), (3.0, 20))
# The carried surface moves by at most `EDGE_REACH` mm: outwards where the scan is as bright as the
# brain's fluid and grey matter, inwards where it is as dark as the skull, in parts of the brain's
# median intensity around `EDGE_LEVEL`.
EDGE_OFFSET, EDGE_REACH, EDGE_LEVEL, EDGE_WIDTH = 0.6, 1.2, 0.32, 0.15
# Intensities are compared after removal of the local mean and SD within about this many mm.
NEIGHBOURHOOD = 16.0
# Adult brains with their fluid; a stripped scan holds no more tissue than this (mL).
SMALLEST_BRAIN, LARGEST_BRAIN = BRAIN_ML


def is_stripped(scan: Image) -> bool:
    """Returns whether a scan holds no skull: all that is not zero has the volume of a brain."""
    return is_brain_sized(scan.data > 0, scan.affine)


def by_nonzero(scan: Image) -> np.ndarray:
    """Returns the brain of a scan that is already without skull.

    Returns:
      (X, Y, Z) bool: the largest connected part of what is not zero, holes filled.

    Raises:
      UserError: What is not zero does not have the volume of a brain.
    """
    if not is_stripped(scan):
        volume = millilitres(scan.data > 0, scan.affine)
        raise UserError(
            f"brain: none: {volume:.0f} mL are not zero; a scan without skull has "
            f"{SMALLEST_BRAIN:.0f} to {LARGEST_BRAIN:.0f} mL"
        )
    return _one_piece(scan.data > 0)


def by_template(scan: Image, fit: AffineFit, template: Template) -> np.ndarray:
    """Returns the brain by registration to the template's head.

    Args:
      scan: Corrected for inhomogeneity, at about 2 mm.
      fit: From `registration.register_head`.
      template: The template.

    Returns:
      (X, Y, Z) bool on the scan's voxels.
    """
    shift, affine = _bend(scan, fit, template)
    to_template = np.linalg.inv(fit.matrix) @ scan.affine
    depth = _depth(template, LEVELS[-1][0])
    # Pull the signed distance to the brain's surface through the bending, then onto the scan.
    grid = np.stack(np.meshgrid(*map(np.arange, shift.shape[:3]), indexing="ij"))
    places = grid + np.moveaxis(shift, -1, 0) / LEVELS[-1][0]
    bent = ndimage.map_coordinates(depth.data, places, order=1, mode="nearest")
    # Offset by a constant so that what lies outside the template's box reads as far from it.
    lifted = Image(bent + 100.0, affine)
    return _one_piece(_at_the_edge(scan, pull(lifted, to_template, scan.data.shape) - 100.0))


def _at_the_edge(scan: Image, depth: np.ndarray) -> np.ndarray:
    """Returns the brain, from the carried distance to its surface and the scan's intensities."""
    inner = scan.data[depth > 4]
    if not inner.size:
        raise UserError("brain: template: the head found lies outside the scan")
    level = ndimage.gaussian_filter(scan.data, 1.0 / scan.spacing) / float(np.median(inner))
    inward = EDGE_REACH * np.clip((EDGE_LEVEL - level) / EDGE_WIDTH, -1, 1)
    rough = (depth > inward - EDGE_OFFSET).astype(np.float32)
    return ndimage.gaussian_filter(rough, 1.4 / scan.spacing) > 0.5


def by_deepbet(scan: Image) -> np.ndarray:
    """Returns the brain by the network deepbet, on the CPU.

    Raises:
      UserError: The extra is not installed.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(scan.data, np.float32), scan.affine)
    _, mask, _ = _deepbet().run(image)
    return np.asarray(mask.dataobj) > 0


@lru_cache(maxsize=1)
def _deepbet() -> Any:
    """Returns the network with its weights, read once a process."""
    try:
        import deepbet
    except ImportError:
        raise UserError(
            "brain: deepbet is not installed; pip install 'mri-jax[deepbet]' or use template"
        ) from None
    return deepbet.BrainExtraction(no_gpu=True)


def _one_piece(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        raise UserError("brain: the mask is empty")
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return ndimage.binary_fill_holes(labels == largest)


def _bend(scan: Image, fit: AffineFit, template: Template) -> tuple[np.ndarray, np.ndarray]:
    """Returns (X, Y, Z, 3) mm from scan (laid on the template) to template, and the affine."""
    field: Any = None
    affine = template.affine
    for spacing, iterations in LEVELS:
        moving, weight, affine = _fixed_part(template, spacing)
        laid = coarsen(scan, spacing * np.cbrt(abs(np.linalg.det(fit.matrix[:3, :3]))))
        fixed = pull(laid, fit.matrix @ affine, weight.shape)
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfThreads(1)
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(1.5)
        demons.SetSmoothUpdateField(True)
        demons.SetUpdateFieldStandardDeviations(1.0)
        images = [_to_sitk(a, spacing) for a in (_local(fixed, weight, spacing), moving)]
        if field is None:
            field = demons.Execute(*images)
        else:
            field = demons.Execute(*images, sitk.Resample(field, images[0]))
    return np.transpose(sitk.GetArrayFromImage(field), (2, 1, 0, 3)), affine


def _to_sitk(array: np.ndarray, spacing: float) -> Any:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, np.float32))
    image.SetSpacing([spacing] * 3)
    return image


def _local(values: np.ndarray, weight: np.ndarray, spacing: float) -> np.ndarray:
    """Remove the local mean and SD, so that contrast and inhomogeneity matter little."""

    def around(array: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(array, NEIGHBOURHOOD / spacing, truncate=2.5)

    total = around(weight) + 1e-3
    mean = around(values * weight) / total
    spread = np.sqrt(np.maximum(around(values**2 * weight) / total - mean**2, 0))
    floor = 0.05 * float(spread[weight > 0.5].mean())
    return (values - mean) / (spread + max(floor, 1e-12)) * weight


@lru_cache(maxsize=4)
def _fixed_part(template: Template, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (locally normalised head, weight, affine) of the template at one spacing."""
    head = coarsen(template.coarse[0], spacing)
    weight = (coarsen(template.surroundings, spacing).data > 0.5).astype(np.float32)
    return _local(head.data, weight, spacing), weight, head.affine


@lru_cache(maxsize=2)
def _depth(template: Template, spacing: float) -> Image:
    """Returns `Template.depth` on the voxels of `_fixed_part`."""
    _, weight, affine = _fixed_part(template, spacing)
    return Image(pull(template.depth, affine, weight.shape), affine)


def mask_points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Returns (N, 3) mm of the voxels of a mask."""
    return transform_points(affine, np.argwhere(mask))
