import numpy as np
import pytest

from mri_jax.evaluation import two_sample


def made(apart: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    site = np.arange(120) % 3 == 0
    features = rng.normal(size=(120, 16))
    features[:, 0] += apart * site
    features[:, 5] = 2.0  # constant: says nothing
    return features, site.astype(int)


def test_features_that_know_nothing_of_the_site_give_a_half_within_the_interval():
    found = two_sample.site_auc([made(0.0, seed) for seed in range(5)], seed=1)
    assert found.low < 0.5 < found.high
    assert abs(found.estimate - 0.5) < 0.08


def test_a_feature_that_differs_is_found_and_scores_are_out_of_fold():
    features, site = made(3.0)
    found = two_sample.site_auc([(features, site)], seed=1)
    assert found.estimate > 0.95
    assert found.low > 0.9
    # More features than scans fit any labels, but not those that were held out.
    drawn = [np.random.default_rng(seed).normal(size=(120, 300)) for seed in range(12)]
    assert abs(two_sample.site_auc([(f, site) for f in drawn], seed=1).estimate - 0.5) < 0.08


def test_the_interval_takes_networks_on_the_same_scans_as_one():
    one = two_sample.site_auc([made(1.0)], seed=1)
    five = two_sample.site_auc([made(1.0)] * 5, seed=1)
    assert five.estimate == pytest.approx(one.estimate)
    assert five.high - five.low == pytest.approx(one.high - one.low)
