"""Every form of a conv layer against the plain one: layers by property, networks by example."""

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
    lanes,
    moments,
    planes,
    pooling,
    reference,
    volume,
)
from tests.compiling import QUICKLY
from tests.conftest import needs_compiler
from tests.models.layers import (
    assert_same,
    exact,
    layer_results,
    random_layer,
    random_norm,
    volumes,
)
from tests.networks import drawn


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


# Every example compiles two programs: the few by few passes, the many as users compile them, as the
# networks below and in test_by_hand.py and test_reference_results.py are.
few, many = settings(max_examples=5, deadline=None), settings(max_examples=60, deadline=None)
FORMS = pytest.mark.parametrize(
    "form", ["xla", "lanes", "volume", pytest.param("native", marks=needs_compiler)]
)
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


def check_layer(
    form, few_passes, batch, size, channels, filters, pool, train, normed, background, seed
):
    size = tuple(max(s, 2) for s in size) if pool else size
    arrays = random_layer(seed, batch, size, channels, filters, background)
    norm, of_layer = (random_norm(seed + shift, n) for shift, n in ((1, channels), (2, filters)))
    if form == "lanes":
        arrays, norm = exact((arrays, norm))
    running = None if train else Moments(of_layer.mean, 0.5 + jnp.abs(of_layer.factor))
    given = arrays, norm if normed else None, running, pool
    found = layer_results(form, *given, few_passes=few_passes)
    assert_same(found, layer_results("reference", *given), 1e-10)


@FORMS
@few
@LAYERS
def test_a_layer_agrees_with_the_plain_form(form, **layer):
    check_layer(form, True, **layer)


@pytest.mark.slow
@FORMS
@many
@LAYERS
def test_many_layers_agree_with_the_plain_form(form, **layer):
    check_layer(form, False, **layer)


select_windows = jax.jit(pooling.select_windows)
scatter_windows = jax.jit(pooling.scatter_windows, static_argnums=2)


def test_ties_send_the_gradient_to_the_first_maximum():
    # A constant volume ties everywhere: all gradient must go to the first voxel of each window.
    z = jnp.zeros((1, 4, 6, 8, 3))
    for sign in (1.0, -1.0, 0.0):
        selection = select_windows(z, jnp.full(3, sign))
        assert (selection.offset == 0).all()
    spread = scatter_windows(jnp.ones((1, 2, 3, 4, 3)), selection.offset, z.shape)
    assert spread.sum() == 2 * 3 * 4 * 3
    assert (spread[:, ::2, ::2, ::2] == 1).all()


def test_scatter_is_the_transpose_of_selection(rng):
    z = jnp.asarray(rng.normal(size=(2, 5, 6, 7, 3)))
    sign = jnp.array([1.0, -1.0, 1.0])
    selection = select_windows(z, sign)
    g = jnp.asarray(rng.normal(size=selection.value.shape))
    spread = scatter_windows(g, selection.offset, z.shape)
    np.testing.assert_allclose((spread * z).sum(), (g * selection.value).sum(), rtol=1e-12)


@partial(jax.jit, compiler_options=QUICKLY)
def plain_convolution(x, kernel, dz):
    """Returns the plain form of a convolution, and its gradients for x and kernel."""
    z, pull = jax.vjp(reference.convolve, x, kernel)
    return z, *pull(dz)


@pytest.mark.parametrize(("channels", "filters"), [(3, 5), (5, 16), (17, 20), (20, 16)])
def test_both_forms_of_the_convolution_and_its_gradients(rng, channels, filters):
    x = jnp.asarray(rng.normal(size=(2, 3, 5, 4, channels)))
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, channels, filters)))
    dz = jnp.asarray(rng.normal(size=(2, 3, 5, 4, filters)))
    expected, dx, dk = plain_convolution(x, kernel, dz)
    close = {"rtol": 1e-10, "atol": 1e-10}
    convolve = jax.jit(planes.convolve)
    np.testing.assert_allclose(convolve(x, kernel), expected, **close)
    np.testing.assert_allclose(convolve(dz, reference.flipped(kernel)), dx, **close)
    np.testing.assert_allclose(jax.jit(planes.kernel_gradient)(x, dz), dk, **close)
    np.testing.assert_allclose(jax.jit(volume.kernel_gradient)(x, dz), dk, **close)


