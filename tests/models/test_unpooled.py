"""A first layer that is not pooled: its kernels for NVIDIA GPUs, interpreted; lowered."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.backend import FEW_PASSES
from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.conv_layer import (
    Features,
    Moments,
    Parameters,
    Setting,
    conv_layer,
    triton_whole,
    unpooled,
)
from tests.models.layers import random_layer

TRITON = "__gpu$xla.gpu.triton"
KERNELS = ("moments", "maps", "maps_gradient", "moments_gradient")


@pytest.fixture
def interpreted(monkeypatch):
    """The kernels, interpreted, are what a layer takes; returns which were taken."""
    taken = set()

    def kernel(name):
        run = getattr(triton_whole, name)

        def call(*given, **more):
            taken.add(name)
            return run(*given, **more, interpret=True)

        return call

    for name in KERNELS:
        monkeypatch.setattr(triton_whole, name, kernel(name))
    monkeypatch.setattr(
        unpooled.lax,
        "platform_dependent",
        lambda *given, default, cuda=None: (cuda or default)(*given),
    )
    return taken


def results(form, x, parameters, running):
    """Returns maps and statistics of a layer, and the gradients of its parameters."""

    def layer(parameters):
        setting = Setting(False, epsilon=1e-5, form=form)
        features, stats = conv_layer(Features(x), parameters, running, setting)
        return features.activated(), stats

    def run(parameters):
        (output, stats), pull = jax.vjp(layer, parameters)
        weight = jnp.cos(jnp.arange(output.size, dtype=output.dtype)).reshape(output.shape)
        (gradients,) = pull((weight, jax.tree.map(jnp.zeros_like, stats)))
        return {"output": output, **stats._asdict(), **gradients._asdict()}

    return jax.jit(run, compiler_options=FEW_PASSES)(parameters)


# More voxels than a block has, of odd sizes; one group of filters and two; scales of either sign.
@pytest.mark.parametrize(("filters", "train"), [(16, True), (8, False)])
def test_the_layer_agrees_with_the_plain_form(interpreted, filters, train):
    x, kernel, scale, bias = random_layer(3, 2, (9, 7, 11), 1, filters, -1.25, dtype="float32")
    parameters = Parameters(kernel, scale, bias)
    running = None if train else Moments(bias, 0.5 + jnp.abs(scale))
    found = results("pallas", x, parameters, running)
    assert interpreted == set(KERNELS if train else KERNELS[1:3])
    for name, expected in results("reference", x, parameters, running).items():
        apart = np.linalg.norm(found[name] - expected) / np.linalg.norm(expected)
        assert apart < 2e-5, name


def test_the_gradient_of_the_volumes_is_that_of_the_plain_form():
    x, kernel, scale, bias = random_layer(4, 1, (6, 5, 7), 1, 8, 0.0, dtype="float32")
    parameters = Parameters(kernel, scale, bias)

    def score(form, x):
        setting = Setting(False, epsilon=1e-5, form=form)
        return jnp.square(conv_layer(Features(x), parameters, None, setting)[0].activated()).sum()

    found, expected = (jax.grad(partial(score, form))(x) for form in ("pallas", "reference"))
    np.testing.assert_allclose(found, expected, atol=1e-5 * jnp.abs(expected).max())


def test_a_program_for_nvidia_gpus_alone_has_the_kernels():
    spec = CNNSpec(repetitions=(2,), filters=(8,), fc=(), dropout=(0,), dtype="bfloat16")
    x = jax.ShapeDtypeStruct((2, 12, 14, 13, 1), jnp.float32)
    variables = jax.eval_shape(lambda: CNN(spec).lazy_init(jax.random.key(0), x, train=False))

    def loss(variables, x):
        network = CNN(spec, forms=choice.PALLAS)
        return network.apply(variables, x, train=True, mutable=["batch_stats"])[0].sum()

    def exported(platform):
        return jax.export.export(
            jax.jit(jax.grad(loss, allow_int=True)),
            platforms=(platform,),
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(TRITON)],
        )(variables, x).mlir_module()

    on_gpu = exported("cuda")
    assert on_gpu.count(f"custom_call @{TRITON}") == 4
    assert all(f"{name}_kernel" in on_gpu for name in KERNELS)
    assert "custom_call" not in exported("cpu")
    assert TRITON not in exported("tpu")


def test_other_layers_are_left_to_others():
    def fits(channels, filters, pool=False, dtype="bfloat16", batch=2):
        x = jax.ShapeDtypeStruct((batch, 181, 217, 181, channels), dtype)
        kernel = jax.ShapeDtypeStruct((3, 3, 3, channels, filters), dtype)
        return triton_whole.fits(Features(x), kernel, pool=pool)

    assert fits(1, 8)
    assert fits(1, 40, dtype="float32")
    assert not fits(1, 8, pool=True)
    assert not fits(8, 8)
    assert not fits(1, 12)
    assert not fits(1, 8, dtype="float64")
    assert not fits(1, 8, batch=40)  # more numbers than 32 bits count
