import numpy as np
import pytest
from scipy import stats

from mri_jax.evaluation import delong, intervals
from mri_jax.evaluation.metrics import METRICS
from mri_jax.evaluation.scores import Estimates, Scores, estimate


def scores_of(label, score, tested=None, fold=None):
    score = np.atleast_2d(score)
    count = len(score)
    return Scores(
        np.asarray(label),
        score,
        np.ones(score.shape, bool) if tested is None else tested,
        np.arange(count) if fold is None else np.asarray(fold),
        np.zeros(count, int),
        np.array([f"s{i:05d}/m00" for i in range(len(label))]),
    )


def drawn_networks(rng, m, n, networks=5, own=0.7):
    """Networks that share most of what they see of a subject."""
    label = np.r_[np.ones(m), np.zeros(n)].astype(int)
    shared = rng.normal(size=m + n) + 1.3 * (label - 0.5)
    return label, shared + own * rng.normal(size=(networks, m + n))


def test_influence_of_the_auc_is_delong(rng):
    label, score = drawn_networks(rng, 13, 22)
    found = estimate("auc", scores_of(label, np.round(score, 1)))
    areas, covariance = delong.auc_covariance(label, np.round(score, 1))
    np.testing.assert_allclose(found.value, areas, atol=1e-14)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-16)


def test_influence_of_the_rates_is_the_binomial_covariance(rng):
    label, score = drawn_networks(rng, 13, 22, networks=2)
    decided = score > 0
    right = [decided[:, label == 1], ~decided[:, label == 0]]
    covariance = [np.cov(r) / r.shape[1] for r in right]
    for metric, weights in {"sen": (1, 0), "bac": (0.5, 0.5), "acc": (13 / 35, 22 / 35)}.items():
        expected = weights[0] ** 2 * covariance[0] + weights[1] ** 2 * covariance[1]
        found = estimate(metric, scores_of(label, score))
        np.testing.assert_allclose(found.covariance, expected, atol=1e-15)