@pytest.mark.parametrize(
    ("size", "channels", "filters", "pool", "windows", "counts"),
    [
        # 16 windows of 8 filters are 128 lanes.
        ((181, 217, 181), 1, 8, True, 16, (91, 109, 6)),
        ((181, 217, 181), 1, 8, False, 16, (181, 217, 12)),
        ((45, 54, 45), 16, 32, True, 4, (23, 27, 6)),
        # 3 windows of 40 filters leave 8 of 128 lanes empty.
        ((181, 217, 181), 1, 40, True, 3, (91, 109, 31)),
        ((5, 6, 5), 64, 128, True, 1, (3, 3, 3)),
    ],
)
def test_blocks_leave_few_lanes_empty(size, channels, filters, pool, windows, counts):
    cut = lanes.cut_of(size, (3, 3, 3, channels, filters), pool=pool)
    assert (cut.windows, cut.counts) == (windows, counts)


def test_moments_of_blocks_lose_nothing_to_a_large_mean(rng):
    # One pass around zero would lose all seven digits of the variance.
    x = jnp.asarray(1e4 + rng.normal(size=(2, 7, 6, 9, 1)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 1, 8)), jnp.float32)
    kernel = kernel - kernel.mean((0, 1, 2))  # so that the faces alone see the mean
    interior = jax.jit(partial(lanes.forward, pool=False, with_moments=True, keep_z=True))
    _, found, z = interior(Features(x), kernel, jnp.ones(8, jnp.float32))
    expected = moments.of_volumes(z.astype("float64"))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-5)


@pytest.mark.parametrize("group", [1, 2])
def test_the_kernels_gradient_in_several_slabs_of_a_volume_equals_one(rng, monkeypatch, group):
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3, 2)))
    dz = jnp.asarray(rng.normal(size=(2, 4, 5, 3, 6)))
    whole = jax.jit(planes.kernel_gradient)(x, dz)
    numbers = 5 * 3 * (9 * 2 + 3 * 6)
    monkeypatch.setattr(planes, "SLAB_NUMBERS", group * numbers)
    assert planes.planes_per_slab(4, numbers) == group
    slabs = jax.jit(lambda *given: planes.kernel_gradient(*given))(x, dz)  # traced anew
    np.testing.assert_allclose(slabs, whole, rtol=1e-12, atol=1e-12)


def test_equal_neighbourhoods_tie_to_the_last_bit_wherever_they_lie(rng):
    # A constant that no product represents exactly: one other order of summation, and the maximum
    # would be chosen by rounding.
    x = jnp.full((1, 10, 8, 12, 1), -0.7, jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 1, 8)), jnp.float32)
    z = jax.jit(planes.convolve)(x, kernel)
    selection = select_windows(z, jnp.ones(8, jnp.float32))
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

    options = QUICKLY if forms == "reference" else None
    run = jax.jit(
        jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True), compiler_options=options
    )
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
    # Forward, and the gradients of both kernels and of the second layer's input. The way back
    # writes each layer's convolution down once more, which XLA finds to be the one that it has.
    assert on_gpu.count("[b, 0, 1, 2, f]x[0, 1, 2, i, o]") == 5
    assert "[b, 0, 1, 2, f]" not in on_cpu
    assert ("conv3_backward" in on_cpu) == (forms == "native")
    assert "conv3" not in on_gpu
    # A host whose default is a GPU computes on its CPU as a host without one.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert lowered(forms, "cpu") == on_cpu


def test_tpus_and_nobody_else_take_blocks_of_planes():
    in_blocks = "[0, 1, b, f]x[0, 1, i, o]->[0, 1, b, f]"
    on_tpu = lowered("xla", "tpu")
    # Forward of both layers, and both again on the way back.
    assert on_tpu.count(in_blocks) == 4
    assert "[b, 0, 1, 2, f]" not in on_tpu
    assert in_blocks not in lowered("xla", "cuda")
    assert lowered("lanes", "cuda").count(in_blocks) == 4


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
