"""Images with their affine, made coarser or carried to another grid, without aliasing."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class Image:
    """An array in space.

    Attributes:
      data: (X, Y, Z), any real dtype.
      affine: (4, 4) voxel indices to millimetres.
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """(3,) edge lengths of a voxel in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) affine to (N, 3) points."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def block_mean(image: Image, target: float) -> Image:
    """Average whole blocks of voxels so that the spacing comes near ``target`` mm from below.

    Axes whose voxels are coarser than ``target / 1.5`` stay. The last incomplete block of an axis
    is dropped.
    """
    factors = np.maximum(1, np.floor(target / image.spacing + 0.1)).astype(int)
    if (factors == 1).all():
        return image
    shape = np.array(image.data.shape) // factors
    cropped = image.data[tuple(slice(0, n * f) for n, f in zip(shape, factors, strict=True))]
    # One axis at a time, the last first, keeps the intermediate arrays small.
    result = cropped
    for axis in (2, 1, 0):
        factor = int(factors[axis])
        if factor > 1:
            split = (*result.shape[:axis], shape[axis], factor, *result.shape[axis + 1 :])
            result = result.reshape(split).mean(axis=axis + 1, dtype=np.float32)
    shift = np.eye(4)
    shift[:3, :3] = np.diag(factors)
    shift[:3, 3] = (factors - 1) / 2
    return Image(result, image.affine @ shift)


def smoothing_sigma(spacing_in: np.ndarray, spacing_out: float) -> np.ndarray:
    """Returns (3,) SD in input voxels of the Gaussian that precedes sampling at ``spacing_out`` mm.

    The width brings the point spread of an input voxel to that of an output voxel, both taken as
    Gaussians of 0.42 of their edge (about a full width of one edge); 0 where the output is finer.
    """
    ratio = spacing_out / np.asarray(spacing_in, float)
    return 0.42 * np.sqrt(np.maximum(ratio**2 - 1, 0))


def coarsen(image: Image, spacing: float) -> Image:
    """Smooth and sample along the image's own axes at ``spacing`` mm (isotropic)."""
    sigma = smoothing_sigma(image.spacing, spacing)
    smooth = ndimage.gaussian_filter(np.asarray(image.data, np.float32), sigma, truncate=3)
    steps = spacing / image.spacing
    shape = tuple(int(n) for n in np.maximum(1, np.ceil(np.array(image.data.shape) / steps)))
    sampled = ndimage.affine_transform(smooth, steps, output_shape=shape, order=1)
    affine = image.affine @ np.diag([*steps, 1.0])
    return Image(sampled, affine)


def pull(
    image: Image,
    to_image: np.ndarray,
    shape: tuple[int, ...],
    order: int = 1,
    mode: str = "constant",
) -> np.ndarray:
    """Sample an image on another grid.

    Args:
      image: The source.
      to_image: (4, 4) voxel indices of the output to millimetres of the source.
      shape: Shape of the output.
      order: Order of the spline: 0 nearest, 1 linear, 3 cubic.
      mode: What is read outside: ``constant`` 0, or ``nearest`` the border's value, for fields,
        which do not end there.

    Returns:
      ``shape`` float32.
    """
    matrix = np.linalg.inv(image.affine) @ to_image
    return ndimage.affine_transform(
        np.asarray(image.data, np.float32),
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=shape,
        order=order,
        mode=mode,
    )


def crop_around(image: Image, points: np.ndarray, margin: float) -> Image:
    """Returns the smallest box of voxels with ``points`` (N, 3; mm) and ``margin`` mm around."""
    voxels = transform_points(np.linalg.inv(image.affine), points)
    reach = margin / image.spacing
    low = np.maximum(0, np.floor(voxels.min(0) - reach)).astype(int)
    high = np.minimum(image.data.shape, np.ceil(voxels.max(0) + reach).astype(int) + 1)
    high = np.maximum(high, low + 1)
    shift = np.eye(4)
    shift[:3, 3] = low
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return Image(image.data[box], image.affine @ shift)