def test_subjects_whom_a_network_did_not_test_have_no_influence_on_it(rng):
    label, score = drawn_networks(rng, 9, 14, networks=2)
    tested = np.ones((2, 23), bool)
    tested[1, [0, 3, 12, 20]] = False
    found = estimate("auc", scores_of(label, score, tested))
    kept = tested[1]
    alone = delong.auc_covariance(label[kept], score[1:, kept])
    assert found.value[1] == pytest.approx(alone[0][0])
    assert found.covariance[1, 1] == pytest.approx(alone[1][0, 0])
    assert (found.influence[1, ~kept] == 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_missing_class_gives_nan_never_a_number(metric):
    found = estimate(metric, scores_of([1, 1, 1], [0.1, -0.2, 0.3]))
    assert np.isnan(found.value[0]) == (metric not in ("sen", "acc"))


def test_pattern_bootstrap_has_the_distribution_of_drawing_subjects(rng):
    label, score = drawn_networks(rng, 17, 29)
    scores = scores_of(label, score)
    drawn = intervals.resample(scores, score > 0, seed=1, resamples=20_000)
    plain = []
    for _ in range(20_000):
        pick = rng.integers(0, 17, 17)
        plain.append((score[:, :17][:, pick] > 0).mean())
    ours = drawn.metric("sen").mean(axis=1)
    assert ours.mean() == pytest.approx(np.mean(plain), abs=0.003)
    assert ours.std() == pytest.approx(np.std(plain), rel=0.03)
    np.testing.assert_allclose(
        np.quantile(ours, [0.025, 0.975]), np.quantile(plain, [0.025, 0.975]), atol=0.013
    )


def test_disjoint_folds_keep_their_sizes_in_the_bootstrap(rng):
    label = np.repeat([1, 0], 8)
    score = np.tile([1.0, -1.0], (2, 8))
    tested = np.zeros((2, 16), bool)
    tested[0, [0, 1, 2, 3, 8, 9]] = True
    tested[1] = ~tested[0]
    drawn = intervals.resample(scores_of(label, score, tested), score > 0, seed=1)
    assert not np.isnan(drawn.sen).any()
    assert set(np.round(drawn.sen[:, 0] * 4, 9)) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert set(np.round(drawn.spe[:, 0] * 2, 9)) == {0.0, 1.0, 2.0}
    assert abs(np.corrcoef(drawn.sen.T)[0, 1]) < 0.1


def test_few_subjects_widen_the_percentiles():
    draws = np.random.default_rng(1).normal(size=100_000)
    wide = intervals.percentile_interval(0.0, draws, size=11)
    plain = intervals.percentile_interval(0.0, draws, size=10**6)
    assert plain.high == pytest.approx(1.96, abs=0.03)
    assert wide.high == pytest.approx(np.sqrt(1.1) * stats.t.ppf(0.975, 10), abs=0.06)


def test_no_variance_is_not_certainty():
    right = scores_of([1, 1, 1, 0, 0], np.array([[1.0, 2, 3, -1, -2]] * 2))
    for metric in METRICS:
        a = intervals.interval_a(metric, right)
        assert a.estimate == 1.0
        assert np.isnan([a.low, a.high]).all()
        assert np.isnan(intervals.interval_b(estimate(metric, right), right.fold, right.label).low)


def test_rounding_is_no_variance():
    # Every network decides negative everywhere: 11 of 23 right, five times, to the last bit or so.
    label = np.r_[np.ones(12, int), np.zeros(11, int)]
    for networks in (3, 5, 7):
        scores = scores_of(label, np.full((networks, 23), -1.0))
        found = estimate("acc", scores)
        noisy = Estimates(found.value + np.arange(networks) * 1e-16, found.influence)
        for each in (found, noisy):
            assert np.isnan(intervals.interval_b(each, scores.fold, label).low)
        assert np.isnan(intervals.interval_a("acc", scores).low)


@pytest.mark.parametrize("estimate_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variance", [0.0, 1e-32, np.nan])
def test_no_interval_of_a_variance_that_is_rounding(estimate_, variance):
    interval = delong.logit_interval(estimate_, variance, 1.96, 0.95)
    assert interval.estimate == estimate_
    assert np.isnan([interval.low, interval.high]).all()


def test_a_single_network_gets_wilson():
    scores = scores_of([1] * 10 + [0] * 4, np.r_[np.ones(8), -np.ones(6)])
    interval = intervals.interval_a("sen", scores)
    centre, z = 0.8, stats.norm.ppf(0.975)
    half = z / (1 + z**2 / 10) * np.sqrt(centre * 0.2 / 10 + z**2 / 400)
    middle = (centre + z**2 / 20) / (1 + z**2 / 10)
    assert (interval.low, interval.high) == pytest.approx((middle - half, middle + half))
    assert intervals.wilson(0, 5).low == 0.0
    assert intervals.wilson(5, 5).high == 1.0


def test_between_variance_takes_off_what_the_test_set_adds(rng):
    """By brute force: networks with true values t err on finite test sets with covariance C."""
    truth = np.array([0.80, 0.83, 0.86, 0.79, 0.82])
    covariance = 0.02**2 * (0.6 + 0.4 * np.eye(5))
    draws = rng.multivariate_normal(truth, covariance, size=40_000)
    spread = np.var(draws, axis=1, ddof=1)
    raw = spread.mean() - (covariance[0, 0] - covariance[0, 1])
    assert raw == pytest.approx(np.var(truth, ddof=1), rel=0.02)
    one = intervals.between_variance(draws[0], covariance)
    assert one == pytest.approx(max(0.0, spread[0] - 0.4 * 0.02**2))
    assert intervals.between_variance(np.full(5, 0.8), covariance) == 0.0


def test_interval_b_by_hand(rng):
    influence = rng.normal(size=(5, 40)) * 0.004
    value = np.array([0.70, 0.76, 0.81, 0.74, 0.79])
    label = np.r_[np.ones(17, int), np.zeros(23, int)]
    interval = intervals.interval_b(Estimates(value, influence), np.arange(5), label)
    covariance = influence @ influence.T
    off = (covariance.sum() - np.trace(covariance)) / 20
    networks = (np.var(value, ddof=1) - np.trace(covariance) / 5 + off) * (1 / 5 + 1 / 4)
    subjects = covariance.sum() / 25
    total = networks + subjects
    mean = influence.mean(axis=0)
    parts = (mean[:17] ** 2).sum(), (mean[17:] ** 2).sum()
    assert sum(parts) == pytest.approx(subjects)
    freedom = total**2 / (networks**2 / 4 + parts[0] ** 2 / 16 + parts[1] ** 2 / 22)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total) / (0.76 * 0.24)
    expected = 1 / (1 + np.exp(-(np.log(0.76 / 0.24) + np.array([-half, half]))))
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))


def test_repeats_of_a_fold_are_one_network_for_interval_b(rng):
    influence, value = rng.normal(size=(4, 30)) * 0.01, np.array([0.7, 0.8, 0.74, 0.78])
    doubled = Estimates(np.repeat(value, 2), np.repeat(influence, 2, axis=0))
    label = np.arange(30) % 2
    once = intervals.interval_b(Estimates(value, influence), np.arange(4), label)
    twice = intervals.interval_b(doubled, np.repeat(np.arange(4), 2), label)
    assert (once.low, once.high) == pytest.approx((twice.low, twice.high))


def test_identical_networks_make_b_no_narrower_than_a(rng):
    label, score = drawn_networks(rng, 30, 40, networks=1)
    scores = scores_of(label, np.repeat(score, 5, axis=0))
    a = intervals.interval_a("auc", scores)
    b = intervals.interval_b(estimate("auc", scores), scores.fold, scores.label)
    assert b.low <= a.low
    assert a.high <= b.high


def test_the_accuracy_of_controls_alone_is_their_specificity_with_its_interval(rng):
    scores = scores_of(np.zeros(30, int), rng.normal(-0.5, 1.0, (3, 30)))
    spe, acc = (intervals.interval_a(metric, scores, seed=1) for metric in ("spe", "acc"))
    assert 0.5 < spe.estimate < 0.9
    assert spe.low < spe.estimate < spe.high
    assert acc == spe
    for metric in ("auc", "bac", "sen"):
        assert np.isnan(intervals.interval_a(metric, scores, seed=1).estimate)
