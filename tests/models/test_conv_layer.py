"""Every form of a conv layer against the plain one: layers by property, networks by example."""

import hashlib
import os
import subprocess
import sys
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.models import CNN, CNNSpec
from mri_jax.models.conv_layer import (
    Features,
    Moments,
    Parameters,
    Setting,
    conv_layer,
    forms,
    native,
    planes,
    pooling,
    reference,
    volume,
)
from mri_jax.models.conv_layer.arguments import Norm
from mri_jax.models.conv_layer.gradient import Everywhere, PreActivationGradient
from mri_jax.models.conv_layer.moments import of_volumes
from tests.conftest import ROOT, needs_compiler
from tests.networks import drawn


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def volumes(rng, shape, background):
    """Volumes of which a little more than half is a constant, as after skull stripping."""
    x = rng.normal(size=shape)
    x[:, : shape[1] // 2 + 1] = background
    x[:, :, :2] = background
    return x


@partial(jax.jit, static_argnums=(0, 4))
def layer_results(form, arrays, norm, running, pool):
    """Output, statistics and the gradients of all inputs of one conv layer."""

    def forward(x, kernel, scale, bias, norm):
        setting = Setting(pool, epsilon=1e-5, native=form == "native")
        given, rest = Features(x, norm), (Parameters(kernel, scale, bias), running, setting)
        if form == "reference":
            stages, stats = reference.conv_layer(given.activated(), *rest)
            return stages.output, stats
        output, stats = conv_layer(given, *rest)
        return output.activated(), stats

    (output, stats), pull = jax.vjp(forward, *arrays, norm)
    weight = jnp.cos(jnp.arange(output.size, dtype=output.dtype)).reshape(output.shape)
    zeros = jax.tree.map(jnp.zeros_like, stats)
    *found, of_norm = pull((weight, zeros))
    found = dict(zip(("x", "kernel", "scale", "bias"), found, strict=True))
    if norm is not None:
        found |= {f"{name} of the norm": p for name, p in of_norm._asdict().items()}
    return {"output": output, "mean": stats.mean, "variance": stats.variance} | found


def random_layer(seed, batch, size, channels, filters, background=0.0, dtype="float64"):
    """x, kernel, scale and bias of a layer."""
    rng = np.random.default_rng(seed)
    arrays = [
        volumes(rng, (batch, *size, channels), background),
        rng.normal(size=(3, 3, 3, channels, filters)),
        rng.choice([-1.5, -0.3, 0.0, 0.4, 1.2], size=filters),
        rng.normal(size=filters) + 0.5,
    ]
    return [jnp.asarray(a, dtype) for a in arrays]


def random_norm(seed, channels):
    """BatchNorm and ReLU of the layer before; a factor of 0 gives the same number everywhere."""
    rng = np.random.default_rng(seed)
    factor = rng.choice([-1.5, -0.3, 0.0, 0.4, 1.2], size=channels)
    return Norm(
        *(jnp.asarray(p) for p in (rng.normal(size=channels), factor, rng.normal(size=channels)))
    )


def assert_same(ours, theirs, tolerance=1e-9):
    for name, expected in theirs.items():
        error = np.abs(np.asarray(ours[name]) - np.asarray(expected)).max()
        assert error <= tolerance * max(1.0, np.abs(expected).max()), name


# Every example compiles two programs.
few, many = settings(max_examples=5, deadline=None), settings(max_examples=60, deadline=None)
FORMS = pytest.mark.parametrize("form", ["xla", pytest.param("native", marks=needs_compiler)])
LAYERS = given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 30)),
    channels=st.sampled_from([1, 2, 8, 17, 24, 32]),
    filters=st.sampled_from([1, 3, 8, 16, 18, 32, 40]),
    pool=st.booleans(),
    train=st.booleans(),
    normed=st.booleans(),
    background=st.sampled_from([0.0, -1.25]),
    seed=st.integers(0, 10),
)


def check_layer(form, batch, size, channels, filters, pool, train, normed, background, seed):
    size = tuple(max(s, 2) for s in size) if pool else size
    arrays = random_layer(seed, batch, size, channels, filters, background)
    norm, of_layer = (random_norm(seed + shift, n) for shift, n in ((1, channels), (2, filters)))
    running = None if train else Moments(of_layer.mean, 0.5 + jnp.abs(of_layer.factor))
    given = arrays, norm if normed else None, running, pool
    assert_same(layer_results(form, *given), layer_results("reference", *given), 1e-10)


