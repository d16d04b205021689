"""A state in few arrays takes the steps that the whole one takes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.training import packed as packing
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.folds import Programs, Steps
from mri_jax.training.packed import packed, unpacked
from mri_jax.training.step import OptimizerSettings, packed_step
from mri_jax.training.wave import Wave
from tests.compiling import QUICKLY, quickly
from tests.training.test_step import SPEC, batch_of, run, settings_for, start


@pytest.fixture(params=["default", "cuda", "tpu"])
def platform(request, monkeypatch):
    """A platform as which states are packed, wherever they are."""

    def dependent(*given, default, **of):
        return of.get(request.param, default)(*given)

    monkeypatch.setattr(packing.lax, "platform_dependent", dependent)
    return request.param


def assert_same(one, other, **tolerances):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(partial(np.testing.assert_allclose, **tolerances), one, other)


@pytest.mark.parametrize("layers", ["all", "high"])
def test_packed_steps_are_the_steps_of_the_whole_state(rng, platform, layers):
    optimizer = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1)
    settings = settings_for(layers, optimizer=optimizer)
    begun = dataclasses.replace(start(settings), memory={"seen": jnp.arange(3.0)})
    batches = [batch_of(rng) for _ in range(3)]
    batches.insert(1, batches[0].replace(weight=batches[0].weight * jnp.nan))
    expected, history = run(settings, begun, batches, "reference", QUICKLY)
    few = packed(begun, settings.rules)
    assert_same(unpacked(few, begun, settings.rules), begun, rtol=0)
    step = partial(packed_step, settings, like=begun, forms="reference")
    advance = jax.jit(step, compiler_options=QUICKLY)
    for batch, entry in zip(batches, history, strict=True):
        few, metrics = advance(few, batch=batch)
        np.testing.assert_allclose(metrics["loss"], entry["loss"], rtol=1e-4)
        assert metrics["finite"] == entry["finite"]
    assert int(few.step) == len(batches)
    found = unpacked(few, begun, settings.rules)
    assert int(found.batch_stats["bn3"]["count"]) == len(batches) - 1
    assert_same(found, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(found.params["fc1"]["kernel"] - begun.params["fc1"]["kernel"]).max() > 1e-3


def test_kernels_lie_as_cudnn_takes_them_on_nvidia_gpus_alone():
    params = start(settings_for("all")).params
    first = {"conv3": params["conv3"]}
    traced = jax.jit(packing.vector_of).trace(first)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cuda", "tpu")}
    assert "dims = [4, 3, 0, 1, 2]" in texts["cuda"]
    assert "transpose" not in texts["tpu"]
    cut = jax.jit(partial(packing.tree_of, params)).trace(packing.vector_of(params))
    # The barrier keeps XLA from giving the whole vector the shape of the last kernel, (8, 2).
    assert "optimization_barrier" in cut.lower(lowering_platforms=("tpu",)).as_text()


def test_a_program_of_many_steps_takes_them_one_by_one(rng, monkeypatch):
    wave = Wave((jax.devices()[0],), forms="reference")
    settings = settings_for("all")
    begun = start(settings)
    images = np.asarray(batch_of(rng, 5).image)
    rows = np.array([[0, 1], [2, 3], [4, 0]], np.int32)
    active = np.array([True, False, True])
    steps = Steps(rows, rows % 2, np.ones(rows.shape, np.float32), active)

    def after(size):
        monkeypatch.setattr(Wave, "steps_per_program", size)
        program = Programs(wave).train(settings, AugmentSettings())
        state, taken = wave.stack([begun]), []
        for first in range(0, len(rows), size):
            part = Steps(*(field[None, first : first + size] for field in steps))
            if size > 1 or part.active[0, 0]:
                state, metrics = program(state, wave.copies(images), part)
                taken += np.asarray(metrics["loss"])[part.active].tolist()
        return wave.fetch(state)[0], taken

    with quickly():
        (whole, losses), (single, one_by_one) = after(3), after(1)
    np.testing.assert_allclose(losses, one_by_one, rtol=1e-4)
    assert int(whole.step) == 2
    assert whole.params["conv1"]["kernel"].shape == (3, 3, 3, 1, SPEC.filters[0])
    assert_same(whole, single, rtol=1e-3, atol=1e-5)


def test_folds_side_by_side_take_their_own_steps(rng, monkeypatch):
    monkeypatch.setattr(Wave, "steps_per_program", 3)
    one, settings = Wave((jax.devices()[0],), forms="reference"), settings_for("all")
    begun = start(settings)
    other = dataclasses.replace(begun, key=begun.key + np.uint32(1))
    images = np.asarray(batch_of(rng, 5).image)
    rows = np.array([[[0, 1], [2, 3], [4, 0]], [[3, 4], [1, 2], [0, 3]]], np.int32)
    active = np.array([[True, False, True], [True, True, True]])
    steps = Steps(rows, rows % 2, np.ones(rows.shape, np.float32), active)

    def trained(states, steps):
        wave = one.of(len(states))
        program = Programs(wave).train(settings, AugmentSettings())
        state, metrics = program(wave.stack(states), wave.copies(images), steps)
        return wave.fetch(state), np.asarray(metrics["loss"])

    with quickly():
        ended, losses = trained([begun, other], steps)
        for fold, state in enumerate((begun, other)):
            alone, theirs = trained([state], Steps(*(x[fold : fold + 1] for x in steps)))
            on = active[fold]
            np.testing.assert_allclose(losses[fold, on], theirs[0, on], rtol=1e-4)
            assert int(alone[0].step) == on.sum()
            assert_same(ended[fold], alone[0], rtol=1e-3, atol=1e-5)
    assert abs(losses[0, 0] - losses[1, 0]) > 1e-3
