"""Batches that the network sees in parts."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.keys import random_key
from mri_jax.models import CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.training.objectives import of_method
from mri_jax.training.state import Batch, TrainState
from mri_jax.training.step import OptimizerSettings, StepSettings, init_state, train_step
from tests.compiling import QUICKLY
from tests.training.test_split import SHAPE, batch_of

SPEC = CNNSpec(repetitions=(1, 2), filters=(4, 6), fc=(8,), dropout=(0.0, 0.0), dtype="float64")
SETTINGS = StepSettings(SPEC, OptimizerSettings(learning_rate=1e-2))


def begun(settings: StepSettings) -> TrainState:
    variables = fresh_variables(settings.spec, SHAPE, random_key(1, "init"))
    return init_state(settings, variables, random_key(1, "dropout"))


def stepped(settings: StepSettings, state: TrainState, batch: Batch) -> tuple[TrainState, float]:
    step = jax.jit(partial(train_step, settings, forms="xla"), compiler_options=QUICKLY)
    state, metrics = step(state, batch)
    return state, float(metrics["loss"])


def gradient(state: TrainState) -> np.ndarray:
    """Returns the gradient of a first step, of whose mean Adam remembers a tenth."""
    return np.asarray(state.opt_state[0].mu) / 0.1


def test_the_gradient_is_the_mean_of_those_of_the_parts():
    with jax.enable_x64(True):
        state, batch = begun(SETTINGS), batch_of(6)
        found, loss = stepped(replace(SETTINGS, accumulate=3), state, batch)
        alone = [
            stepped(SETTINGS, state, jax.tree.map(lambda x, i=i: x[i::3], batch)) for i in range(3)
        ]
        mean = np.mean([gradient(each) for each, _ in alone], axis=0)
        np.testing.assert_allclose(gradient(found), mean, rtol=1e-9, atol=1e-15)
        assert loss == pytest.approx(np.mean([each for _, each in alone]), rel=1e-6)
        # Running statistics take in the parts one after the other, as those of three steps.
        assert int(found.batch_stats["bn1"]["count"]) == 3
        of_parts = [np.asarray(each.batch_stats["bn1"]["mean"]) for each, _ in alone]
        np.testing.assert_allclose(
            found.batch_stats["bn1"]["mean"], np.mean(of_parts, axis=0), rtol=1e-6
        )
        assert int(found.step) == 1
        whole, _ = stepped(SETTINGS, state, batch)
        assert np.abs(gradient(whole) - mean).max() > 1e-3 * np.abs(mean).max()


def test_dropout_differs_from_part_to_part():
    spec = replace(SPEC, dropout=(0.5, 0.0))
    settings = replace(SETTINGS, spec=spec, accumulate=2)
    with jax.enable_x64(True):
        twice = batch_of(1)
        batch = jax.tree.map(lambda x: jnp.concatenate([x, x]), twice)
        state = begun(settings)
        _, of_both = stepped(settings, state, batch)
        _, of_one = stepped(replace(settings, accumulate=1), state, twice)
        # Equal volumes: with one dropout the mean of both would be the loss of either.
        losses = {round(of_both, 9), round(of_one, 9)}
        assert len(losses) == 2


@pytest.mark.parametrize("method", ["", "coral"])
def test_devices_that_share_a_batch_see_the_same_parts(method):
    objective = of_method(method, {"weight": 1.0, "memory": 8}, 10)
    settings = replace(SETTINGS, accumulate=2, objective=objective)
    with jax.enable_x64(True):
        batch = batch_of(8)
        if method:
            batch = batch.replace(unlabelled=batch.image[::-1] * 1.5)
        state = begun(settings)
        whole, _ = stepped(settings, state, batch)
        split = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
        in_part = partial(train_step, settings, batch_axis="part", forms="xla")
        in_parts = jax.vmap(in_part, (None, 0), axis_name="part")
        found, _ = jax.jit(in_parts, compiler_options=QUICKLY)(state, split)
        for part in range(2):
            one = jax.tree.map(lambda x, part=part: x[part], found)
            np.testing.assert_allclose(gradient(one), gradient(whole), rtol=1e-9, atol=1e-13)


def test_parts_take_less_memory():
    spec = CNNSpec(repetitions=(1, 1), filters=(8, 8), fc=(8,), dropout=(0.0, 0.0))
    state = init_state(
        StepSettings(spec),
        fresh_variables(spec, (32, 32, 32), random_key(1, "init")),
        random_key(1, "dropout"),
    )
    batch = Batch(jnp.zeros((4, 32, 32, 32, 1)), jnp.zeros(4, int), jnp.ones(4))

    def temporaries(parts: int) -> int:
        settings = StepSettings(spec, accumulate=parts)
        lowered = jax.jit(partial(train_step, settings, forms="reference")).lower(state, batch)
        return lowered.compile(QUICKLY).memory_analysis().temp_size_in_bytes

    assert temporaries(4) < 0.4 * temporaries(1)
