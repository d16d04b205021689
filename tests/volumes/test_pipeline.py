"""One scan to the grid: every way to the brain, Clinica's outputs, and the real heads."""

import sys
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mri_jax.errors import UserError
from mri_jax.volumes import brain
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.pipeline import PreprocessSettings, preprocess, preprocess_scan, to_grid
from mri_jax.volumes.resampling import Image, block_mean, pull
from mri_jax.volumes.scans import RawScan, read_scan

FAST = {"grid": "demo", "n4": False}


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_settings_are_recovered_and_others_refused():
    settings = PreprocessSettings(grid="paper", brain="none", dtype="float32")
    assert PreprocessSettings.from_json(settings.to_json()) == settings
    with pytest.raises(UserError, match="pipeline 0"):
        PreprocessSettings.from_json(settings.to_json() | {"pipeline": 0})
    with pytest.raises(UserError, match=r"settings\.colour: no such field"):
        PreprocessSettings.from_json(settings.to_json() | {"colour": 1})
    wrongs = ({"brain": "bet"}, {"dtype": "int8"}, {"grid": "fine"}, {"template": "a.nii"})
    for wrong in (*wrongs, {"registration": "elastic"}):
        with pytest.raises(UserError):
            PreprocessSettings(**wrong)


def test_the_default_registration_leaves_fingerprints_as_they_were():
    assert "registration" not in PreprocessSettings().to_json()
    rigid = PreprocessSettings(registration="rigid")
    assert rigid.to_json()["registration"] == "rigid"
    assert PreprocessSettings.from_json(rigid.to_json()) == rigid


@pytest.mark.parametrize("scale", [0.85, 1.05])
def test_rigid_keeps_the_volume_of_a_head_and_affine_does_not(template, moved, scale):
    scan, _ = moved((5, -4, 6), np.array([4.0, -3, 6]), scale, stripped=True)
    volume = np.count_nonzero(template.mask) * scale**3 * 1e-3
    placed = {}
    for kind in ("rigid", "affine"):
        settings = PreprocessSettings(registration=kind, **FAST)
        result = preprocess(RawScan(scan.data, scan.affine), settings)
        placed[kind] = np.count_nonzero(result.mask) * 64e-3
        assert result.quality["registration"] == kind
        # Figures speak of the mask and the fit, not of the size that was kept.
        assert result.quality["scale"] == pytest.approx(scale, rel=0.02)
        assert result.quality["leakage"] < 0.01
        assert result.quality["missing"] < 0.01
        assert result.quality["correlation"] > 0.9
    own = np.count_nonzero(scan.data > 0) * 27e-3
    assert placed["rigid"] == pytest.approx(own, rel=0.02)
    assert placed["rigid"] == pytest.approx(volume, rel=0.06)  # the edge is blurred to 3 mm
    assert placed["affine"] == pytest.approx(own / scale**3, rel=0.03)


def test_rigid_refuses_what_has_lost_its_size_or_leaves_the_grid(template, moved):
    scan, _ = moved((0, 0, 0), np.zeros(3), 1.3, stripped=True)
    settings = PreprocessSettings(registration="rigid", brain="mask", **FAST)
    with pytest.raises(UserError, match="outputs of t1-linear have lost the size"):
        preprocess(RawScan(scan.data, scan.affine), settings, scan.data > 0, in_template_space=True)
    with pytest.raises(UserError, match=r"% of the brain lie outside the grid demo"):
        preprocess(RawScan(scan.data, scan.affine), settings, scan.data > 0)


def test_a_stripped_scan_is_detected_and_said(tmp_path, stripped, write):
    path = write(tmp_path / "a.nii.gz", stripped)
    result = preprocess_scan(path, PreprocessSettings(**FAST))
    assert result.quality["brain"] == "none (detected)"
    assert result.quality["correlation"] > 0.95
    assert result.quality["scale"] == pytest.approx(1.0, abs=0.02)


def test_none_refuses_a_scan_with_skull(tmp_path, head, write):
    with pytest.raises(UserError, match="mL are not zero"):
        preprocess_scan(
            write(tmp_path / "a.nii.gz", head), PreprocessSettings(brain="none", **FAST)
        )


