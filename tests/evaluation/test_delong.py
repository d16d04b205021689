import numpy as np
import pytest
from scipy import stats

from mri_jax.errors import UserError
from mri_jax.evaluation import delong
from mri_jax.evaluation.differences import delong_p
from mri_jax.evaluation.scores import Scores


def brute_force(label, score):
    """DeLong 1988, equations 4 to 8, by the full m x n kernel."""
    positive, negative = score[:, label == 1], score[:, label == 0]
    kernel = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (
        positive[:, :, None] == negative[:, None, :]
    )
    m, n = positive.shape[1], negative.shape[1]
    areas = kernel.mean(axis=(1, 2))
    v10, v01 = kernel.mean(axis=2) - areas[:, None], kernel.mean(axis=1) - areas[:, None]
    return areas, v10 @ v10.T / (m - 1) / m + v01 @ v01.T / (n - 1) / n


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_fast_form_equals_the_kernel_with_and_without_ties(rng, decimals):
    label = np.r_[np.ones(23), np.zeros(41)].astype(int)
    score = np.round(rng.normal(size=(4, 64)) + label + rng.normal(size=64), decimals)
    areas, covariance = delong.auc_covariance(label, score)
    expected_areas, expected = brute_force(label, score)
    np.testing.assert_allclose(areas, expected_areas, atol=1e-13)
    np.testing.assert_allclose(covariance, expected, atol=1e-15)


def scores(label, score):
    """Networks that were all tested on the same subjects."""
    score = np.atleast_2d(score)
    networks = np.arange(len(score))
    scans = np.array([f"s{i:03d}" for i in range(len(label))])
    return Scores(label, score, np.ones(score.shape, bool), networks, 0 * networks, scans)


def test_paired_test_agrees_with_an_independent_package(rng):
    mlstatkit = pytest.importorskip("MLstatkit")
    label = np.r_[np.ones(62), np.zeros(95)].astype(int)
    shared = rng.normal(size=157) + label
    first, second = shared + rng.normal(size=157), shared + 2 * rng.normal(size=157)
    p = mlstatkit.Delong_test(label, first, second)[1]
    assert 0 < p < 0.5
    assert delong_p(scores(label, first), scores(label, second)) == pytest.approx(p, rel=1e-9)


def test_mean_over_networks_keeps_their_covariance(rng):
    label = np.r_[np.ones(30), np.zeros(50)].astype(int)
    score = rng.normal(size=(5, 80)) * 0.3 + rng.normal(size=80) + label
    _, covariance = delong.auc_covariance(label, score)
    mean = delong.auc_interval(label, score)
    independent = delong.logit_interval(
        mean.estimate, float(np.trace(covariance)) / 25, stats.norm.ppf(0.975), 0.95
    )
    assert mean.high - mean.low > 1.8 * (independent.high - independent.low)
    assert mean.low < mean.estimate < mean.high


def test_five_identical_networks_are_no_more_certain_than_one(rng):
    label = np.r_[np.ones(12), np.zeros(17)].astype(int)
    score = rng.normal(size=29) + label
    one = delong.auc_interval(label, score)
    five = delong.auc_interval(label, np.tile(score, (5, 1)))
    assert (five.low, five.high) == pytest.approx((one.low, one.high), abs=1e-12)


def test_logit_interval_by_hand():
    interval = delong.logit_interval(0.8, 0.0016, 1.96, 0.95)
    half = 1.96 * 0.04 / 0.16
    assert interval.low == pytest.approx(1 / (1 + np.exp(-(np.log(4) - half))))
    assert interval.high == pytest.approx(1 / (1 + np.exp(-(np.log(4) + half))))


def test_perfect_or_constant_scores_have_no_interval():
    label = np.array([0, 0, 1, 1])
    for score in ([1.0, 2, 3, 4], [1.0, 1, 1, 1]):
        interval = delong.auc_interval(label, np.array(score))
        assert np.isnan([interval.low, interval.high]).all()
    assert np.isnan(delong.auc_interval(np.array([0, 0, 1]), np.array([1.0, 3, 2])).low)


def test_paired_test_of_equal_scores_has_no_p(rng):
    label = np.r_[np.ones(5), np.zeros(6)].astype(int)
    score = scores(label, rng.normal(size=11))
    assert np.isnan(delong_p(score, score))


def test_paired_test_of_means_by_brute_force(rng):
    label = np.r_[np.ones(21), np.zeros(34)].astype(int)
    score = np.round(rng.normal(size=(5, 55)) + label, 1)
    p = delong_p(scores(label, score[:2]), scores(label, score[2:]))
    areas, covariance = brute_force(label, score)
    contrast = np.array([0.5, 0.5, -1 / 3, -1 / 3, -1 / 3])
    error = np.sqrt(contrast @ covariance @ contrast)
    assert p == pytest.approx(2 * stats.norm.sf(abs(contrast @ areas / error)))


@pytest.mark.parametrize("label", [[1, 1, 1], [0, 0, 0]])
def test_a_single_class_is_refused(label):
    with pytest.raises(UserError, match="both classes"):
        delong.auc_interval(np.array(label), np.array([0.1, 0.2, 0.3]))


def test_nan_scores_are_refused():
    with pytest.raises(UserError, match="1 value is NaN"):
        delong.auc_interval(np.array([0, 1, 1]), np.array([0.1, np.nan, 0.3]))
