"""Odd intensities are mended by their rule, refused beyond it, and left alone otherwise."""

import numpy as np
import pytest
from scipy import ndimage

from mri_jax.errors import UserError
from mri_jax.volumes.inhomogeneity import log_bias_field
from mri_jax.volumes.intensities import clear_background, mended, without_spikes
from mri_jax.volumes.pipeline import PreprocessSettings, preprocess
from mri_jax.volumes.resampling import Image, coarsen
from mri_jax.volumes.scans import RawScan


def float32(image):
    return np.array(image.data, np.float32)


def test_a_plain_head_is_left_as_it_is(head):
    data = float32(head)
    result = mended(data)
    assert result.data is data
    assert (result.filled, result.notes) == (0, ())
    assert without_spikes(head) == (head, "")
    assert clear_background(head) == (head, "")


def test_background_without_a_number_becomes_zero(stripped):
    data = float32(stripped)
    marked = np.where(data > 0, data, np.nan)
    marked[0, 0, :3] = np.inf, -np.inf, np.nan
    result = mended(marked)
    np.testing.assert_array_equal(result.data, data)
    assert (result.filled, result.notes) == (0, ())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_few_voxels_inside_the_head_are_filled_and_counted(head, value):
    data = float32(head)
    spoilt = data.copy()
    places = [(24, 29, 24), (24, 29, 25), (20, 30, 22)]
    for place in places:
        spoilt[place] = value
    result = mended(spoilt)
    assert result.filled == 3
    assert "filled" in result.notes[0]
    around = data[23:26, 28:31, 23:26]
    known = np.delete(
        around.ravel(), [np.ravel_multi_index(p, (3, 3, 3)) for p in [(1, 1, 1), (1, 1, 2)]]
    )
    assert result.data[24, 29, 24] == np.median(known)
    kept = np.ones(data.shape, bool)
    kept[tuple(np.transpose(places))] = False
    np.testing.assert_array_equal(result.data[kept], data[kept])


def test_many_voxels_inside_the_head_are_refused(head):
    spoilt = float32(head)
    spoilt[20:26, 25:31, 22:28] = np.nan
    with pytest.raises(UserError, match=r"^216 voxels inside the head are NaN .* up to \d+ "):
        mended(spoilt)
    with pytest.raises(UserError, match="every voxel is NaN"):
        mended(np.full_like(spoilt, np.nan))


def test_uni_of_mp2rage_is_shifted_and_other_negative_ranges_are_not(head):
    unit = float32(head) / head.data.max()
    result = mended(unit - np.float32(0.5))
    np.testing.assert_allclose(result.data, unit, atol=1e-7)
    assert "UNI" in result.notes[0]
    assert mended((unit - np.float32(0.5)) * np.float32(1.002)).data.min() == 0
    for low, high in ((-0.5, 0.3), (-0.2, 0.5), (-1.0, 1.0)):
        with pytest.raises(UserError, match="those of a T1w magnitude are positive"):
            mended(low + unit * np.float32(high - low))
    # NaN around UNI is its background, not its middle.
    near = ndimage.binary_dilation(unit > 0.1, iterations=3)
    result = mended(np.where(near, unit - np.float32(0.5), np.float32(np.nan)))
    np.testing.assert_allclose(result.data, np.where(near, unit, 0), atol=1e-7)


def test_overshoot_of_a_spline_is_cut_and_more_is_refused(head):
    data = float32(head)
    top = data.max()
    few = data.copy()
    few[0, 0, :8] = -0.04 * top
    result = mended(few)
    assert result.data.min() == 0
    assert "overshoot" in result.notes[0]
    deep, many, little = data.copy(), data.copy(), data.copy()
    deep[0, 0, 0] = -0.12 * top
    many[0] = -0.04 * top
    little[0] = -0.01 * top
    for wrong in (deep, many):
        with pytest.raises(UserError, match="positive"):
            mended(wrong)
    assert mended(little).notes == ()


def test_overflows_in_the_air_do_not_hide_the_head_from_n4(head):
    rng = np.random.default_rng(3)
    head = coarsen(head, 8.0)
    data = float32(head)
    air = data < 0.05 * data.max()
    spiked = data.copy()
    spiked[air & (rng.random(data.shape) < 0.01)] = 32767
    cut, note = without_spikes(Image(spiked, head.affine))
    assert "spikes" in note
    np.testing.assert_array_equal(cut.data[~air], data[~air])
    field = log_bias_field(cut).data
    wanted = log_bias_field(head).data
    inside = ndimage.zoom(~air, np.array(field.shape) / air.shape, order=0)
    assert np.corrcoef(field[inside], wanted[inside])[0, 1] > 0.95


def test_n4_that_sees_no_head_says_so():
    data = np.full((40, 44, 42), 100, np.float32)
    data[3, 3, 3] = 3000
    with pytest.raises(UserError, match=r"N4.* no head|no head for N4"):
        log_bias_field(Image(data, np.diag([6.0, 6, 6, 1])))


def surrounded(brain, kind):
    """A stripped scan with other values around its brain than 0."""
    rng = np.random.default_rng(1)
    if kind == "offset":
        return brain + 7
    if kind == "ringing":
        ringing = 0.01 * brain.max() * rng.normal(0, 0.3, brain.shape)
        return np.where(brain > 0, brain, np.maximum(ringing, 0))
    noise = 0.005 * brain.max() * rng.random(brain.shape)
    return np.where(brain > 0, brain, noise) + 40


@pytest.fixture(scope="module")
def sharp(stripped):
    """A stripped scan with a sharp edge, as masks leave it."""
    data = np.round(float32(stripped))
    data[data < 0.1 * data.max()] = 0
    return Image(data, stripped.affine)


SETTINGS = PreprocessSettings(grid="demo", n4=False)


@pytest.fixture(scope="module")
def plain(sharp):
    return preprocess(RawScan(sharp.data, sharp.affine), SETTINGS)


@pytest.mark.parametrize("kind", ["offset", "ringing", "offset and noise"])
def test_a_stripped_scan_is_known_whatever_surrounds_it(plain, sharp, kind):
    """The same brain, volume and figures as with a background of 0."""
    data = surrounded(sharp.data, kind).astype(np.float32)
    odd = preprocess(RawScan(data, sharp.affine), SETTINGS)
    assert odd.quality["brain"] == plain.quality["brain"] == "none (detected)"
    assert "no skull" in odd.quality["reading"]
    assert "reading" not in plain.quality
    assert odd.quality["brain_ml"] == plain.quality["brain_ml"]
    assert odd.volume[odd.mask].astype(float).std() == pytest.approx(
        plain.volume[plain.mask].astype(float).std(), rel=0.01
    )


def test_a_head_cropped_close_is_not_taken_for_a_stripped_one(template):
    """Faces that hold tissue are no background, even where what exceeds them is brain-sized."""
    head = Image(template.head[30:150, 40:180, 20:150].astype(np.float32), template.affine)
    assert clear_background(head)[1] == ""
