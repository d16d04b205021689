"""Every file that is not a T1w head is refused in one line; every storage of a head is read."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.volumes.resampling import Image
from mri_jax.volumes.scans import read_scan

SHAPE = (31, 37, 33)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def voxels(dtype=np.int16, shape=SHAPE):
    return np.random.default_rng(5).integers(0, 900, shape).astype(dtype)


def image(data=None, affine=AFFINE, codes=(1, 1)):
    made = nib.Nifti1Image(voxels() if data is None else data, affine)
    made.set_qform(AFFINE, code=codes[0])
    made.set_sform(affine, code=codes[1])
    return made


def with_value(value):
    data = voxels(np.float32)
    data[12:16, 14:18, 15:19] = value
    return data


def truncated(path):
    nib.save(image(), path)
    path.write_bytes(path.read_bytes()[:-9000])


def wrong_checksum(path):
    nib.save(image(), path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(bytes(data))


def other_dimensions(size):
    def make(path):
        data = bytearray(image().to_bytes())
        data[42:44] = np.int16(size).tobytes()
        path.write_bytes(gzip.compress(bytes(data)))

    return make


def huge(path):
    header = image().header.copy()
    header.set_data_shape((32000, 32000, 32000))
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4))


def bad_sform(value):
    """A file whose sform is spoilt in the bytes; nibabel's writer would mend it."""

    def make(path):
        data = bytearray(image().to_bytes())
        data[280:296] = np.full(4, value, np.float32).tobytes()
        path.write_bytes(gzip.compress(bytes(data)))

    return make


def saved(*args, **kwargs):
    return lambda path: nib.save(image(*args, **kwargs), path)


RGB = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
BAD = {
    "truncated gzip": (truncated, "cannot be read: the file is cut off; copy or download it again"),
    "damaged gzip": (wrong_checksum, "cannot be read: the file is damaged; copy or download it"),
    "fewer voxels than declared": (
        other_dimensions(35),
        r"declares \d+: the file is cut off; copy or",
    ),
    "more voxels than declared": (
        other_dimensions(29),
        r"declares \d+: what follows .* convert the DICOM",
    ),
    "4D series": (saved(np.stack([voxels()] * 3, -1)), "4 dimensions .* save the one volume"),
    "2D localiser": (saved(voxels(shape=(128, 128, 3))), "localiser"),
    "all zero": (saved(np.zeros(SHAPE, np.int16)), "every voxel is 0"),
    "constant": (saved(np.full(SHAPE, 7, np.int16)), "every voxel is 7"),
    "binary": (saved((voxels() > 400).astype(np.uint8)), "2 distinct intensities"),
    "label map": (saved((voxels() // 100).astype(np.uint8)), "distinct intensities"),
    "NaN": (saved(with_value(np.nan)), "64 voxels inside the head are NaN or infinite"),
    "infinity": (saved(with_value(np.inf)), "64 voxels inside the head are NaN or infinite"),
    "Hounsfield units": (
        saved(voxels() - np.int16(450)),
        "positive: give the scan as it was before it was scaled .* or convert the DICOM again",
    ),
    "no affine": (saved(codes=(0, 0)), "no affine"),
    "singular affine": (bad_sform(0), "singular; convert the DICOM again"),
    "affine not finite": (bad_sform(np.nan), "not finite"),
    "huge dimensions": (huge, "at most"),
    "colour": (saved(RGB), r"is an RGB colour image .*, not a scan; give the T1w image itself"),
    "complex": (
        saved(voxels().astype(np.complex64)),
        r"complex numbers \(complex64\); save their mag",
    ),
    "voxels of 12 mm": (saved(affine=np.diag([12.0, 4, 4, 1])), "voxels of"),
    "a corner of a head": (saved(affine=np.diag([1.0, 1, 1, 1])), "a head needs"),
    "empty file": (lambda path: path.write_bytes(b""), "empty; copy or download it again"),
    "text": (
        lambda path: path.write_text("not an image\n" * 99, encoding="utf-8"),
        "cannot be read",
    ),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
    "absent": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(tmp_path, name):
    make, rule = BAD[name]
    path = tmp_path / "scan.nii.gz"
    make(path)
    with pytest.raises(UserError, match=rule) as caught:
        read_scan(path)
    assert str(caught.value).startswith("scan.nii.gz: ")
    assert "\n" not in str(caught.value)


def test_a_nifti_called_mgz_is_refused_in_one_line(tmp_path):
    (tmp_path / "scan.mgz").write_bytes(gzip.compress(image().to_bytes()))
    with pytest.raises(UserError, match=r"^scan.mgz: cannot be read: Dimensions of the data"):
        read_scan(tmp_path / "scan.mgz")


def test_huge_is_refused_before_it_is_allocated(tmp_path):
    import tracemalloc

    huge(tmp_path / "scan.nii.gz")
    tracemalloc.start()
    with pytest.raises(UserError):
        read_scan(tmp_path / "scan.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_reads_every_type(tmp_path, dtype):
    data = (voxels() % 250).astype(dtype)
    nib.save(image(data), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii").data, data)


def test_applies_the_scaling_of_integers(tmp_path):
    made = image()
    made.header.set_slope_inter(0.5, 3.0)
    (tmp_path / "a.nii").write_bytes(made.to_bytes())
    raw = np.asarray(nib.load(tmp_path / "a.nii").dataobj.get_unscaled())
    np.testing.assert_allclose(read_scan(tmp_path / "a.nii").data, 0.5 * raw + 3)


def test_reads_mgh_and_a_trailing_dimension_of_one(tmp_path):
    nib.save(nib.MGHImage(voxels(np.float32), AFFINE), tmp_path / "a.mgz")
    nib.save(image(voxels()[..., None]), tmp_path / "b.nii.gz")
    for name in ("a.mgz", "b.nii.gz"):
        np.testing.assert_array_equal(read_scan(tmp_path / name).data, voxels())


@pytest.mark.parametrize(
    "order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1), (1, 0, 2)]
)
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_every_storage_is_the_same_head(tmp_path, head, write, order, flips):
    affine = head.affine[:, [*order, 3]].copy()
    data = head.data.transpose(order)
    for axis in flips:
        data = np.flip(data, axis)
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:, axis] *= -1
    scan = read_scan(write(tmp_path / "a.nii.gz", Image(data, affine)))
    np.testing.assert_array_equal(scan.data, np.round(head.data))
    np.testing.assert_allclose(scan.affine, head.affine, atol=1e-4)


def test_tells_a_mirrored_qform(tmp_path):
    mirrored = np.diag([-4.0, 4, 4, 1])
    nib.save(image(affine=mirrored), tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz")
    assert scan.forms_mirrored
    assert scan.form_disagreement == pytest.approx(2 * 4 * (SHAPE[0] - 1))
    nib.save(image(), tmp_path / "b.nii.gz")
    assert not read_scan(tmp_path / "b.nii.gz").forms_mirrored
