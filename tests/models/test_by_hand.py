"""The wider family against float64 results by hand, in the forms that training takes."""

import jax
import numpy as np
import optax
import pytest

from mri_jax.models import CNN, CNNSpec
from tests.compiling import QUICKLY
from tests.conftest import needs_compiler
from tests.models import by_hand
from tests.models.layers import volumes
from tests.networks import drawn

SHAPE = (9, 10, 11)
SMALL = {"repetitions": (1, 2), "filters": (4, 20), "fc": (12,), "dropout": (0, 0)}


def step_of(network, variables, x, labels, compiler_options):
    """Returns outputs, loss and gradients of a training forward pass."""

    def loss_of(params, x):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        outputs, _ = network.apply(given, x, train=True, mutable=["batch_stats"], method="outputs")
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
        return losses.mean(), outputs

    run = jax.value_and_grad(loss_of, (0, 1), has_aux=True)
    run = jax.jit(run, compiler_options=compiler_options)
    return run(variables["params"], x)


def assert_close(ours, expected, what):
    largest = np.abs(expected).max()
    assert largest > 1e-6, what
    assert np.abs(np.asarray(ours) - expected).max() <= 1e-6 * largest, what


# Each alone by few passes, all of them together as users compile them.
NATIVE = [
    {"attention": "se"},
    {"attention": "spatial"},
    {"attention": "cbam"},
    {"attention": "map"},
    {"norm": "instance"},
    {"norm": "group"},
    {"residual": True},
]
TOGETHER = {"residual": True, "norm": "group", "attention": "cbam"}
OTHERS = [
    ("xla", {"attention": "spatial"}, None),
    ("xla", {"residual": True, "norm": "instance", "filters": (4, 4)}, None),
    ("reference", {"attention": "cbam"}, QUICKLY),
    ("reference", {"residual": True, "norm": "group"}, QUICKLY),
]


@pytest.mark.parametrize(
    ("forms", "options", "compiler_options"),
    [
        *(pytest.param("native", each, QUICKLY, marks=needs_compiler) for each in NATIVE),
        pytest.param("native", TOGETHER, None, marks=needs_compiler),
        *OTHERS,
    ],
)
def test_outputs_loss_and_every_gradient(rng, forms, options, compiler_options):
    spec = CNNSpec(**(SMALL | options), dtype="float64")
    x, labels = volumes(rng, (3, *SHAPE, 1), -0.7), np.array([0, 1, 1])
    with jax.enable_x64(True):
        variables = drawn(spec, SHAPE, rng)
    logits, loss, weights, gradients, of_volumes = by_hand.network(
        spec, variables["params"], x, labels
    )
    with jax.enable_x64(True):
        (our_loss, outputs), (ours, ours_of_volumes) = step_of(
            CNN(spec, forms=forms), variables, x, labels, compiler_options
        )
    assert our_loss == pytest.approx(loss, rel=1e-6)
    assert_close(outputs.logits, logits, "logits")
    assert set(outputs.gates) == set(weights)
    for name, weight in weights.items():
        assert_close(outputs.gates[name], weight, name)
    assert set(ours) == set(gradients)
    jax.tree_util.tree_map_with_path(lambda path, a, b: assert_close(a, b, path), ours, gradients)
    assert_close(ours_of_volumes, of_volumes, "volumes")
