import numpy as np
import pytest

from mri_jax.training.failure import failure
from mri_jax.training.loop import HISTORY, begin
from mri_jax.training.stopping import start, update
from tests.training.small import job, settings

STEPS = 5


def ended(losses, left_out, best=None):
    """The state of a training with these held-out losses and steps left out, an epoch each."""
    fit = settings(max_epochs=len(losses))
    state = begin(fit, job(0))
    stopping, history = start(), state.history.copy()
    for epoch, (loss, bad) in enumerate(zip(losses, left_out, strict=True)):
        stopping, _ = update(stopping, loss, fit.stopping)
        history[epoch, [HISTORY.index("validation_loss"), HISTORY.index("not_finite")]] = loss, bad
    if best is not None:
        stopping = stopping._replace(best_epoch=np.asarray(best, np.int32))
    return state._replace(stopping=stopping, history=history)


NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "left_out", "said"),
    [
        ([0.7, 0.6, 0.65], [0, 0, 0], ""),
        ([0.7, 0.6, NAN], [4, 0, 5], ""),
        # Nothing moved until the second epoch, whose network is kept.
        ([0.7, 0.6, NAN], [5, 4, 5], ""),
        ([0.7, 0.7, 0.7], [5, 5, 5], "no step up to the epoch kept had a finite loss and gradient"),
        ([NAN, NAN, NAN], [4, 5, 5], "no epoch had a finite held-out loss"),
    ],
)
def test_a_network_that_was_never_moved_or_never_finite_has_failed(losses, left_out, said):
    assert failure(ended(losses, left_out), STEPS, held_out=True) == said


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ([0, 4, 4], ""),
        ([4, 5, 5], "no step of the last epoch had a finite loss and gradient"),
        ([5, 5, 5], "no step up to the epoch kept had a finite loss and gradient"),
    ],
)
def test_a_fixed_length_fails_where_its_end_was_not_finite(left_out, said):
    state = ended([NAN] * 3, left_out, best=3)
    assert failure(state, STEPS, held_out=False) == said


def test_a_parameter_that_is_not_finite_is_a_failure():
    state = ended([0.7, 0.6], [0, 0])
    state.best["params"]["conv1"]["kernel"][0, 1, 2, 0, 3] = np.inf
    assert failure(state, STEPS, held_out=True) == "a parameter of the network is not finite"
