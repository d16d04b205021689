"""Gates against float64 results by hand, in the forms that training takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mri_jax.backend import FEW_PASSES
from mri_jax.keys import random_key
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.cnn import fresh_variables
from tests.conftest import needs_compiler
from tests.models import by_hand
from tests.models.layers import volumes
from tests.networks import drawn

KINDS = ("se", "spatial", "cbam", "map")
SHAPE = (9, 10, 11)


def spec_of(kind, dtype="float64", **changes):
    small = {"repetitions": (1, 2), "filters": (4, 20), "fc": (12,), "dropout": (0, 0)}
    return CNNSpec(**(small | changes), attention=kind, dtype=dtype)


def step_of(network, variables, x, labels):
    """Returns outputs, loss and gradients of a training forward pass."""

    def loss_of(params, x):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        outputs, _ = network.apply(given, x, train=True, mutable=["batch_stats"], method="outputs")
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
        return losses.mean(), outputs

    plain = FEW_PASSES if network.forms == "reference" else None
    run = jax.jit(jax.value_and_grad(loss_of, (0, 1), has_aux=True), compiler_options=plain)
    return run(variables["params"], x)


def assert_close(ours, expected, tolerance, what):
    largest = np.abs(expected).max()
    assert largest > 1e-6, what
    assert np.abs(np.asarray(ours) - expected).max() <= tolerance * largest, what


@pytest.mark.parametrize(
    ("kind", "forms"),
    [
        *(pytest.param(kind, "native", marks=needs_compiler) for kind in KINDS),
        ("spatial", "xla"),
        ("cbam", "reference"),
    ],
)
def test_outputs_loss_and_every_gradient(rng, kind, forms):
    spec = spec_of(kind)
    x, labels = volumes(rng, (3, *SHAPE, 1), -0.7), np.array([0, 1, 1])
    with jax.enable_x64(True):
        variables = drawn(spec, SHAPE, rng)
    logits, loss, weights, gradients, of_volumes = by_hand.network(
        spec, variables["params"], x, labels
    )
    with jax.enable_x64(True):
        (our_loss, outputs), (ours, ours_of_volumes) = step_of(
            CNN(spec, forms=forms), variables, x, labels
        )
    assert our_loss == pytest.approx(loss, rel=1e-6)
    assert_close(outputs.logits, logits, 1e-6, "logits")
    assert set(outputs.gates) == set(weights)
    for name, weight in weights.items():
        assert_close(outputs.gates[name], weight, 1e-6, name)
    assert set(ours) == set(gradients)
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: assert_close(a, b, 1e-6, path), ours, gradients
    )
    assert_close(ours_of_volumes, of_volumes, 1e-6, "volumes")


@needs_compiler
def test_gates_have_gradients_in_the_form_that_trains(rng):
    """A loss of the gate's map alone reaches what is before it, and nothing behind it."""
    spec = spec_of("spatial", "float32")
    variables = jax.tree.map(lambda a: a.astype(np.float32), drawn(spec, SHAPE, rng))
    network = CNN(spec, forms="native")

    def loss_of(params):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        x = volumes(rng, (2, *SHAPE, 1), -0.7).astype(np.float32)
        outputs, _ = network.apply(given, x, train=True, mutable=["batch_stats"], method="outputs")
        return outputs.gates["att2/gate"].mean()

    lowered = jax.jit(jax.grad(loss_of)).lower(variables["params"])
    assert "conv3_backward" in lowered.as_text()
    moved = {
        name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(layer))
        for name, layer in lowered.compile()(variables["params"]).items()
    }
    assert {name for name, most in moved.items() if most == 0} == {"fc1", "fc2"}


def test_intermediates_hold_the_gates_and_the_penultimate_features(rng):
    spec = spec_of("cbam", "float32")
    variables = fresh_variables(spec, SHAPE, random_key(0, "init"))
    x = rng.normal(size=(2, *SHAPE, 1)).astype(np.float32)
    ask = partial(CNN(spec).apply, variables, x, train=False)
    outputs = jax.jit(partial(ask, method="outputs"))()
    logits, kept = jax.jit(partial(ask, intermediates=True))()
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-5)
    shapes = {"att1/channels": (2, 4), "att1/gate": (2, 4, 5, 5)}
    shapes |= {"att2/channels": (2, 20), "att2/gate": (2, 2, 2, 2)}
    assert {name: gate.shape for name, gate in outputs.gates.items()} == shapes
    for name, value in {**outputs.gates, "penultimate": outputs.penultimate}.items():
        np.testing.assert_allclose(value, kept[name], atol=1e-5)


def test_a_fresh_map_changes_nothing(rng):
    x = rng.normal(size=(2, *SHAPE, 1)).astype(np.float32)
    plain, gated = (
        jax.jit(partial(CNN(spec).apply, train=False))(
            fresh_variables(spec, SHAPE, random_key(0, "init")), x
        )
        for spec in (spec_of("none", "float32"), spec_of("map", "float32"))
    )
    np.testing.assert_array_equal(plain, gated)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_compute_in_float32_where_activations_are_bfloat16(rng, kind):
    shapes = jax.eval_shape(
        lambda x: CNN(spec_of(kind, "bfloat16")).init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, *SHAPE, 1), jnp.float32),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes["params"])} == {jnp.dtype("float32")}
    outputs = jax.eval_shape(
        lambda v, x: CNN(spec_of(kind, "bfloat16")).apply(v, x, train=False, method="outputs"),
        shapes,
        jax.ShapeDtypeStruct((1, *SHAPE, 1), jnp.float32),
    )
    assert {gate.dtype for gate in outputs.gates.values()} == {jnp.dtype("float32")}
    assert outputs.penultimate.dtype == jnp.bfloat16