@FORMS
@few
@LAYERS
def test_a_layer_agrees_with_the_plain_form(form, **layer):
    check_layer(form, **layer)


@pytest.mark.slow
@FORMS
@many
@LAYERS
def test_many_layers_agree_with_the_plain_form(form, **layer):
    check_layer(form, **layer)


def check_native_in_float32(batch, size, channels, filters, pool, normed, seed):
    """Every number that the kernels give in float32 against float64, from the same offsets.

    Inputs are multiples of 1/8, so that the norm is exact and ReLU's mask the same in both.
    """
    size = tuple(max(s, 2) for s in size) if pool else size
    rng = np.random.default_rng(seed)

    def eighths(*shape):
        return jnp.asarray(np.round(8 * rng.normal(size=shape)) / 8, jnp.float32)

    norm = Norm(eighths(channels), eighths(channels), eighths(channels)) if normed else None
    x, kernel = Features(eighths(batch, *size, channels), norm), eighths(3, 3, 3, channels, filters)
    sign = jnp.asarray(rng.choice([-1, 0, 1], filters), jnp.float32)
    selection, each, z = native.forward(x, kernel, sign, pool=pool, with_moments=True, keep_z=True)
    exact = jax.tree.map(lambda a: a.astype(jnp.float64), (x, kernel))
    expected, pull = jax.vjp(lambda x, k: reference.convolve(x.activated(), k), *exact)
    chosen = eighths(*selection.value.shape)
    everywhere = Everywhere(eighths(batch, filters), eighths(batch, filters))
    given = PreActivationGradient(chosen, selection.offset, everywhere, z)
    back = native.gradients(x, kernel, given, pool=pool, for_input=True, for_kernel=True)
    dz = chosen
    if pool:
        own = pooling.select_windows(z, sign)
        jax.tree.map(np.testing.assert_array_equal, selection, own)
        dz = pooling.scatter_windows(chosen, selection.offset, z.shape)
    constant, slope = (p[:, None, None, None] for p in everywhere)
    dx, dk = pull(dz.astype(jnp.float64) + constant + slope * expected)
    found = {"z": z, "mean": each.mean, "variance": each.variance, "kernel": back.kernel}
    right = {"z": expected, "kernel": dk, **of_volumes(expected)._asdict()}
    of_input = jax.tree.leaves(back.x), jax.tree.leaves(dx)
    found |= {f"input {i}": leaf for i, leaf in enumerate(of_input[0])}
    right |= {f"input {i}": leaf for i, leaf in enumerate(of_input[1])}
    assert_same(found, right, 2e-5)


FLOAT32_LAYERS = given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 70)),
    channels=st.sampled_from([1, 3, 8, 16, 24, 32]),
    filters=st.sampled_from([2, 8, 16, 24, 32, 40]),
    pool=st.booleans(),
    normed=st.booleans(),
    seed=st.integers(0, 10),
)


@needs_compiler
@few
@FLOAT32_LAYERS
def test_native_kernels_in_float32_agree_with_float64(**layer):
    check_native_in_float32(**layer)


@pytest.mark.slow
@needs_compiler
@settings(max_examples=200, deadline=None)
@FLOAT32_LAYERS
def test_native_kernels_in_float32_agree_with_float64_in_many_layers(**layer):
    check_native_in_float32(**layer)


@needs_compiler
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("channels", [1, 8])
def test_native_kernels_keep_nan_and_infinity(channels, normed):
    arrays = random_layer(0, 1, (4, 6, 8), channels, 8, -1.25, "float32")
    norm = None
    if normed:
        numbers = random_norm(0, channels)
        norm = Norm(*(p.astype("float32") for p in numbers._replace(factor=numbers.factor + 2)))
    ones = jnp.ones(8, jnp.float32)
    for bad in (np.nan, np.inf):
        x = Features(arrays[0].at[0, 3, 1, 2, 0].set(bad), norm)
        for sign in (ones, -ones, 0 * ones):
            ours = native.forward(x, arrays[1], sign, pool=True, with_moments=True, keep_z=True)
            z = reference.convolve(x.activated(), arrays[1])
            assert not np.isfinite(z).all()
            theirs = pooling.select_windows(z, sign)
            np.testing.assert_array_equal(np.isfinite(ours[2]), np.isfinite(z))
            np.testing.assert_array_equal(
                ours[0].offset, pooling.select_windows(ours[2], sign).offset
            )
            np.testing.assert_array_equal(np.isnan(ours[0].value), np.isnan(theirs.value))
            assert not np.isfinite(ours[1].mean).any()
            assert np.isnan(ours[1].variance).all()


