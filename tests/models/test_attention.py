"""What gates are; their numbers are held to results by hand in `test_by_hand`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.keys import random_key
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.cnn import fresh_variables
from tests.conftest import needs_compiler
from tests.models.layers import volumes
from tests.networks import drawn

KINDS = ("se", "spatial", "cbam", "map")
SHAPE = (9, 10, 11)


def spec_of(kind, dtype="float64", **changes):
    small = {"repetitions": (1, 2), "filters": (4, 20), "fc": (12,), "dropout": (0, 0)}
    return CNNSpec(**(small | changes), attention=kind, dtype=dtype)


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