def test_the_user_s_mask_is_used_and_checked(tmp_path, head, stripped, write):
    settings = PreprocessSettings(brain="mask", **FAST)
    scan = write(tmp_path / "a.nii.gz", head)
    mask = write(tmp_path / "m.nii.gz", Image(stripped.data > 40, stripped.affine))
    result = preprocess_scan(scan, settings, mask)
    volume = np.count_nonzero(stripped.data > 40) * 64e-3
    assert result.quality["brain_ml"] == pytest.approx(volume, rel=1e-3)
    with pytest.raises(UserError, match="no mask file"):
        preprocess_scan(scan, settings)
    other = write(tmp_path / "o.nii.gz", Image(stripped.data[1:] > 40, stripped.affine))
    with pytest.raises(UserError, match="are not the scan's"):
        preprocess_scan(scan, settings, other)


def test_clinica_s_output_stays_where_it_lies(tmp_path, head, stripped, write):
    scan = write(tmp_path / "a.nii.gz", head)
    mask = write(tmp_path / "m.nii.gz", Image(stripped.data > 40, stripped.affine))
    settings = PreprocessSettings(brain="mask", grid="demo")
    result = preprocess_scan(scan, settings, mask, in_template_space=True)
    np.testing.assert_array_equal(result.to_scan, np.eye(4))
    assert result.quality["inhomogeneity"] == result.quality["registration"] == "t1-linear"
    there = pull(stripped, result.affine, result.volume.shape)[result.mask]
    inside = result.volume[result.mask].astype(float)
    assert np.corrcoef(inside, there)[0, 1] > 0.98


def test_deepbet_is_asked_for_by_name(head, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepbet", None)
    brain._deepbet.cache_clear()
    with pytest.raises(UserError, match=r"mri-jax\[deepbet\]"):
        brain.by_deepbet(head)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_deepbet_finds_the_brain(template):
    pytest.importorskip("deepbet", reason="the extra deepbet is not installed")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = brain.by_deepbet(template.coarse[0])
    torch.set_num_threads(threads)
    assert dice(found, template.coarse[1].data > 0.5) > 0.97


def test_going_down_does_not_alias():
    """A pattern finer than the grid becomes its mean, not a slower pattern."""
    x = np.indices((190, 70, 62))[0]
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (-94.0, -52, -14)
    stripes = Image((100 + 80 * np.cos(2 * np.pi * x / 5)).astype(np.float32), affine)
    mask = Image(np.ones(x.shape, bool), affine)
    volume, inside = to_grid(stripes, None, mask, np.eye(4), GRIDS["demo"])
    inner = volume[ndimage.binary_erosion(inside, iterations=4)]
    assert inner.size > 1000
    assert inner.mean() == pytest.approx(100, abs=1)
    # The Gaussian leaves exp(-2 (pi 0.42 / 5)^2 (16 - 1)) = 12 % of the 160 of the stripes.
    assert np.ptp(inner) == pytest.approx(0.123 * 160, rel=0.2)


def test_block_mean_keeps_the_place_of_the_head(head):
    coarse = block_mean(head, 8.0)
    assert coarse.data.shape == (24, 29, 24)
    np.testing.assert_allclose(coarse.spacing, 8)

    def centre(image):
        weights = image.data / image.data.sum()
        voxel = [(np.indices(image.data.shape)[axis] * weights).sum() for axis in range(3)]
        return image.affine[:3, :3] @ voxel + image.affine[:3, 3]

    np.testing.assert_allclose(centre(coarse), centre(head), atol=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("pddl_t1w_2mm", 0.97), ("pddl_t1w", 0.96)])
def test_brain_of_the_pddl_head(shared_data, name, least, template):
    from mri_jax.volumes.inhomogeneity import correct, log_bias_field
    from mri_jax.volumes.registration import register_head

    scan = read_scan(shared_data / "heads" / f"{name}.nii.gz")
    working = block_mean(Image(scan.data, scan.affine), 2.0)
    working = correct(working, log_bias_field(working))
    found = brain.by_template(working, register_head(working, template), template)
    given = nib.load(shared_data / "heads" / "pddl_brain_mask_2mm.nii.gz")
    there = pull(Image(found, working.affine), given.affine, given.shape) > 0.5
    assert dice(there, np.asarray(given.dataobj) > 0) > least


@pytest.mark.slow
def test_every_ixi_scan_goes_through(shared_data):
    """Alignment is judged by what registration did not see: the overlap of the brains."""
    settings = PreprocessSettings(grid="demo")
    masks = []
    for path in sorted((shared_data / "ixi_hh_2mm" / "t1").glob("*.nii.gz"))[::4]:
        result = preprocess_scan(path, settings)
        assert 1000 < result.quality["brain_ml"] < 2000
        assert result.quality["leakage"] < 0.01
        assert result.quality["missing"] < 0.01
        masks.append(result.mask)
    for one, other in pairwise(masks):
        assert dice(one, other) > 0.93
