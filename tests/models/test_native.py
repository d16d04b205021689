"""The native kernels: number by number, at ties, without memory of threads, batches or calls."""

import hashlib
import subprocess
import sys
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.models.conv_layer import Features, forms, native, pooling, reference
from mri_jax.models.conv_layer.arguments import Norm
from mri_jax.models.conv_layer.gradient import Everywhere, PreActivationGradient
from tests.compiling import QUICKLY
from tests.conftest import ROOT, needs_compiler
from tests.models.layers import (
    assert_same,
    convolve,
    convolve_gradients,
    layer_results,
    random_layer,
    random_norm,
)

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def by_fewer_passes(function):
    """Returns a function as one program; for what the kernels are compared with."""
    return jax.jit(function, compiler_options=QUICKLY)


forward = jax.jit(native.forward, static_argnames=("pool", "with_moments", "keep_z"))
gradients = jax.jit(native.gradients, static_argnames=("pool", "for_input", "for_kernel"))
select_windows = by_fewer_passes(pooling.select_windows)
activated_with_pull = by_fewer_passes(lambda x: jax.vjp(Features.activated, x))
scatter_windows = jax.jit(
    pooling.scatter_windows, static_argnames="shape", compiler_options=QUICKLY
)


def check_in_float32(batch, size, channels, filters, pool, normed, train, wanted, seed):
    """Every number that the kernels give in float32 against float64, from the same offsets.

    Inputs are multiples of 1/8, so that the norm is exact and ReLU's mask the same in both.
    """
    size = tuple(max(s, 2) for s in size) if pool else size
    rng = np.random.default_rng(seed)

    def eighths(*shape):
        return (np.round(8 * rng.normal(size=shape)) / 8).astype(np.float32)

    norm = Norm(eighths(channels), eighths(channels), eighths(channels)) if normed else None
    x, kernel = Features(eighths(batch, *size, channels), norm), eighths(3, 3, 3, channels, filters)
    sign = rng.choice([-1, 0, 1], filters).astype(np.float32)
    run = partial(forward, x, kernel, sign, pool=pool)
    selection, each, z = run(with_moments=True, keep_z=True)
    # What is not asked for changes nothing of the rest.
    alone, nothing, no_z = run(with_moments=False, keep_z=False)
    assert nothing is None
    assert no_z is None
    jax.tree.map(np.testing.assert_array_equal, alone, selection)
    exact = jax.tree.map(lambda a: a.astype(np.float64), (x, kernel))
    features, pull = activated_with_pull(exact[0])
    features = np.asarray(features)
    expected = convolve(features, exact[1])
    dz = chosen = eighths(*selection.value.shape)
    if pool:
        own = select_windows(z, sign)
        jax.tree.map(np.testing.assert_array_equal, selection, own)
        dz = scatter_windows(chosen, selection.offset, shape=z.shape)
    dz, everywhere = np.asarray(dz, np.float64), None
    if train:
        everywhere = Everywhere(eighths(batch, filters), eighths(batch, filters))
        constant, slope = (p[:, None, None, None] for p in everywhere)
        dz = dz + constant + slope * expected
    needless = not train or forms.Layer(pool).computes_again(x)
    given = PreActivationGradient(chosen, selection.offset, everywhere, None if needless else z)
    back = gradients(
        x, kernel, given, pool=pool, for_input="x" in wanted, for_kernel="kernel" in wanted
    )
    assert (back.x is not None, back.kernel is not None) == ("x" in wanted, "kernel" in wanted)
    found = {"z": z, "mean": each.mean, "variance": each.variance}
    volumes = (1, 2, 3)
    right = {"z": expected, "mean": expected.mean(volumes), "variance": expected.var(volumes)}
    dx, dk = convolve_gradients(features, exact[1], dz)
    if "kernel" in wanted:
        found["kernel"], right["kernel"] = back.kernel, dk
    if "x" in wanted:
        (dx,) = pull(jnp.asarray(dx))
        for i, leaves in enumerate(zip(jax.tree.leaves(back.x), jax.tree.leaves(dx), strict=True)):
            found[f"input {i}"], right[f"input {i}"] = leaves
    assert_same(found, right, 2e-5)


