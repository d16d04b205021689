"""Intensity inhomogeneity: N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908)."""

import numpy as np
import SimpleITK as sitk

from mri_jax.errors import UserError
from mri_jax.volumes.intensities import SMALLEST_HEAD, millilitres
from mri_jax.volumes.resampling import Image, block_mean, pull

# At 6 mm 30 iterations a level come within 1.5 to 2 % of 50 at 4 mm, in a quarter of the time.
SPACING = 6.0
ITERATIONS = (30, 30, 30)


def log_bias_field(scan: Image) -> Image:
    """Returns the smooth multiplicative field of a scan, as its logarithm, at about `SPACING` mm.

    Args:
      scan: Intensities, not negative.

    Returns:
      An image on coarse voxels. The field's mean over the head is 0, so that correcting does not
      change the scale of intensities.

    Raises:
      UserError: No head stands out for N4 to see, so that its field would mean nothing.
    """
    coarse = block_mean(scan, SPACING)
    data = np.ascontiguousarray(coarse.data.T)
    image = sitk.GetImageFromArray(data)
    image.SetSpacing(coarse.spacing.tolist())
    head = sitk.OtsuThreshold(image, 0, 1)
    inside = sitk.GetArrayFromImage(head).T > 0
    if (volume := millilitres(inside, coarse.affine)) < SMALLEST_HEAD:
        raise UserError(
            f"inhomogeneity: only {volume:.0f} mL are brighter than the rest (Otsu's threshold): "
            "no head for N4 to correct; look at the scan, or give --no-n4"
        )
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.Execute(image, head)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    return Image(np.asarray(field - field[inside].mean(), np.float32), coarse.affine)


def correct(scan: Image, log_field: Image) -> Image:
    """Divide a scan by its field, given as a logarithm on any voxels (`log_bias_field`)."""
    there = pull(log_field, scan.affine, scan.data.shape, mode="nearest")
    return Image(scan.data * np.exp(-there), scan.affine)