@needs_compiler
def test_native_kernels_tie_to_the_last_bit(rng):
    # A constant that no product represents exactly, in rows long enough for tiles of two sizes.
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 8, 16)), jnp.float32)
    for channels, filters in product((1, 8), (8, 16)):
        ones = jnp.ones(filters, jnp.float32)
        x = Features(jnp.full((1, 6, 8, 58, channels), -0.7, jnp.float32))
        weights = kernel[:, :, :, :channels, :filters]
        selection, _, z = native.forward(
            x, weights, ones, pool=True, with_moments=False, keep_z=True
        )
        inside = z[:, 1:-1, 1:-1, 1:-1]
        assert (inside == inside[:, :1, :1, :1]).all()
        assert (selection.offset[:, 1:-1, 1:-1, 1:-1] == 0).all()


@needs_compiler
@pytest.mark.parametrize("channels", [1, 8])
def test_native_kernels_train_in_bfloat16_as_xla_does(channels):
    arrays = random_layer(0, 2, (4, 6, 8), channels, 8, 0.0, "float32")
    x = arrays[0].astype(jnp.bfloat16)
    found = [layer_results(form, [x, *arrays[1:]], None, None, False) for form in ("native", "xla")]
    for name, expected in found[1].items():
        assert found[0][name].dtype == expected.dtype
        apart = np.abs(np.asarray(found[0][name], float) - np.asarray(expected, float)).max()
        assert apart <= 0.05 * np.abs(np.asarray(expected, float)).max(), name


def digest_of_kernels():
    """Prints a hash of what the native kernels give for layers of many tasks."""
    digest = hashlib.sha256()
    for channels, size in ((1, (9, 60, 40)), (16, (5, 40, 30)), (64, (3, 4, 3))):
        x, kernel, scale, _ = random_layer(3, 2, size, channels, 32, dtype="float32")
        norm = random_norm(3, channels) if channels > 1 else None
        x = Features(x, jax.tree.map(lambda p: p.astype(jnp.float32), norm))
        forward = native.forward(
            x, kernel, jnp.sign(scale), pool=True, with_moments=True, keep_z=True
        )
        selection, each, z = forward
        given = PreActivationGradient(selection.value, selection.offset, Everywhere(*each), z)
        back = native.gradients(x, kernel, given, pool=True, for_input=True, for_kernel=True)
        for leaf in jax.tree.leaves((forward, back)):
            digest.update(np.asarray(leaf).tobytes())
    print(digest.hexdigest())


@needs_compiler
def test_a_volume_gives_the_same_bytes_in_any_batch():
    x, kernel, scale, _ = random_layer(4, 3, (9, 20, 13), 16, 32, dtype="float32")
    norm = jax.tree.map(lambda p: p.astype(jnp.float32), random_norm(4, 16))
    sign = jnp.sign(scale)

    def results(x):
        x = Features(x, norm)
        selection, each, z = native.forward(
            x, kernel, sign, pool=True, with_moments=True, keep_z=True
        )
        given = PreActivationGradient(selection.value, selection.offset, Everywhere(*each), z)
        back = native.gradients(x, kernel, given, pool=True, for_input=True, for_kernel=True)
        return (selection, each, z, back.x.value), (back.x.norm, back.kernel)

    whole, summed = results(x)
    apart = [results(x[i : i + 1]) for i in range(3)]
    for one, parts in zip(
        jax.tree.leaves(whole),
        zip(*(jax.tree.leaves(a[0]) for a in apart), strict=True),
        strict=True,
    ):
        np.testing.assert_array_equal(one, np.concatenate(parts))
    total = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *(a[1] for a in apart))
    np.testing.assert_array_equal(summed[1], total[1])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), summed[0], total[0])