FLOAT32_LAYERS = given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 70)),
    channels=st.sampled_from([1, 3, 8, 16, 24, 32]),
    filters=st.sampled_from([2, 8, 16, 24, 32, 40]),
    pool=st.booleans(),
    normed=st.booleans(),
    train=st.booleans(),
    wanted=st.sampled_from([("x",), ("kernel",), ("x", "kernel")]),
    seed=st.integers(0, 10),
)


@settings(max_examples=10, deadline=None)
@FLOAT32_LAYERS
def test_kernels_in_float32_agree_with_float64(**layer):
    check_in_float32(**layer)


# Layers that are worked on in tiles, by Winograd's products.
TILED_LAYERS = given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(3, 11), st.integers(9, 20), st.integers(25, 40)),
    channels=st.sampled_from([32, 64]),
    filters=st.sampled_from([32, 64, 96]),
    pool=st.booleans(),
    normed=st.booleans(),
    train=st.booleans(),
    wanted=st.sampled_from([("x",), ("kernel",), ("x", "kernel")]),
    seed=st.integers(0, 10),
)


@settings(max_examples=4, deadline=None)
@TILED_LAYERS
def test_kernels_in_tiles_agree_with_float64(**layer):
    check_in_float32(**layer)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@TILED_LAYERS
def test_kernels_in_tiles_agree_with_float64_in_many_layers(**layer):
    check_in_float32(**layer)


@pytest.mark.parametrize("pool", [False, True])
def test_tiles_are_exact_in_float64(pool):
    arrays, norm = random_layer(5, 2, (5, 11, 26), 32, 64), random_norm(6, 32)
    given = arrays, norm, None, pool
    assert_same(layer_results("native", *given), layer_results("reference", *given), 1e-10)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@FLOAT32_LAYERS
def test_kernels_in_float32_agree_with_float64_in_many_layers(**layer):
    check_in_float32(**layer)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("channels", [1, 8])
def test_kernels_keep_nan_and_infinity(channels, normed):
    arrays = random_layer(0, 1, (4, 6, 8), channels, 8, -1.25, "float32")
    norm = None
    if normed:
        numbers = random_norm(0, channels)
        norm = Norm(*(p.astype("float32") for p in numbers._replace(factor=numbers.factor + 2)))
    ones = jnp.ones(8, jnp.float32)
    for bad in (np.nan, np.inf):
        x = Features(arrays[0].at[0, 3, 1, 2, 0].set(bad), norm)
        for sign in (ones, -ones, 0 * ones):
            ours = forward(x, arrays[1], sign, pool=True, with_moments=True, keep_z=True)
            z = reference.convolve(x.activated(), arrays[1])
            assert not np.isfinite(z).all()
            theirs = select_windows(z, sign)
            np.testing.assert_array_equal(np.isfinite(ours[2]), np.isfinite(z))
            np.testing.assert_array_equal(ours[0].offset, select_windows(ours[2], sign).offset)
            np.testing.assert_array_equal(np.isnan(ours[0].value), np.isnan(theirs.value))
            assert not np.isfinite(ours[1].mean).any()
            assert np.isnan(ours[1].variance).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_tiles_keep_what_is_not_finite(rng, bad):
    x = jnp.asarray(rng.normal(size=(1, 8, 10, 20, 32)), jnp.float32).at[0, 3, 4, 7, 5].set(bad)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 32, 32)), jnp.float32)
    _, each, z = forward(
        Features(x), kernel, jnp.ones(32), pool=False, with_moments=True, keep_z=True
    )
    finite = np.isfinite(reference.convolve(x, kernel))
    assert (~finite).all(axis=-1).sum() == 27
    np.testing.assert_array_equal(np.isfinite(z), finite)
    assert not np.isfinite(each.mean).any()


