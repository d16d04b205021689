from functools import partial

import jax
import numpy as np
import pytest

from mri_jax.explanation.gradients import gradient_times_input, integrated_gradients
from mri_jax.explanation.score import difference, scores
from mri_jax.models import CNN
from tests.compiling import QUICKLY
from tests.explanation.small import SPEC, network, volume

SCALE = 3e-5


def test_gradient_times_input_is_that_of_the_reference_form():
    asked = network()
    x = np.stack([volume(1), volume(2)])
    plain = partial(CNN(SPEC, forms="reference").apply, asked.variables, train=False)
    gradient = jax.grad(lambda v: difference(plain(v)).sum())
    wanted = jax.jit(gradient, compiler_options=QUICKLY)(x) * x
    found = gradient_times_input(*asked, x, np.float32(0))
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, atol=SCALE * float(np.abs(wanted).max()))


def test_baseline_is_taken_off_the_input():
    asked = network()
    x, baseline = volume(1), volume(2)
    plain = gradient_times_input(*asked, x[None], np.float32(0))
    found = gradient_times_input(*asked, x[None], baseline)
    inside = np.abs(x[None]) > 0.1
    gradient = np.asarray(plain)[inside] / x[None][inside]
    expected = gradient * (x - baseline)[None][inside]
    np.testing.assert_allclose(np.asarray(found)[inside], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("baseline", [np.zeros_like(volume(1)), volume(2)])
def test_integrated_gradients_become_complete(baseline):
    asked = network()
    x = volume(1)
    ends = [float(scores(*asked, v[None])[0]) for v in (x, baseline)]
    errors = []
    for steps in (8, 512):
        found, error = integrated_gradients(asked, x, baseline, steps, chunk=8)
        assert found.sum(dtype=float) - (ends[0] - ends[1]) == pytest.approx(error, abs=1e-4)
        errors.append(abs(error))
    assert abs(ends[0] - ends[1]) > 0.1
    assert errors[1] < 0.01 * abs(ends[0] - ends[1])
    assert errors[1] < errors[0] / 5


def test_one_step_is_the_gradient_in_the_middle():
    asked, x, baseline = network(), volume(1), volume(2)
    found, _ = integrated_gradients(asked, x, baseline, 1, chunk=1)
    middle = gradient_times_input(*asked, ((x + baseline) / 2)[None], (3 * baseline - x) / 2)
    np.testing.assert_allclose(found, middle[0], atol=SCALE * float(np.abs(found).max()))


def test_chunks_change_nothing():
    asked, x = network(), volume(1)
    one, _ = integrated_gradients(asked, x, np.zeros_like(x), 6, chunk=1)
    three, _ = integrated_gradients(asked, x, np.zeros_like(x), 6, chunk=3)
    np.testing.assert_allclose(one, three, atol=1e-6 * float(np.abs(one).max()) + 1e-7)
    with pytest.raises(ValueError, match="does not divide"):
        integrated_gradients(asked, x, np.zeros_like(x), 6, chunk=4)


def test_score_is_positive_minus_negative_logit():
    asked = network()
    swapped = jax.tree.map(np.array, asked.variables)
    for name in ("kernel", "bias"):
        swapped["params"]["fc2"][name] = swapped["params"]["fc2"][name][..., ::-1]
    x = volume(1)[None]
    one, other = (float(scores(asked.network, v, x)[0]) for v in (asked.variables, swapped))
    assert one == pytest.approx(-other, rel=1e-5)
    assert one != 0
