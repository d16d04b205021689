"""The brain found in a real head stays the same when the head is scanned in other ways."""

import numpy as np
import pytest
from scipy import ndimage

from mri_jax.volumes import brain
from mri_jax.volumes.inhomogeneity import correct, log_bias_field
from mri_jax.volumes.registration import register_head
from mri_jax.volumes.resampling import Image, block_mean, pull
from mri_jax.volumes.scans import read_scan

pytestmark = pytest.mark.slow


def extract(scan: Image, template) -> Image:
    working = block_mean(scan, 2.0)
    working = correct(working, log_bias_field(working))
    found = brain.by_template(working, register_head(working, template), template)
    return Image(found.astype(np.float32), working.affine)


@pytest.fixture(scope="module")
def scan(shared_data):
    raw = read_scan(shared_data / "ixi_hh_2mm" / "t1" / "IXI206-HH-1650_T1.nii.gz")
    return Image(raw.data, raw.affine)


@pytest.fixture(scope="module")
def reference(scan, template):
    return extract(scan, template)


def moved(image: Image, voxels) -> np.ndarray:
    """The affine of an array that begins ``voxels`` further along each axis."""
    shift = np.eye(4)
    shift[:3, 3] = voxels
    return image.affine @ shift


def inhomogeneous(scan, reference, rng):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in scan.data.shape), indexing="ij")
    coil = np.exp(0.5 * x + 0.4 * y - 0.5 * z + 0.5 * (x**2 + y**2 + z**2))
    return Image(scan.data * coil.astype(np.float32), scan.affine)


def noisy(scan, reference, rng):
    sd = float(np.median(scan.data[reference.data > 0])) / 7
    one, other = rng.normal(0, sd, (2, *scan.data.shape)).astype(np.float32)
    return Image(np.hypot(scan.data + one, other), scan.affine)


def bright_fat(scan, reference, rng):
    rim = ~ndimage.binary_dilation(reference.data > 0, iterations=2)
    return Image(scan.data * (1 + 1.6 * ndimage.gaussian_filter(rim.astype(np.float32), 1)),
                 scan.affine)  # fmt: skip


def without_neck(scan, reference, rng):
    low = int(np.argwhere(reference.data > 0)[:, 2].min()) + 4
    return Image(scan.data[:, :, low:], moved(scan, (0, 0, low)))


def with_long_neck(scan, reference, rng):
    neck = np.repeat(scan.data[:, :, 2:5].mean(2, keepdims=True), 45, axis=2)
    return Image(np.concatenate([neck, scan.data], 2), moved(scan, (0, 0, -45)))


def thick_slices(scan, reference, rng):
    even = scan.data[:, :, : scan.data.shape[2] // 2 * 2]
    pairs = even.reshape(*even.shape[:2], -1, 2).mean(3)
    return Image(pairs, moved(scan, (0, 0, 0.5)) @ np.diag([1, 1, 2, 1.0]))


def other_contrast(scan, reference, rng):
    top = float(np.percentile(scan.data, 99.5))
    return Image(top * (scan.data / top) ** 1.4, scan.affine)


WAYS = (inhomogeneous, noisy, bright_fat, without_neck, with_long_neck, thick_slices,
        other_contrast)  # fmt: skip


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_brain_stays_the_same(scan, reference, template, rng, way):
    other = way(scan, reference, rng)
    found = extract(other, template)
    there = pull(reference, found.affine, found.data.shape) > 0.5
    assert dice(found.data > 0.5, there) > 0.96


def test_a_head_of_a_child_s_size_and_tilt(scan, reference, template):
    """The header alone is changed; the brain must be the same voxels."""
    from scipy.spatial.transform import Rotation

    change = np.eye(4)
    change[:3, :3] = Rotation.from_rotvec([20, -12, 15], degrees=True).as_matrix() @ np.diag(
        [0.88, 0.84, 0.86]
    )
    found = extract(Image(scan.data, change @ scan.affine), template)
    assert dice(found.data > 0.5, reference.data > 0.5) > 0.97
