import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.models import CNN, CNNSpec
from mri_jax.settings.page import page
from mri_jax.training import freezing

FAMILY = ["cnn5", "cnn7", "cnn10", "cnn12"]


def params_of(name, **changes):
    spec = CNNSpec.preset(name, width=0.25, **changes)
    variables = jax.eval_shape(
        partial(CNN(spec).lazy_init, train=False), jax.random.key(0), jnp.zeros((1, 32, 33, 34, 1))
    )
    return spec, variables["params"]


def layers_that_train(mask):
    return {name for name, leaves in mask.items() if any(jax.tree.leaves(leaves))}


@pytest.mark.parametrize("name", FAMILY)
def test_named_sets_hold_for_every_member(name):
    spec, params = params_of(name)
    last = len(spec.conv_filters)
    head = {"fc1", "fc2", "fc3"}
    expected = {
        "all": set(params),
        "low": {"conv1", "bn1"},
        "high": {f"conv{last}", f"bn{last}"} | head,
        "head": head,
    }
    prefix = {"all": 0, "low": 0, "high": last - 1, "head": last}
    for layers, names in expected.items():
        mask = freezing.trainable_mask(freezing.rules_for(layers, spec), params)
        assert layers_that_train(mask) == names
        assert freezing.frozen_prefix(mask, spec) == prefix[layers]
        norms = {n for n in params if n.startswith("bn")}
        assert freezing.frozen_norms(mask) == norms - names


def test_a_gate_trains_with_the_conv_layer_that_it_follows():
    spec, params = params_of("cnn7", attention="cbam", attention_blocks=(1, 4, 5))
    head = {"fc1", "fc2", "fc3"}
    expected = {
        "low": {"conv1", "bn1", "att1"},
        "high": {"conv7", "bn7", "att5"} | head,
        "head": head,
        "conv4": {"conv4", "bn4"},
        "conv5": {"conv5", "bn5", "att4"},
    }
    prefix = {"low": 0, "high": 6, "head": 7, "conv4": 3, "conv5": 4}
    for layers, names in expected.items():
        mask = freezing.trainable_mask(freezing.rules_for(layers, spec), params)
        assert layers_that_train(mask) == names
        assert freezing.frozen_prefix(mask, spec) == prefix[layers]
    # What is before a gate that trains alone is no prefix with it: its layer's output is gated.
    mask = freezing.trainable_mask((("att4/up_kernel", True), (".*", False)), params)
    assert layers_that_train(mask) == {"att4"}
    assert freezing.frozen_prefix(mask, spec) == 4


def test_a_residual_block_is_frozen_as_a_whole_or_computed():
    spec, params = params_of("cnn7", residual=True, norm="group")
    head = {"fc1", "fc2", "fc3"}
    expected = {
        "low": ({"conv1", "norm1", "proj1"}, 0),
        "high": ({"conv7", "norm7", "proj5"} | head, 5),
        "conv5": ({"conv5", "norm5", "proj4"}, 3),
        "head": (head, 7),
    }
    for layers, (names, prefix) in expected.items():
        mask = freezing.trainable_mask(freezing.rules_for(layers, spec), params)
        assert layers_that_train(mask) == names
        assert freezing.frozen_prefix(mask, spec) == prefix
        assert freezing.frozen_norms(mask) == frozenset()


def test_the_documented_layers_of_each_set_are_those_that_train():
    spec, params = params_of("cnn5")
    rows = re.findall(r"^\| `(\w+)`.* \| (.*) \|$", page(), re.M)
    assert [name for name, _ in rows] == ["all", "low", "high", "head", "conv2"]
    for name, layers in rows:
        mask = freezing.trainable_mask(freezing.rules_for(name, spec), params)
        trained = {layer for layer in layers_that_train(mask) if not layer.startswith("bn")}
        assert trained == set(layers.split(", "))


def test_the_first_matching_rule_wins():
    _, params = params_of("cnn5")
    mask = freezing.trainable_mask((("conv3/.*", False), ("conv.*", True), (".*", False)), params)
    assert layers_that_train(mask) == {"conv1", "conv2", "conv4", "conv5"}


def test_a_conv_layer_trains_with_its_batchnorm_alone():
    spec, params = params_of("cnn12")
    mask = freezing.trainable_mask(freezing.rules_for("conv1", spec), params)
    assert layers_that_train(mask) == {"conv1", "bn1"}
    mask = freezing.trainable_mask(freezing.rules_for("conv10", spec), params)
    assert layers_that_train(mask) == {"conv10", "bn10"}


@pytest.mark.parametrize("layers", ["middle", "conv6", "conv0"])
def test_a_set_that_the_network_lacks_is_named(layers):
    with pytest.raises(ValueError, match=f"'{layers}' must be one of all, low, .*, conv5$"):
        freezing.rules_for(layers, CNNSpec.preset("cnn5"))


def test_select_and_merge_are_inverse(rng):
    tree = {"a": {"x": rng.normal(size=2), "y": rng.normal(size=3)}, "b": {"x": rng.normal(size=4)}}
    mask = {"a": {"x": True, "y": False}, "b": {"x": False}}
    kept, rest = freezing.select(tree, mask), freezing.select(tree, mask, keep=False)
    assert [leaf.size for leaf in jax.tree.leaves(kept)] == [2]
    assert [leaf.size for leaf in jax.tree.leaves(rest)] == [3, 4]
    jax.tree.map(np.testing.assert_array_equal, freezing.merge(kept, rest), tree)


def test_what_trains_is_counted():
    spec, params = params_of("cnn5")
    text = freezing.describe(freezing.rules_for("low", spec), params)
    # 27 weights, a scale and a bias for each of the two filters.
    assert text.startswith(f"training {2 * 27 + 4} of ")
    assert text.endswith("bn1/bias, bn1/scale, conv1/kernel")
