"""Intensity inhomogeneity: N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908)."""

import numpy as np
import SimpleITK as sitk

from mri_jax.volumes.resampling import Image, block_mean

SPACING = 4.0
ITERATIONS = (20, 20, 10)


def log_bias_field(scan: Image) -> Image:
    """The smooth multiplicative field of a scan, as its logarithm, at about `SPACING` mm.

    Args:
      scan: Intensities, not negative.

    Returns:
      An image on coarse voxels. The field's mean over the head is 0, so that correcting does not
      change the scale of intensities.
    """
    coarse = block_mean(scan, SPACING)
    data = np.ascontiguousarray(coarse.data.T)
    image = sitk.GetImageFromArray(data)
    image.SetSpacing(coarse.spacing.tolist())
    head = sitk.OtsuThreshold(image, 0, 1)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.Execute(image, head)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    inside = sitk.GetArrayFromImage(head).T > 0
    return Image(np.asarray(field - field[inside].mean(), np.float32), coarse.affine)
