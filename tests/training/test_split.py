"""A batch in parts against the same batch in one piece; `vmap` stands for the devices here."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.keys import random_key, typed_key
from mri_jax.models import CNNSpec
from mri_jax.models.conv_layer.moments import of_volumes, of_whole_batch
from mri_jax.training.augment import AugmentSettings, augment
from mri_jax.training.state import Batch
from mri_jax.training.step import (
    LossSettings,
    OptimizerSettings,
    StepSettings,
    init_state,
    train_step,
)
from tests.compiling import QUICKLY
from tests.networks import drawn

SHAPE = (9, 12, 11)
# What stands for devices is a program that no user compiles.
quick = partial(jax.jit, compiler_options=QUICKLY)


def batch_of(size):
    rng = np.random.default_rng(3)
    image = rng.normal(size=(size, *SHAPE, 1))
    image[:, :, 7:] = -0.75
    # Volumes of unlike brightness: the variance between the parts counts.
    image += 3.0 * np.arange(size).reshape(-1, 1, 1, 1, 1)
    weight = np.linspace(0.5, 2.0, size)
    return Batch(jnp.asarray(image), jnp.arange(size) % 2, jnp.asarray(weight))


@pytest.mark.parametrize(
    ("forms", "size", "parts", "options"),
    [
        ("xla", 6, 3, {}),
        ("reference", 4, 2, {}),
        ("xla", 4, 2, {"attention": "cbam"}),
        ("xla", 4, 2, {"norm": "group", "residual": True}),
    ],
)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(forms, size, parts, options):
    with jax.enable_x64(True):
        small = {"repetitions": (1,), "filters": (4,), "fc": (8,), "dropout": (0.5, 0.3)}
        spec = CNNSpec(**small, dtype="float64", **options)
        settings = StepSettings(
            spec,
            OptimizerSettings(learning_rate=1e-2, clip_norm=1.0),
            LossSettings(label_smoothing=0.1),
        )
        variables = drawn(spec, SHAPE, np.random.default_rng(1))
        signs = jnp.array([1.0, -1.0, 1.0, -1.0])
        variables["params"][spec.norm_names[0]]["scale"] = signs
        state = init_state(settings, variables, random_key(1, "dropout"))
        batch = batch_of(size)
        split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
        in_part = partial(train_step, settings, batch_axis="part", forms=forms)
        step = quick(jax.vmap(in_part, (None, 0), axis_name="part"))
        in_one = quick(partial(train_step, settings, forms=forms))
        whole = in_one(state, batch)
        found = step(state, split)
        close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
        for part in range(parts):
            jax.tree.map(close, jax.tree.map(lambda x, part=part: x[part], found), whole)
        moved = whole[0].params["conv1"]["kernel"] - state.params["conv1"]["kernel"]
        assert jnp.abs(moved).max() > 1e-3
        # What is not finite in one part leaves every part's state as it was.
        broken = split.replace(image=split.image.at[-1, 0, 2, 3, 4].set(jnp.nan))
        kept, told = step(state, broken)
        np.testing.assert_array_equal(told["finite"], np.zeros(parts))
        for part in range(parts):
            one = jax.tree.map(lambda x, part=part: x[part], kept)
            jax.tree.map(np.testing.assert_array_equal, one.variables, state.variables)


def test_parts_share_their_moments_exactly_despite_a_large_offset():
    z = np.random.default_rng(0).normal(size=(4, 3, 2, 5, 6)) + 1e4 * np.arange(4).reshape(
        4, 1, 1, 1, 1
    )
    with jax.enable_x64(True):
        shared = jax.vmap(lambda part: of_whole_batch(of_volumes(part), "part"), axis_name="part")
        mean, variance = shared(jnp.asarray(z).reshape(2, 2, 3, 2, 5, 6))
    np.testing.assert_allclose(mean, np.tile(z.mean((0, 1, 2, 3)), (2, 1)), rtol=1e-12)
    np.testing.assert_allclose(variance, np.tile(z.var((0, 1, 2, 3)), (2, 1)), rtol=1e-12)


def test_a_volume_is_altered_alike_in_parts_and_in_one_piece():
    settings = AugmentSettings(flip=True, shift=1, intensity=0.1, noise=0.2)
    image = jnp.asarray(batch_of(4).image, jnp.float32)
    key = typed_key(random_key(5, "augment"))
    whole = quick(partial(augment, settings))(key, image)
    alter = quick(jax.vmap(lambda part: augment(settings, key, part, "part"), axis_name="part"))
    parts = alter(image.reshape(2, 2, *image.shape[1:]))
    np.testing.assert_allclose(parts.reshape(image.shape), whole, atol=1e-6)
    assert not np.allclose(whole[0] - image[0], whole[2] - image[2])
