"""The first block's kernels for GPUs: interpreted, against the plain form; lowered for a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.conv_layer import Features, Moments, forms, pallas, pooling, reference
from mri_jax.models.conv_layer.arguments import Norm
from tests.models import layers
from tests.models.layers import assert_same, random_layer, random_norm

TRITON = "__gpu$xla.gpu.triton"


@pytest.fixture
def interpreted(monkeypatch):
    """Conv layers of form ``pallas`` run the kernels' interpreter, wherever they are."""
    form = forms._Form(
        partial(pallas.forward, interpret=True), partial(pallas.gradients, interpret=True)
    )
    monkeypatch.setattr(forms, "_taken", lambda *layer: {"default": form})


def results(form, *given):
    """Returns what `layers.layer_results` does, traced anew."""
    return jax.jit(layers._layer_results, static_argnums=(0, 4))(form, *given)


# Odd sizes, one block of windows and several, one group of filters and two; scales of either sign
# and 0; half of a volume is a constant background, where all windows tie.
@pytest.mark.parametrize(
    ("size", "filters", "train", "background"),
    [
        ((9, 10, 11), 8, True, -1.25),
        ((14, 13, 15), 16, True, 0.0),
        ((2, 3, 2), 8, True, 0.0),
        ((8, 7, 6), 8, False, -1.25),
    ],
)
def test_the_first_block_agrees_with_the_plain_form(interpreted, size, filters, train, background):
    with jax.enable_x64(True):
        arrays = random_layer(3, 2, size, 1, filters, background)
        of_layer = random_norm(5, filters)
        running = None if train else Moments(of_layer.mean, 0.5 + jnp.abs(of_layer.factor))
        given = arrays, None, running, True
        assert_same(results("pallas", *given), layers.layer_results("reference", *given), 1e-10)


def test_equal_voxels_tie_though_sums_are_rounded():
    x = Features(jnp.full((1, 12, 12, 12, 1), 0.3))
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 1, 8)), jnp.float32)
    sign = jnp.array([1.0, -1, 0, 1, -1, 1, 1, -1])
    selection, _, _ = pallas.forward(
        x, kernel, sign, pool=True, with_moments=False, keep_z=False, interpret=True
    )
    assert (selection.offset[:, 1:-1, 1:-1, 1:-1] == 0).all()


def test_a_voxel_that_is_not_a_number_is_selected():
    x = jnp.ones((1, 6, 6, 6, 1)).at[0, 5, 5, 5].set(jnp.nan)
    kernel = jnp.zeros((3, 3, 3, 1, 8)).at[1, 1, 1].set(1.0)
    selection, moments, _ = pallas.forward(
        Features(x), kernel, jnp.ones(8), pool=True, with_moments=True, keep_z=False, interpret=True
    )
    expected = pooling.select_windows(reference.convolve(x, kernel), jnp.ones(8))
    np.testing.assert_array_equal(selection.value, expected.value)
    np.testing.assert_array_equal(selection.offset, expected.offset)
    assert jnp.isnan(selection.value[0, 2, 2, 2]).all()
    assert jnp.isnan(moments.mean).all()


def test_bfloat16_is_rounded_where_it_is_written():
    x, kernel, scale, _ = random_layer(1, 2, (9, 8, 7), 1, 8, dtype="bfloat16")
    found = pallas.forward(
        Features(x),
        kernel,
        jnp.sign(scale),
        pool=True,
        with_moments=True,
        keep_z=False,
        interpret=True,
    )
    wide = [p.astype("float32") for p in (x, kernel, jnp.sign(scale))]
    z = reference.convolve(*wide[:2])
    expected = pooling.select_windows(z, wide[2])
    np.testing.assert_array_equal(found[0].value, expected.value.astype("bfloat16"))
    np.testing.assert_allclose(found[1].mean, z.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1].variance, z.var((1, 2, 3)), rtol=1e-5)


def test_a_gpu_program_has_one_kernel_each_way():
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
    # The second layer has eight channels; and TPUs have a form of their own.
    assert "convolution" in on_gpu
    assert TRITON not in exported("tpu")


def test_layers_that_are_no_first_block_are_left_to_others():
    def fits(size, channels, filters, norm=None, dtype="bfloat16", pool=True, batch=2):
        x = jax.ShapeDtypeStruct((batch, *size, channels), dtype)
        kernel = jax.ShapeDtypeStruct((3, 3, 3, channels, filters), dtype)
        return pallas.fits(Features(x, norm), kernel, pool=pool)

    size = (181, 217, 181)
    assert fits(size, 1, 8)
    assert fits(size, 1, 40)
    assert not fits(size, 1, 8, pool=False)
    assert not fits(size, 8, 8)
    assert not fits(size, 1, 12)
    assert not fits(size, 1, 8, norm=Norm(*[jnp.ones(1)] * 3))
    assert not fits(size, 1, 8, batch=40)  # More numbers than 32 bits count.
