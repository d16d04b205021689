import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from evaluation.test_delong import brute_force
from evaluation.test_intervals import drawn_networks, scores_of
from mri_jax.errors import UserError
from mri_jax.evaluation import comparisons
from mri_jax.evaluation.metrics import METRICS, auc, five_metrics


def mean_metric(metric, label, score):
    return np.mean([getattr(five_metrics(label, s, 0.0), metric) for s in score])


@pytest.mark.parametrize("metric", METRICS)
def test_permutation_equals_swapping_everything(rng, metric):
    """Against all 2^9 swaps of nine subjects, for two networks a method."""
    label = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    first = np.round(rng.normal(size=(2, 9)) + 1.5 * (label - 0.5), 1)
    second = np.round(rng.normal(size=(2, 9)), 1)
    effect = comparisons.permutation(
        metric, scores_of(label, first), scores_of(label, second), permutations=20_000
    )
    one, two = first, second
    if metric == "auc":
        one, two = stats.rankdata(first, axis=1), stats.rankdata(second, axis=1)
    observed = mean_metric(metric, label, first) - mean_metric(metric, label, second)
    every = []
    for swap in itertools.product([False, True], repeat=9):
        left, right = np.where(swap, two, one), np.where(swap, one, two)
        if metric == "auc":
            every.append(
                np.mean([auc(label, s) for s in left]) - np.mean([auc(label, s) for s in right])
            )
        else:
            every.append(mean_metric(metric, label, left) - mean_metric(metric, label, right))
    exact = np.mean(np.abs(every) >= abs(observed) - 1e-12)
    assert effect.effect == pytest.approx(observed)
    assert effect.p == pytest.approx(exact, abs=0.012)


def test_permutation_p_is_uniform_when_nothing_differs(rng):
    p = []
    for index in range(120):
        label, score = drawn_networks(rng, 15, 20, networks=4)
        pair = scores_of(label, score[:2]), scores_of(label, score[2:])
        p.append(comparisons.permutation("auc", *pair, seed=index, permutations=200).p)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_difference_interval_of_an_auc_is_delongs_by_hand():
    label = np.array([1, 1, 1, 0, 0, 0])
    # Each positive is above 3, 2, 2 negatives, and above 1, 3, 2; each negative below 1, 3, 3
    # positives, and below 3, 1, 2. Thirds of differences: (2, -1, 0) and (-2, 2, 1), means 1/3.
    first = scores_of(label, np.array([[3, 2, 1, 2.5, 0.5, 0]]))
    second = scores_of(label, np.array([[1, 3, 2, 0, 2.5, 1.5]]))
    effect = comparisons.permutation("auc", first, second)
    variance = (42 / 81 / 2 + 78 / 81 / 2) / 3
    assert effect.effect == pytest.approx(1 / 9, rel=1e-12)
    assert effect.low == pytest.approx(1 / 9 - 1.959963985 * np.sqrt(variance), rel=1e-8)
    assert effect.high == pytest.approx(1 / 9 + 1.959963985 * np.sqrt(variance), rel=1e-8)


def test_difference_interval_of_a_mean_auc_is_that_of_delongs_kernel(rng):
    label, score = drawn_networks(rng, 15, 22, networks=6)
    effect = comparisons.permutation(
        "auc", scores_of(label, score[:3]), scores_of(label, score[3:]), permutations=50
    )
    areas, covariance = brute_force(label, score)
    contrast = np.repeat([1 / 3, -1 / 3], 3)
    half = 1.959963985 * np.sqrt(contrast @ covariance @ contrast)
    assert effect.effect == pytest.approx(contrast @ areas, rel=1e-9)
    assert (effect.low, effect.high) == pytest.approx((effect.effect - half, effect.effect + half))


def test_difference_interval_of_a_rate_is_paired(rng):
    label, score = drawn_networks(rng, 60, 80, networks=3, own=0.1)
    first, second = scores_of(label, score), scores_of(label, score + 0.15)
    effect = comparisons.permutation("sen", first, second)
    change = ((score > 0).astype(float) - (score + 0.15 > 0)).mean(axis=0)[label == 1]
    error = change.std(ddof=1) / np.sqrt(60)
    assert effect.effect == pytest.approx(change.mean())
    assert effect.high - effect.low == pytest.approx(2 * 2.0 * error, rel=0.15)


def test_identical_methods_have_no_p(rng):
    label, score = drawn_networks(rng, 8, 9)
    for metric in METRICS:
        effect = comparisons.permutation(metric, scores_of(label, score), scores_of(label, score))
        assert effect.effect == 0.0
        assert np.isnan(effect.p)


