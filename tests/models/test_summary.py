from functools import partial

import jax
import numpy as np
import pytest

from mri_jax.keys import random_key
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.models.spec import ATTENTION
from mri_jax.models.summary import layers, step_bytes, table


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn5", {}),
        ("cnn12", {}),
        *(("cnn5", {"attention": kind}) for kind in ATTENTION[1:]),
        ("cnn7", {"residual": True, "norm": "group"}),
        ("cnn10", {"residual": True, "filters": (1, 8, 8, 8, 8), "width": 1}),
    ],
)
def test_totals_match_the_arrays(name, options):
    spec, shape = CNNSpec.preset(name, **({"width": 0.5} | options)), (32, 48, 37)
    x = jax.ShapeDtypeStruct((1, *shape, 1), np.float32)
    variables = jax.eval_shape(lambda k, v: CNN(spec).init(k, v, train=False), jax.random.key(0), x)
    parameters = sum(p.size for p in jax.tree.leaves(variables["params"]))
    assert sum(row.parameters for row in layers(spec, shape)) == parameters
    assert f"{parameters:,}" in table(spec, shape, 2).splitlines()[-2]


def test_shapes_and_arithmetic_of_the_paper_grid():
    rows = {row.name: row for row in layers(CNNSpec.preset("cnn5"), (181, 217, 181))}
    assert rows["conv1"].output_shape == (90, 108, 90, 8)
    assert rows["conv1"].multiply_adds == 181 * 217 * 181 * 27 * 8
    assert rows["conv5"].output_shape == (5, 6, 5, 128)
    assert rows["fc1"].parameters == 5 * 6 * 5 * 128 * 128 + 128
    assert rows["conv1"].activation_bytes == 90 * 108 * 90 * 8 * 4


@pytest.mark.parametrize(
    ("attention", "multiply_adds"),
    [
        ("se", 2 * 128 * 8 + 27 * 128),
        ("spatial", 27 * 54 + 27 * 128),
        ("cbam", 4 * 128 * 8 + 27 * 54 + 2 * 27 * 128),
        ("map", 27 * 128),
    ],
)
def test_a_gate_is_counted(attention, multiply_adds):
    shape = (96, 112, 96)
    spec = CNNSpec.preset("cnn5", attention=attention)
    rows = {row.name: row for row in layers(spec, shape)}
    assert rows["att5"].output_shape == rows["conv5"].output_shape == (3, 3, 3, 128)
    assert rows["att5"].multiply_adds == multiply_adds
    # What a step holds more of: its output, in the copies of a step, and its weights.
    plain = layers(CNNSpec.preset("cnn5"), shape)
    weights = sum(r.parameters for r in rows.values()) - sum(r.parameters for r in plain)
    floats = 6 * 7 * 6 * 64 + 27 * 128
    more = step_bytes(spec, shape, 2) - step_bytes(CNNSpec.preset("cnn5"), shape, 2)
    assert more == pytest.approx(4 * (2 * 3.5 * floats + 5 * weights), abs=4)


def test_a_shortcut_is_counted():
    shape = (96, 112, 96)
    spec = CNNSpec.preset("cnn7", residual=True)
    rows = {row.name: row for row in layers(spec, shape)}
    assert rows["proj4"].output_shape == (12, 14, 12, 64)
    assert rows["proj4"].parameters == 32 * 64
    assert rows["proj4"].multiply_adds == 12 * 14 * 12 * 32 * 64
    assert rows["conv5"].output_shape == (6, 7, 6, 64)
    more = step_bytes(spec, shape, 2) - step_bytes(CNNSpec.preset("cnn7"), shape, 2)
    joined = sum(96 * 112 * 96 // 8**i * 8 * 2**i for i in range(5))
    assert more == 4 * 2 * 3.5 * joined


def test_intermediates_have_the_summarised_shapes(rng):
    spec = CNNSpec.preset("cnn7", width=0.5)
    x = rng.normal(size=(2, 32, 40, 37, 1)).astype(np.float32)
    model = CNN(spec)
    variables = fresh_variables(spec, x.shape[1:4], random_key(0, "init"))
    apply = partial(jax.jit, static_argnames="intermediates")(partial(model.apply, train=False))
    logits, kept = apply(variables, x, intermediates=True)
    assert kept["conv1/pre_activation"].shape == (2, 32, 40, 37, 4)
    assert kept["conv7/feature_map"].shape == (2, 2, 2, 2, 64)
    assert kept["penultimate"].shape == (2, 64)
    fc3 = variables["params"]["fc3"]
    by_hand = kept["penultimate"] @ fc3["kernel"] + fc3["bias"]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5, atol=1e-6)
    # The fast form gives the same logits without holding the intermediates.
    np.testing.assert_allclose(logits, apply(variables, x), atol=1e-5)
