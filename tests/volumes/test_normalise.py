"""Normalisation uses the mask alone, and a reference histogram only when one is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.errors import UserError
from mri_jax.volumes.normalise import (
    PERCENTILES,
    Normalisation,
    normalise,
    template_reference,
    training_reference,
)


def scan(seed=0, gain=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 11, 10)) > 0.4
    return rng.gamma(3.0, 40.0, mask.shape).astype(np.float32) * gain + shift, mask


def test_zscore_inside_and_constant_outside():
    volume, mask = scan()
    result = normalise(volume, mask, Normalisation(background=-7.0))
    assert result[mask].mean() == pytest.approx(0, abs=1e-5)
    assert result[mask].std() == pytest.approx(1, abs=1e-5)
    assert (result[~mask] == -7).all()


@given(gain=st.floats(0.1, 1000), shift=st.floats(0, 500))
@pytest.mark.parametrize("method", ["zscore", "minmax", "histogram"])
def test_the_scanner_s_gain_and_offset_do_not_matter(method, gain, shift):
    plain, mask = scan()
    how = Normalisation(method, reference=tuple(range(51)) if method == "histogram" else ())
    one = normalise(plain, mask, how)
    other = normalise(scan(gain=gain, shift=shift)[0], mask, how)
    np.testing.assert_allclose(other, one, atol=2e-2)


def test_voxels_outside_the_mask_do_not_matter():
    volume, mask = scan()
    spoilt = np.where(mask, volume, 1e6)
    for method in ("zscore", "minmax", "histogram"):
        np.testing.assert_array_equal(
            normalise(spoilt, mask, Normalisation(method)),
            normalise(volume, mask, Normalisation(method)),
        )


def test_histogram_matching_gives_the_reference_s_percentiles():
    volume, mask = scan()
    reference = training_reference([scan(seed) for seed in (1, 2, 3)])
    result = normalise(volume, mask, Normalisation("histogram", reference=reference))
    np.testing.assert_allclose(np.percentile(result[mask], PERCENTILES), reference, atol=0.02)
    order = np.argsort(volume[mask], kind="stable")
    assert (np.diff(result[mask][order]) >= 0).all()


def test_an_empty_reference_means_the_template():
    volume, mask = scan()
    reference = template_reference()
    assert len(reference) == 51
    assert -4 < reference[0] < -1 < 1 < reference[-1] < 4
    np.testing.assert_array_equal(
        normalise(volume, mask, Normalisation("histogram")),
        normalise(volume, mask, Normalisation("histogram", reference=reference)),
    )


@pytest.mark.parametrize(
    ("kwargs", "rule"),
    [
        ({"method": "whitestripe"}, "normalisation.method"),
        ({"clip": (99.0, 1.0)}, "normalisation.clip"),
        ({"reference": (1.0, 2.0)}, "takes none"),
        ({"method": "histogram", "reference": (1.0, 2.0)}, "51 rising"),
    ],
)
def test_refuses(kwargs, rule):
    with pytest.raises(UserError, match=rule):
        Normalisation(**kwargs)


def test_refuses_an_empty_mask_and_equal_intensities():
    volume, mask = scan()
    with pytest.raises(UserError, match="mask is empty"):
        normalise(volume, np.zeros_like(mask), Normalisation())
    for method in ("zscore", "minmax", "histogram"):
        with pytest.raises(UserError, match="all equal"):
            normalise(np.ones_like(volume), mask, Normalisation(method))
    with pytest.raises(UserError, match="no training scans"):
        training_reference([])