@needs_compiler
def test_native_kernels_give_equal_bytes_on_any_number_of_threads():
    code = "from tests.models.test_conv_layer import digest_of_kernels; digest_of_kernels()"
    threads = (
        "import re; print(re.search(r'Threads:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    said = []
    for count in (1, 3, 64):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}; {threads}"],
            cwd=ROOT, env={**os.environ, "NPROC": str(count)},
            capture_output=True, encoding="utf-8", timeout=300, check=True,
        )  # fmt: skip
        digest, running = done.stdout.split()
        assert int(running) >= count
        said.append(digest)
    assert said == said[:1] * 3


@pytest.mark.slow
@needs_compiler
def test_ten_thousand_calls_from_two_devices_at_once_end():
    code = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
from tests.models.test_conv_layer import *
x, kernel, scale, _ = random_layer(0, 2, (6, 8, 9), 8, 16, dtype="float32")
call = jax.pmap(lambda x: native.forward(
    Features(x), kernel, scale, pool=True, with_moments=True, keep_z=True))
first, rest = call(x[:, None]), [call(x[:, None]) for _ in range(4999)]
for found in rest:
    jax.tree.map(np.testing.assert_array_equal, found, first)
print(2 * (1 + len(rest)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=600, check=True,
    )  # fmt: skip
    assert done.stdout == "10000\n"


def test_ties_send_the_gradient_to_the_first_maximum():
    # A constant volume ties everywhere: all gradient must go to the first voxel of each window.
    z = jnp.zeros((1, 4, 6, 8, 3))
    for sign in (1.0, -1.0, 0.0):
        selection = pooling.select_windows(z, jnp.full(3, sign))
        assert (selection.offset == 0).all()
    spread = pooling.scatter_windows(jnp.ones((1, 2, 3, 4, 3)), selection.offset, z.shape)
    assert spread.sum() == 2 * 3 * 4 * 3
    assert (spread[:, ::2, ::2, ::2] == 1).all()


def test_scatter_is_the_transpose_of_selection(rng):
    z = jnp.asarray(rng.normal(size=(2, 5, 6, 7, 3)))
    sign = jnp.array([1.0, -1.0, 1.0])
    selection = pooling.select_windows(z, sign)
    g = jnp.asarray(rng.normal(size=selection.value.shape))
    spread = pooling.scatter_windows(g, selection.offset, z.shape)
    np.testing.assert_allclose((spread * z).sum(), (g * selection.value).sum(), rtol=1e-12)


@pytest.mark.parametrize(("channels", "filters"), [(3, 5), (5, 16), (17, 20), (20, 16)])
def test_both_forms_of_the_convolution_and_its_gradients(rng, channels, filters):
    x = jnp.asarray(rng.normal(size=(2, 3, 5, 4, channels)))
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, channels, filters)))
    dz = jnp.asarray(rng.normal(size=(2, 3, 5, 4, filters)))
    _, pull = jax.vjp(reference.convolve, x, kernel)
    dx, dk = pull(dz)
    close = {"rtol": 1e-10, "atol": 1e-10}
    expected = reference.convolve(x, kernel)
    np.testing.assert_allclose(planes.convolve(x, kernel), expected, **close)
    np.testing.assert_allclose(planes.convolve(dz, forms.flipped(kernel)), dx, **close)
    np.testing.assert_allclose(planes.kernel_gradient(x, dz), dk, **close)
    np.testing.assert_allclose(volume.kernel_gradient(x, dz), dk, **close)


@pytest.mark.parametrize("group", [1, 2])
def test_the_kernels_gradient_in_several_slabs_of_a_volume_equals_one(rng, monkeypatch, group):
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3, 2)))
    dz = jnp.asarray(rng.normal(size=(2, 4, 5, 3, 6)))
    whole = planes.kernel_gradient(x, dz)
    numbers = 5 * 3 * (9 * 2 + 3 * 6)
    monkeypatch.setattr(planes, "SLAB_NUMBERS", group * numbers)
    assert planes.planes_per_slab(4, numbers) == group
    slabs = planes.kernel_gradient(x, dz)
    np.testing.assert_allclose(slabs, whole, rtol=1e-12, atol=1e-12)


