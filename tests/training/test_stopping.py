import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.errors import UserError
from mri_jax.training import stopping
from mri_jax.training.stopping import StoppingSettings


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
