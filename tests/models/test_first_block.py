"""The first block's kernels for GPUs and TPUs: interpreted, against the plain form; lowered."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.conv_layer import (
    Features,
    Moments,
    forms,
    mosaic,
    pooling,
    reference,
    triton,
)
from mri_jax.models.conv_layer.arguments import Norm
from tests.compiling import QUICKLY
from tests.models import layers
from tests.models.layers import assert_same, random_layer, random_norm

TRITON, MOSAIC = "__gpu$xla.gpu.triton", "tpu_custom_call"


@pytest.fixture(params=[triton, mosaic], ids=["triton", "mosaic"])
def kernels(request, monkeypatch):
    """A module of kernels, whose interpreter conv layers run, wherever they are."""
    module = request.param
    form = forms._Form(
        partial(module.forward, interpret=True), partial(module.gradients, interpret=True)
    )
    monkeypatch.setattr(forms, "_taken", lambda *layer: {"default": form})
    return module


def selected(kernels, *given):
    """Returns what the forward kernel gives for volumes, kernel and sign."""
    run = partial(kernels.forward, pool=True, with_moments=True, keep_z=False, interpret=True)
    return jax.jit(lambda x, *rest: run(Features(x), *rest), compiler_options=QUICKLY)(*given)


def results(form, *given):
    """Returns what `layers.layer_results` does, traced anew."""
    return jax.jit(layers._layer_results, static_argnums=(0, 4), compiler_options=QUICKLY)(
        form, *given
    )


# Odd sizes, one block of windows and several, one group of filters and two; scales of either sign
# and 0; half of a volume is a constant background, where all windows tie.
@pytest.mark.parametrize(
    ("size", "filters", "train", "background"),
    [
        ((9, 10, 11), 16, True, -1.25),
        pytest.param((8, 7, 6), 8, False, -1.25, marks=pytest.mark.slow),
        pytest.param((14, 13, 15), 8, True, 0.0, marks=pytest.mark.slow),
        pytest.param((2, 3, 2), 8, True, 0.0, marks=pytest.mark.slow),
    ],
)
def test_the_first_block_agrees_with_the_plain_form(kernels, size, filters, train, background):
    with jax.enable_x64(True):
        arrays = random_layer(3, 2, size, 1, filters, background)
        of_layer = random_norm(5, filters)
        running = None if train else Moments(of_layer.mean, 0.5 + jnp.abs(of_layer.factor))
        given = arrays, None, running, True
        assert_same(results("pallas", *given), layers.layer_results("reference", *given), 1e-10)


def test_equal_voxels_tie_though_sums_are_rounded(kernels):
    x = jnp.full((1, 12, 12, 12, 1), 0.3)
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 1, 8)), jnp.float32)
    sign = jnp.array([1.0, -1, 0, 1, -1, 1, 1, -1])
    selection, _, _ = selected(kernels, x, kernel, sign)
    assert (selection.offset[:, 1:-1, 1:-1, 1:-1] == 0).all()


def test_a_voxel_that_is_not_a_number_is_selected(kernels):
    x = jnp.ones((1, 6, 6, 6, 1)).at[0, 5, 5, 5].set(jnp.nan)
    kernel = jnp.zeros((3, 3, 3, 1, 8)).at[1, 1, 1].set(1.0)
    selection, moments, _ = selected(kernels, x, kernel, jnp.ones(8))
    expected = pooling.select_windows(reference.convolve(x, kernel), jnp.ones(8))
    np.testing.assert_array_equal(selection.value, expected.value)
    np.testing.assert_array_equal(selection.offset, expected.offset)
    assert jnp.isnan(selection.value[0, 2, 2, 2]).all()
    assert jnp.isnan(moments.mean).all()


def test_bfloat16_is_rounded_where_it_is_written(kernels):
    x, kernel, scale, _ = random_layer(1, 2, (9, 8, 7), 1, 8, dtype="bfloat16")
    found = selected(kernels, x, kernel, jnp.sign(scale))
    wide = [p.astype("float32") for p in (x, kernel, jnp.sign(scale))]
    z = reference.convolve(*wide[:2])
    expected = pooling.select_windows(z, wide[2])
    np.testing.assert_array_equal(found[0].value, expected.value.astype("bfloat16"))
    np.testing.assert_allclose(found[1].mean, z.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1].variance, z.var((1, 2, 3)), rtol=1e-5)


def test_a_program_has_one_kernel_each_way():
    spec = CNNSpec(repetitions=(1, 1), filters=(8, 16), fc=(), dropout=(0,), dtype="bfloat16")
    x = jax.ShapeDtypeStruct((2, 12, 14, 13, 1), jnp.float32)
    variables = jax.eval_shape(lambda: CNN(spec).lazy_init(jax.random.key(0), x, train=False))

    def loss(variables, x):
        logits, _ = CNN(spec, forms=choice.PALLAS).apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        return logits.sum()

    def exported(platform):
        found = jax.export.export(
            jax.jit(jax.grad(loss, allow_int=True)),
            platforms=(platform,),
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(TRITON)],
        )(variables, x)
        return found.mlir_module()

    on_gpu = exported("cuda")
    assert on_gpu.count(f"custom_call @{TRITON}") == 2
    assert "first_block_forward" in on_gpu
    assert "first_block_backward" in on_gpu
    assert "convolution" in on_gpu  # The second layer has eight channels.
    on_tpu = exported("tpu")
    assert on_tpu.count(f"custom_call @{MOSAIC}") == 2
    assert TRITON not in on_tpu
    assert "custom_call" not in exported("cpu")


def test_layers_that_are_no_first_block_are_left_to_others():
    def fits(size, channels, filters, norm=None, dtype="bfloat16", pool=True, batch=2):
        x = jax.ShapeDtypeStruct((batch, *size, channels), dtype)
        kernel = jax.ShapeDtypeStruct((3, 3, 3, channels, filters), dtype)
        return [module.fits(Features(x, norm), kernel, pool=pool) for module in (triton, mosaic)]

    size = (181, 217, 181)
    assert fits(size, 1, 8) == [True, True]
    assert fits(size, 1, 40) == [True, True]
    assert fits(size, 1, 8, pool=False) == [False, False]
    assert fits(size, 8, 8) == [False, False]
    assert fits(size, 1, 8, norm=Norm(*[jnp.ones(1)] * 3)) == [False, False]
    assert fits(size, 1, 12) == [False, True]
    # More numbers than 32 bits count; more than a TPU's core holds.
    assert fits(size, 1, 8, batch=40) == [False, True]
    assert fits((512, 512, 512), 1, 8, batch=1) == [True, False]