def test_equal_neighbourhoods_tie_to_the_last_bit_wherever_they_lie(rng):
    # A constant that no product represents exactly: one other order of summation, and the maximum
    # would be chosen by rounding.
    x = jnp.full((1, 10, 8, 12, 1), -0.7, jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 1, 8)), jnp.float32)
    selection = pooling.select_windows(planes.convolve(x, kernel), jnp.ones(8, jnp.float32))
    assert (selection.offset[:, 1:-1, 1:-1, 1:-1] == 0).all()


def network_results(forms, spec, variables, x, labels, train):
    model = CNN(spec, forms=forms)

    def loss_of(params, x):
        stats = variables["batch_stats"]
        logits = model.apply(
            {"params": params, "batch_stats": stats},
            x,
            train=train,
            mutable=["batch_stats"] if train else False,
        )
        logits, updated = logits if train else (logits, {})
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, updated)

    run = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True))
    (loss, (logits, updated)), gradients = run(variables["params"], x)
    return {"loss": loss, "logits": logits, "updated": updated, "gradients": gradients}


def check_network(rng, name, shape, batch, train):
    check_spec(rng, CNNSpec.preset(name, width=0.25, **EXACT), shape, batch, train, "xla")


def check_spec(rng, spec, shape, batch, train, forms):
    x = jnp.asarray(volumes(rng, (batch, *shape, 1), -0.7))
    variables = drawn(spec, shape, rng)
    labels = jnp.arange(batch) % 2
    given = (spec, variables, x, labels, train)
    ours = jax.tree.leaves(network_results(forms, *given))
    theirs = jax.tree.leaves(network_results("reference", *given))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8 * max(1.0, np.abs(b).max()))


EXACT = {"dtype": "float64", "dropout": (0, 0, 0)}


def lowered(forms, platform):
    """The text of the gradient of a network of two conv layers as one platform gets it."""
    spec = CNNSpec(repetitions=(1, 1), filters=(8, 8), fc=(), dropout=(0,))
    x = jax.ShapeDtypeStruct((2, 8, 9, 10, 1), jnp.float32)
    variables = jax.eval_shape(partial(CNN(spec).lazy_init, train=False), jax.random.key(0), x)

    def loss(params, x):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        given["batch_stats"] = jax.tree.map(
            lambda a: jnp.ones(a.shape, a.dtype), given["batch_stats"]
        )
        network = CNN(spec, forms=forms)
        return network.apply(given, x, train=True, mutable=["batch_stats"])[0].sum()

    traced = jax.jit(jax.grad(loss)).trace(variables["params"], x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("forms", ["xla", pytest.param("native", marks=needs_compiler)])
def test_a_program_holds_the_form_of_the_platform_that_it_is_for(forms, monkeypatch):
    on_gpu, on_cpu = lowered(forms, "cuda"), lowered(forms, "cpu")
    # Forward, and the gradients of both kernels and of the second layer's input. The first layer
    # keeps no pre-activation and is convolved once more.
    assert on_gpu.count("[b, 0, 1, 2, f]x[0, 1, 2, i, o]") == 4
    assert "[b, 0, 1, 2, f]" not in on_cpu
    assert ("conv3_backward" in on_cpu) == (forms == "native")
    assert "conv3" not in on_gpu
    # A host whose default is a GPU computes on its CPU as a host without one.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert lowered(forms, "cpu") == on_cpu


SIZES = list(product((32, 33), (34, 35), (37, 38)))


# Members of the family are held to independent results in test_reference_results.py.
@pytest.mark.parametrize("forms", ["xla", pytest.param("native", marks=needs_compiler)])
def test_a_network_agrees_with_the_plain_form(rng, forms):
    spec = CNNSpec(repetitions=(1, 2), filters=(8, 16), fc=(8, 4), **EXACT)
    check_spec(rng, spec, (9, 10, 11), 3, train=False, forms=forms)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn5", "cnn7", "cnn10", "cnn12"])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("train", [True, False])
def test_every_member_and_parity_agrees_with_the_plain_form(rng, name, shape, train):
    check_network(rng, name, shape, 1 + (sum(shape) % 4), train)
