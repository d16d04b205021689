"""ComBat against neuroCombat 0.2.12 and neuroHarmonize 2.5.2, run with NumPy 1.26.

``combat_reference.json`` holds two made sites and what both packages made of the second with the
first as reference: of twelve features with empirical Bayes, of one feature without.
"""

import json

import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.evaluation import combat
from tests.conftest import ROOT

RECORDED = json.loads(
    (ROOT / "tests" / "evaluation" / "combat_reference.json").read_text(encoding="utf-8")
)
PACKAGES = ("neuroCombat 0.2.12", "neuroHarmonize 2.5.2")


def sites(which):
    record = RECORDED[which]
    features = np.array(record["features"])
    covariates = np.c_[record["age"], record["sex"]]
    second = np.array(record["site"]) == 1
    return [(features[s], covariates[s]) for s in (~second, second)], second


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("which", ["many", "one"])
def test_the_second_site_is_harmonised_as_the_packages_do(which, package):
    (reference, site), second = sites(which)
    found = combat.fit(reference, site).apply(*site)
    np.testing.assert_allclose(found, np.array(RECORDED[which][package])[second], atol=1e-6)
    assert np.abs(found - site[0]).max() > 0.5


def test_each_scan_is_changed_by_itself_and_what_is_unknown_stands_at_the_reference_mean():
    (reference, site), _ = sites("many")
    fitted = combat.fit(reference, site)
    whole = fitted.apply(*site)
    np.testing.assert_array_equal(fitted.apply(site[0][3:4], site[1][3:4]), whole[3:4])
    unknown = np.full((1, 2), np.nan)
    at_mean = reference[1].mean(axis=0, keepdims=True)
    np.testing.assert_allclose(
        fitted.apply(site[0][:1], unknown), fitted.apply(site[0][:1], at_mean)
    )


def test_missing_and_constant_features_stay_and_enter_no_estimate():
    (reference, site), _ = sites("many")
    gap = site[0].copy()
    gap[0, 4] = np.nan
    without = combat.fit(reference, (site[0][1:], site[1][1:]))
    fitted = combat.fit(reference, (gap, site[1]))
    np.testing.assert_allclose(fitted.shift, without.shift)
    assert np.isnan(fitted.apply(gap, site[1])[0, 4])
    flat, there = reference[0].copy(), site[0].copy()
    flat[:, 2], there[:, 2] = 5.0, 7.0
    found = combat.fit((flat, reference[1]), (there, site[1])).apply(there, site[1])
    np.testing.assert_array_equal(found[:, 2], there[:, 2])
    others = [i for i in range(12) if i != 2]
    alone = combat.fit((flat[:, others], reference[1]), (there[:, others], site[1])).apply(
        there[:, others], site[1]
    )
    np.testing.assert_allclose(found[:, others], alone)


def test_a_site_with_a_single_scan_is_refused():
    (reference, site), _ = sites("many")
    with pytest.raises(UserError) as caught:
        combat.fit(reference, (site[0][:1], site[1][:1]))
    assert str(caught.value) == (
        "combat: the adaptation part has 1 scan with every feature; two are needed to estimate a "
        "scale"
    )