def test_methods_on_different_subjects_are_refused(rng):
    label, score = drawn_networks(rng, 8, 9)
    full = scores_of(label, score)
    with pytest.raises(UserError, match="2 scans were tested by the first method only"):
        comparisons.aligned(full, full.only(full.scan[2:]))
    flipped = scores_of(1 - label, score)
    with pytest.raises(UserError, match="labelled differently"):
        comparisons.aligned(full, flipped)


def test_mcnemar_is_exact_and_its_odds_are_the_discordant_ratio(rng):
    label = np.ones(40, int)
    first, second = np.ones(40, bool), np.ones(40, bool)
    second[:9] = False
    first[9:11] = False
    effect = comparisons.mcnemar(label, first, second)
    expected = statsmodels_mcnemar([[29, 9], [2, 0]], exact=True).pvalue
    assert effect.effect == pytest.approx(4.5)
    assert effect.p == pytest.approx(expected)
    assert effect.p == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert effect.statistic == 2.0
    low, high = proportion_confint(9, 11, alpha=0.05, method="beta")
    assert (effect.low, effect.high) == pytest.approx((low / (1 - low), high / (1 - high)))
    gained_alone = comparisons.mcnemar(label, label == 1, second)
    assert gained_alone.effect == gained_alone.high == np.inf
    assert gained_alone.p == pytest.approx(2 * 0.5**9)
    assert np.isnan(comparisons.mcnemar(label, first, first).p)


def test_corrected_t_by_hand_and_against_the_plain_test():
    difference = np.array([0.03, 0.01, 0.05, -0.01, 0.02])
    effect = comparisons.corrected_t(difference)
    plain = stats.ttest_1samp(difference, 0.0)
    assert effect.statistic == pytest.approx(plain.statistic * np.sqrt(0.2 / 0.45))
    assert effect.p == pytest.approx(2 * stats.t.sf(plain.statistic * np.sqrt(0.2 / 0.45), 4))
    half = stats.t.ppf(0.975, 4) * np.sqrt(0.45 * np.var(difference, ddof=1))
    assert (effect.low, effect.high) == pytest.approx((0.02 - half, 0.02 + half))


@pytest.mark.parametrize("difference", [[0.1], [0.1, 0.1, 0.1], [0.1, np.nan]])
def test_corrected_t_without_variance_has_no_p(difference):
    assert np.isnan(comparisons.corrected_t(np.array(difference)).p)


def test_anova_from_summaries_equals_the_test_on_the_values(rng):
    groups = [rng.normal(loc, 1.0, size=5) for loc in (0.0, 0.4, 1.2, 0.3)]
    expected = stats.f_oneway(*groups)
    effect = comparisons.anova([g.mean() for g in groups], [g.std(ddof=1) for g in groups], [5] * 4)
    assert effect.statistic == pytest.approx(expected.statistic)
    assert effect.p == pytest.approx(expected.pvalue)
    eta = 3 * effect.statistic / (3 * effect.statistic + 16)
    assert effect.effect == pytest.approx(eta)
    assert effect.low <= eta <= effect.high


def test_limits_of_eta_squared_are_where_f_is_unlikely():
    effect = comparisons.anova([0.0, 1.5, 3.0], [1.0, 1.0, 1.0], [5, 5, 5])
    for limit, tail in ((effect.low, 0.975), (effect.high, 0.025)):
        nc = 15 * limit / (1 - limit)
        assert stats.ncf.cdf(effect.statistic, 2, 12, nc) == pytest.approx(tail, abs=1e-6)


def test_anova_without_variance_has_no_p():
    assert np.isnan(comparisons.anova([1.0, 2.0], [0.0, 0.0], [5, 5]).p)
    with pytest.raises(UserError, match="equal in number"):
        comparisons.anova([1.0, 2.0], [0.1], [5, 5])


def test_holm_by_hand_and_nan_does_not_count():
    adjusted = comparisons.holm(pd.Series([0.04, np.nan, 0.01, 0.03]))
    assert adjusted.tolist()[0] == pytest.approx(0.06)
    assert adjusted.tolist()[2:] == pytest.approx([0.03, 0.06])
    assert np.isnan(adjusted.iloc[1])
    assert comparisons.holm(pd.Series([np.nan])).isna().all()


@pytest.mark.parametrize("count", [1, 2, 13])
def test_holm_is_that_of_statsmodels_ties_included(rng, count):
    p = pd.Series(np.round(rng.uniform(0, 0.3, count), 1), index=np.arange(count)[::-1])
    expected = multipletests(p.to_numpy(), method="holm")[1]
    assert comparisons.holm(p).tolist() == pytest.approx(expected.tolist())