def test_kernels_tie_to_the_last_bit(rng):
    # A constant that no product represents exactly, in rows long enough for tiles of two sizes.
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 32, 32)), jnp.float32)
    for channels, filters in (*product((1, 8), (8, 16)), (32, 32)):
        ones = jnp.ones(filters, jnp.float32)
        x = Features(jnp.full((1, 6, 8, 58, channels), -0.7, jnp.float32))
        weights = kernel[:, :, :, :channels, :filters]
        selection, _, z = forward(x, weights, ones, pool=True, with_moments=False, keep_z=True)
        inside = z[:, 1:-1, 1:-1, 1:-1]
        assert (inside == inside[:, :1, :1, :1]).all()
        assert (selection.offset[:, 1:-1, 1:-1, 1:-1] == 0).all()


@pytest.mark.parametrize("channels", [1, 8])
def test_kernels_train_in_bfloat16_as_xla_does(channels):
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
    sizes = (9, 60, 57), (5, 40, 30), (5, 40, 30), (3, 4, 3), (9, 40, 30)
    layers = zip((1, 24, 16, 64, 32), (8, 40, 32, 32, 64), sizes, strict=True)
    for channels, filters, size in layers:
        x, kernel, scale, _ = random_layer(3, 2, size, channels, filters, dtype="float32")
        norm = random_norm(3, channels) if channels > 1 else None
        x = Features(x, jax.tree.map(lambda p: p.astype(jnp.float32), norm))
        there = forward(x, kernel, jnp.sign(scale), pool=True, with_moments=True, keep_z=True)
        selection, each, z = there
        given = PreActivationGradient(selection.value, selection.offset, Everywhere(*each), z)
        back = gradients(x, kernel, given, pool=True, for_input=True, for_kernel=True)
        for leaf in jax.tree.leaves((there, back)):
            digest.update(np.asarray(leaf).tobytes())
    print(digest.hexdigest())


@pytest.mark.parametrize(("channels", "filters"), [(16, 32), (24, 40), (32, 64)])
def test_a_volume_gives_the_same_bytes_in_any_batch(channels, filters):
    x, kernel, scale, _ = random_layer(4, 3, (9, 20, 13), channels, filters, dtype="float32")
    norm = jax.tree.map(lambda p: p.astype(jnp.float32), random_norm(4, channels))
    sign = jnp.sign(scale)

    def results(x):
        x = Features(x, norm)
        selection, each, z = forward(x, kernel, sign, pool=True, with_moments=True, keep_z=True)
        given = PreActivationGradient(selection.value, selection.offset, Everywhere(*each), z)
        back = gradients(x, kernel, given, pool=True, for_input=True, for_kernel=True)
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


# XLA takes the number of threads when it starts, in copies of a process that has imported it.
_ON_THREADS = """
import os, re, sys
from tests.models.test_native import digest_of_kernels
for count in sys.argv[1:]:
    if os.fork() == 0:
        os.environ["NPROC"] = count
        digest_of_kernels()
        with open("/proc/self/status") as status:
            print(re.search(r"Threads:\\s*(\\d+)", status.read())[1], flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def test_kernels_give_equal_bytes_on_any_number_of_threads():
    counts = (1, 3, 64)
    done = subprocess.run(
        [sys.executable, "-c", _ON_THREADS, *map(str, counts)],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300, check=True,
    )  # fmt: skip
    said = done.stdout.split()
    for count, running in zip(counts, said[1::2], strict=True):
        assert int(running) >= count
    assert len(set(said[::2])) == 1


@pytest.mark.slow
def test_ten_thousand_calls_from_two_devices_at_once_end():
    code = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
from tests.models.test_native import *
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
