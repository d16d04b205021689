"""What a header states is used, what it does not state must be given, and the rest is refused."""

import gzip
import os

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from mri_jax.errors import UserError
from mri_jax.volumes.headers import check_orientation
from mri_jax.volumes.scans import check_header, is_simulated, read_scan

SHAPE = (31, 37, 33)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
VOXELS = np.random.default_rng(5).integers(0, 900, SHAPE).astype(np.int16)


def image(affine=AFFINE, codes=(1, 1), kind=nib.Nifti1Image):
    made = kind(VOXELS, affine)
    made.set_qform(affine, code=codes[0])
    made.set_sform(affine, code=codes[1])
    return made


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1000.0), ("meter", 0.001), ("mm", 1.0)])
def test_lengths_are_in_the_unit_of_the_header(tmp_path, unit, factor):
    made = image(np.diag([4 * factor, 4 * factor, 4 * factor, 1.0]))
    made.header.set_xyzt_units(unit)
    nib.save(made, tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(scan.affine, AFFINE, rtol=1e-6)
    assert scan.notes == (() if unit == "mm" else (f"lengths in {unit}s",))


def test_a_unit_that_the_lengths_deny_is_not_believed(tmp_path):
    made = image()
    made.header.set_xyzt_units("meter")
    nib.save(made, tmp_path / "a.nii")
    assert read_scan(tmp_path / "a.nii").spacing == pytest.approx([4, 4, 4])
    data = bytearray(made.to_bytes())
    data[123] = 5  # a code that the standard does not know
    (tmp_path / "b.nii").write_bytes(data)
    assert read_scan(tmp_path / "b.nii").spacing == pytest.approx([4, 4, 4])


@pytest.mark.parametrize("code", ["RAS", "lps", "PSR", "AIL"])
def test_a_declared_orientation_is_used_where_the_file_states_none(tmp_path, code):
    nib.save(image(codes=(0, 0)), tmp_path / "a.nii.gz")
    assert "--orientation" in check_header(tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz", check_orientation(code))
    stored = nib.orientations.axcodes2ornt(code.upper())
    expected = nib.orientations.apply_orientation(VOXELS, stored)
    np.testing.assert_array_equal(scan.data, expected)
    assert scan.spacing == pytest.approx([4, 4, 4])
    assert scan.notes == (f"orientation {code.upper()} as declared",)


def test_a_declared_orientation_does_not_replace_that_of_the_file(tmp_path):
    nib.save(image(), tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz", "LPI")
    np.testing.assert_array_equal(scan.data, VOXELS)
    assert scan.notes == ()


@pytest.mark.parametrize("code", ["RA", "RAA", "RLS", "XYZ", "RASL"])
def test_refuses_what_is_no_orientation(code):
    with pytest.raises(UserError, match=r"orientation: .*L or R, A or P, S or I"):
        check_orientation(code)
    assert check_orientation("") == ""


def analyze(folder, matrix=None):
    made = nib.AnalyzeImage(VOXELS, None)
    made.header.set_zooms((4, 4, 4))
    nib.save(made, folder / "a.img")
    if matrix is not None:
        savemat(folder / "a.mat", matrix, format="4")
    else:
        (folder / "a.mat").unlink(missing_ok=True)
    return folder / "a.img"


def test_analyze_is_read_with_an_spm_matrix_or_a_declared_orientation(tmp_path):
    path = analyze(tmp_path)
    assert "--orientation" in check_header(path)
    flipped = read_scan(path, "LAS")
    np.testing.assert_array_equal(flipped.data, VOXELS[::-1])
    matrix = np.diag([4.0, 4, 4, 1])
    matrix[:3, 3] = -40, -50, -60  # mm of the voxel before the first, as MATLAB counts from 1
    scan = read_scan(analyze(tmp_path, {"mat": matrix}))
    np.testing.assert_array_equal(scan.data, VOXELS)
    np.testing.assert_allclose(scan.affine[:3, 3], (-36, -46, -56))
    assert scan.notes == ("orientation from a.mat",)
    # SPM's 'M' leaves open what is left.
    assert "--orientation" in check_header(analyze(tmp_path, {"M": matrix}))


def test_analyze_without_its_header_or_with_a_huge_matrix_is_refused(tmp_path):
    path = analyze(tmp_path, {"mat": np.eye(70).repeat(4, 1)})
    assert "too large" in check_header(path)
    (tmp_path / "a.hdr").unlink()
    assert "no such file" in check_header(path)


def test_a_pair_of_nifti_is_read_and_its_size_checked(tmp_path):
    nib.save(image(kind=nib.Nifti1Pair), tmp_path / "a.img")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.img").data, VOXELS)
    with open(tmp_path / "a.img", "ab") as file:
        file.write(b"12")
    assert "header declares" in check_header(tmp_path / "a.img")


def spoilt_quaternion(excess):
    data = bytearray(image(codes=(1, 0)).to_bytes())
    parts = np.float32([0.6, 0.8, 0.0]) * np.sqrt(1 + excess)
    data[256:268] = np.float32(parts).tobytes()
    return bytes(data)


def test_a_quaternion_too_long_by_rounding_is_a_half_turn(tmp_path):
    (tmp_path / "a.nii").write_bytes(spoilt_quaternion(7e-7))
    affine = nib.quaternions.quat2mat([0, 0.6, 0.8, 0]) * 4
    scan = read_scan(tmp_path / "a.nii")
    canonical = nib.as_closest_canonical(nib.Nifti1Image(VOXELS, nib.affines.from_matvec(affine)))
    np.testing.assert_allclose(scan.affine[:3, :3], canonical.affine[:3, :3], atol=1e-5)
    (tmp_path / "b.nii").write_bytes(spoilt_quaternion(0.01))
    assert "its qform is no rotation" in check_header(tmp_path / "b.nii")
    data = bytearray(image().to_bytes())
    data[256:268] = np.float32([0.9, 0.8, 0.7]).tobytes()
    (tmp_path / "c.nii").write_bytes(data)
    scan = read_scan(tmp_path / "c.nii")
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.notes == ("its qform is no rotation; its sform was taken",)


def test_says_that_the_voxels_have_no_beginning(tmp_path):
    data = bytearray(image().to_bytes())
    data[108:112] = np.float32(0).tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    assert "vox_offset is 0" in check_header(tmp_path / "a.nii")


def test_says_how_a_file_should_be_called(tmp_path):
    (tmp_path / "a.nii").write_bytes(gzip.compress(image().to_bytes()))
    assert check_header(tmp_path / "a.nii").endswith("its name should end in .nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(image().to_bytes())
    assert "should end in .nii " in check_header(tmp_path / "b.nii.gz")


def test_suffixes_in_any_case_are_read(tmp_path):
    nib.save(image(), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "B.NII.GZ")
    np.testing.assert_array_equal(read_scan(tmp_path / "B.NII.GZ").data, VOXELS)


def test_special_files_are_refused_without_being_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    (tmp_path / "lost.nii.gz").symlink_to("../.git/annex/objects/lost")
    (tmp_path / "._a.nii.gz").write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.nii").mkdir()
    rules = {
        "pipe.nii.gz": "is a pipe",
        "zero.nii": "is a device",
        "lost.nii.gz": "only a link, its content was not fetched (datalad get",
        "._a.nii.gz": "hidden file",
        "folder.nii": "is a folder",
    }
    for name, rule in rules.items():
        said = check_header(tmp_path / name)
        assert said.startswith(f"{name}: ")
        assert rule in said
        assert is_simulated(tmp_path / name) is None


def test_a_good_header_is_not_spoken_against(tmp_path):
    nib.save(image(), tmp_path / "a.nii.gz")
    # The voxels of a compressed file are left to `read_scan`.
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-2000])
    assert check_header(tmp_path / "a.nii.gz") is None
    assert check_header(tmp_path / "cut.nii.gz") is None
    with pytest.raises(
        UserError, match=r"^cut.nii.gz: cannot be read: the file is cut off; copy or "
    ):
        read_scan(tmp_path / "cut.nii.gz")
