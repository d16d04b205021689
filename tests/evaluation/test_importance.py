"""Importance of a search's fields: known shares are found, and noise has none."""

import numpy as np
import pytest

from mri_jax.evaluation.importance import LEAST, importance, on_front


def of(values, objective, numeric):
    return importance("field", values, objective, numeric, np.random.default_rng(0))


def test_a_field_that_explains_half_of_the_variance_has_a_half():
    rng = np.random.default_rng(3)
    values = rng.choice(["a", "b"], 400)
    objective = np.where(values == "a", 1.0, -1.0) + rng.normal(size=400)
    found = of(values, objective, False)
    assert found.share == pytest.approx(0.5, abs=0.06)
    assert found.low < 0.5 < found.high
    assert 0.05 < found.high - found.low < 0.25
    assert found.p < 0.001


def test_a_parabola_through_numbers_is_found_where_a_line_would_see_nothing():
    x = np.linspace(-1, 1, 40)
    found = of(x, x**2 + np.random.default_rng(1).normal(size=40) * 0.02, True)
    assert found.share > 0.98


def test_noise_has_no_importance_in_the_mean_and_p_values_keep_their_level():
    shares, small = [], 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = importance("f", rng.choice(list("abc"), 24), rng.normal(size=24), False, rng)
        shares.append(found.share)
        small += found.p < 0.05
    assert np.mean(shares) == pytest.approx(0.0, abs=0.03)
    assert 1 <= small <= 12


@pytest.mark.parametrize(
    ("values", "objective"),
    [
        (["a", "b"] * 3, np.arange(6.0)),
        (["a"] * LEAST, np.arange(float(LEAST))),
        (["a", "b"] * LEAST, np.ones(2 * LEAST)),
    ],
)
def test_nothing_is_said_of_few_trials_of_one_value_and_of_a_constant(values, objective):
    assert np.isnan(of(values, objective, False).share)


def test_nothing_is_said_of_a_number_that_no_trial_has_drawn():
    found = of(np.zeros(0), np.zeros(0), True)
    assert found.trials == 0
    assert np.isnan(found.share)


def test_the_front_is_that_of_a_direct_search():
    rng = np.random.default_rng(5)
    points = rng.integers(0, 6, (40, 3)).astype(float)
    signs = (1, -1, 1)
    worth = points * signs
    wanted = [
        not any((other >= own).all() and (other > own).any() for other in worth) for own in worth
    ]
    assert on_front(points, signs).tolist() == wanted
    assert 0 < sum(wanted) < 40
