import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.errors import UserError
from mri_jax.training import stopping
from mri_jax.training.stopping import StepLimits, StoppingSettings


def run(losses, settings):
    state = stopping.start()
    for loss in losses:
        state, _ = stopping.update(state, loss, settings)
        if stopping.finished(state, settings):
            break
    return state


def test_stops_after_patience_but_never_before_the_least_epochs():
    settings = StoppingSettings(min_epochs=6, max_epochs=20, patience=2)
    state = run([1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 0.3], settings)
    assert int(state.epochs) == 6
    assert int(state.best_epoch) == 2
    assert float(state.best_loss) == 0.5


def test_small_falls_count_as_waiting_but_still_make_the_best_epoch():
    settings = StoppingSettings(min_epochs=1, max_epochs=50, patience=3, min_delta=0.1)
    state = run([1.0, 0.99, 0.98, 0.97, 0.2], settings)
    assert int(state.epochs) == 4
    assert int(state.best_epoch) == 4


def test_a_loss_that_is_not_finite_is_never_the_best():
    settings = StoppingSettings(min_epochs=1, max_epochs=4, patience=10)
    state = run([np.nan, 0.7, -np.inf, np.nan], settings)
    assert int(state.best_epoch) == 2


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 12))
def test_best_epoch_is_the_first_minimum_of_what_was_seen(losses, patience, least):
    settings = StoppingSettings(min_epochs=least, max_epochs=30, patience=patience)
    state = run(losses, settings)
    seen = losses[: int(state.epochs)]
    assert int(state.best_epoch) == int(np.argmin(seen)) + 1
    assert min(len(losses), least) <= int(state.epochs) <= 30


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="min_epochs: 5 must be at least 1 and at most max_epochs"):
        StoppingSettings(min_epochs=5, max_epochs=4)
    with pytest.raises(UserError, match="patience: 0"):
        StoppingSettings(1, 4, patience=0)


DEMO = StoppingSettings(min_epochs=12, max_epochs=20, patience=5, min_delta=1e-3)
LIMITS = StepLimits(min_steps=576, patience_steps=240)


@pytest.mark.parametrize(
    ("steps", "least", "most", "patience"),
    [
        (48, 12, 20, 5),  # what the limits were taken from: nothing changes
        (80, 12, 20, 5),
        (47, 13, 20, 6),
        (16, 36, 36, 15),  # 40 scans: 20 epochs would be 320 steps
        (1, 576, 576, 240),
        (0, 576, 576, 240),
    ],
)
def test_limits_in_steps_lengthen_the_epochs_of_small_cohorts_alone(steps, least, most, patience):
    found = LIMITS.applied(DEMO, steps)
    assert (found.min_epochs, found.max_epochs, found.patience) == (least, most, patience)
    assert found.min_delta == DEMO.min_delta
    assert StepLimits().applied(DEMO, steps) == DEMO


@given(st.integers(0, 5000), st.integers(0, 2000), st.integers(1, 200))
def test_a_training_with_limits_in_steps_is_never_shorter_than_they_say(least, patience, steps):
    found = StepLimits(least, patience).applied(DEMO, steps)
    assert found.min_epochs * steps >= least
    assert (found.min_epochs - 1) * steps < max(least, 12 * steps)
    assert found.patience * steps >= patience
    assert found.max_epochs == max(20, found.min_epochs)
