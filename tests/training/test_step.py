import dataclasses
import functools
import json
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.backend import FEW_PASSES
from mri_jax.keys import random_key, typed_key
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.training import freezing, step
from mri_jax.training.state import Batch
from mri_jax.training.step import LossSettings, OptimizerSettings, StepSettings
from tests.compiling import QUICKLY
from tests.conftest import needs_compiler
from tests.networks import apply

SHAPE = (8, 10, 9)
# Two blocks, the first of two conv layers: small, and with every kind of layer.
SPEC = CNNSpec(repetitions=(2, 1), filters=(4, 6), fc=(8,), dropout=(0.5, 0.0))
# The same with as many filters as native kernels want.
GOLDEN_SPEC = dataclasses.replace(SPEC, filters=(8, 16))
GOLDEN = Path(__file__).parent / "golden_trajectory.json"


def batch_of(rng, size=3):
    x = rng.normal(size=(size, *SHAPE, 1)).astype(np.float32)
    x[:, :4] = -0.5
    return Batch(jnp.asarray(x), jnp.arange(size) % 2, jnp.ones(size))


def settings_for(layers, **changes):
    defaults = {"spec": SPEC, "rules": freezing.rules_for(layers, SPEC)}
    return StepSettings(**{**defaults, **changes})


def start(settings, seed=0):
    variables = fresh_variables(settings.spec, SHAPE, random_key(seed, "init"))
    return step.init_state(settings, variables, random_key(seed, "dropout"))


def run(settings, state, batches, forms=None, compiler_options=None):
    advance = functools.partial(step.train_step, settings, forms=forms)
    advance = jax.jit(advance, compiler_options=compiler_options)
    history = []
    for batch in batches:
        state, metrics = advance(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


def leaves_by_path(tree):
    return {
        freezing.path_of(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("layers", ["low", "high", "head"])
def test_frozen_parameters_and_statistics_are_bit_identical_after_fifty_steps(rng, layers):
    optimizer = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5)
    settings = settings_for(layers, optimizer=optimizer)
    begun = start(settings)
    state, history = run(settings, begun, [batch_of(rng) for _ in range(50)])
    assert all(entry["finite"] == 1 for entry in history)
    mask = freezing.trainable_mask(settings.rules, begun.params)
    trained = leaves_by_path(mask)
    before, after = leaves_by_path(begun.params), leaves_by_path(state.params)
    for path, trains in trained.items():
        assert np.array_equal(before[path], after[path]) != trains, path
    frozen = freezing.frozen_norms(mask)
    before, after = leaves_by_path(begun.batch_stats), leaves_by_path(state.batch_stats)
    for path in before:
        assert np.array_equal(before[path], after[path]) == (path.split("/")[0] in frozen), path


def test_adapting_statistics_moves_them_and_not_the_parameters(rng):
    settings = settings_for("head", frozen_statistics="adapt")
    begun = start(settings)
    state, _ = run(settings, begun, [batch_of(rng)], compiler_options=QUICKLY)
    assert int(state.batch_stats["bn1"]["count"]) == 1
    assert not np.array_equal(begun.batch_stats["bn1"]["mean"], state.batch_stats["bn1"]["mean"])
    np.testing.assert_array_equal(begun.params["bn1"]["scale"], state.params["bn1"]["scale"])


def test_optimizer_state_exists_only_for_what_trains():
    state = start(settings_for("head"))
    head = sum(p.size for name in ("fc1", "fc2") for p in state.params[name].values())
    sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
    assert sum(sizes) == 2 * head + 1


def test_kernels_decay_by_the_rate_and_nothing_else_does(rng):
    rate, decay, batch = 1e-2, 0.1, batch_of(rng)
    plain, decaying = (
        settings_for("high", optimizer=OptimizerSettings(rate, weight_decay=d))
        for d in (0.0, decay)
    )
    begun = start(plain)
    without, with_decay = (
        leaves_by_path(run(s, start(s), [batch], compiler_options=QUICKLY)[0].params)
        for s in (plain, decaying)
    )
    trains = leaves_by_path(freezing.trainable_mask(plain.rules, begun.params))
    decayed = {path for path, on in trains.items() if on and path.endswith("/kernel")}
    assert decayed == {"conv3/kernel", "fc1/kernel", "fc2/kernel"}
    for path, before in leaves_by_path(begun.params).items():
        expected = -rate * decay * before if path in decayed else np.zeros_like(before)
        np.testing.assert_allclose(with_decay[path] - without[path], expected, atol=1e-7)


def kernel_gradient_products(settings, rng):
    """Matrix products and convolutions in the step whose result is shaped like a conv kernel."""
    state, batch = start(settings), batch_of(rng)
    jaxpr = jax.make_jaxpr(functools.partial(step.train_step, settings))(state, batch)
    found = set()

    def visit(inner):
        for equation in inner.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                found.add(equation.outvars[0].aval.shape)
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
            ):
                if hasattr(value, "jaxpr"):
                    visit(value.jaxpr)
                elif hasattr(value, "eqns"):
                    visit(value)

    visit(jaxpr.jaxpr)
    channels = (1, *SPEC.conv_filters)
    shapes = {}
    for i, (c, f) in enumerate(pairwise(channels), start=1):
        shapes[f"conv{i}"] = {(9 * c, 3 * f), (72 * c, 8 * f), (3, 3, 3, c, f)}
    return {name for name, wanted in shapes.items() if wanted & found}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", {"conv1", "conv2", "conv3"}),
        ("low", {"conv1"}),
        ("high", {"conv3"}),
        ("head", set()),
    ],
)
def test_no_weight_gradient_of_a_frozen_layer_is_in_the_step(rng, layers, expected):
    assert kernel_gradient_products(settings_for(layers), rng) == expected


def test_a_non_finite_loss_is_reported_and_changes_nothing(rng):
    settings = settings_for("all")
    begun = start(settings)
    good = batch_of(rng)
    bad = good.replace(image=good.image.at[0, 1, 2, 3].set(jnp.nan))
    state, (entry,) = run(settings, begun, [bad])
    assert entry["finite"] == 0
    assert not np.isfinite(entry["loss"])
    for name in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(begun, name), getattr(state, name))
    assert int(state.step) == 1
    _, (entry,) = run(settings, state, [good])
    assert entry["finite"] == 1


def test_running_statistics_have_no_memory_of_their_start(rng):
    settings = settings_for("all")
    batches = [batch_of(rng) for _ in range(2)]
    one, _ = run(settings, start(settings), batches[:1])
    x = batches[0].image
    variables = start(settings).variables

    _, kept = apply(SPEC, variables, x, intermediates=True)
    z = np.asarray(kept["conv1/pre_activation"], np.float64)
    np.testing.assert_allclose(one.batch_stats["bn1"]["mean"], z.mean((0, 1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(one.batch_stats["bn1"]["var"], z.var((0, 1, 2, 3)), rtol=1e-4)
    assert int(one.batch_stats["bn1"]["count"]) == 1


def test_weights_and_smoothing_enter_the_loss():
    logits, label = jnp.array([[0.0, 1.0], [2.0, -1.0]]), jnp.array([1, 1])
    weight = np.array([3.0, 0.5])
    batch = Batch(jnp.zeros(()), label, jnp.asarray(weight))
    settings = LossSettings(label_smoothing=0.2)
    log = np.log(np.exp(np.asarray(logits)) / np.exp(np.asarray(logits)).sum(1, keepdims=True))
    each = -(0.9 * log[:, 1] + 0.1 * log[:, 0])
    expected = (weight * each).sum() / weight.sum()
    np.testing.assert_allclose(step.weighted_loss(logits, batch, settings), expected, rtol=1e-6)


def test_a_cached_prefix_trains_to_the_same_result(rng):

    settings = settings_for("high")
    begun = start(settings)
    first = freezing.frozen_prefix(freezing.trainable_mask(settings.rules, begun.params), SPEC) + 1
    batch = batch_of(rng)
    features = apply(SPEC, begun.variables, batch.image, last=first - 1, method="trunk")
    cached = settings_for("high", first=first)
    whole, _ = run(settings, begun, [batch] * 3)
    short, _ = run(cached, start(cached), [batch.replace(image=features)] * 3)
    for name in ("params", "batch_stats"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-6),
            getattr(short, name),
            getattr(whole, name),
        )


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(rng):
    batches = [batch_of(rng) for _ in range(3)]
    settings = settings_for("all")
    results = [run(settings, start(settings, seed), batches)[0].params for seed in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, results[0], results[1])
    assert not np.array_equal(results[0]["fc1"]["kernel"], results[2]["fc1"]["kernel"])


def test_random_streams_differ_by_purpose_and_fold():
    keys = [random_key(0, *purpose) for purpose in (("init", 0), ("init", 1), ("dropout", 0))]
    assert len({key.tobytes() for key in keys}) == 3
    assert random_key(0, "init", 0).tobytes() == keys[0].tobytes()


def test_dropout_and_augmentation_have_keys_of_their_own():
    key = jnp.asarray(random_key(3, "dropout", 1))
    steps = [step.step_keys(key, jnp.asarray(number)) for number in (0, 1)]
    words = {jax.random.key_data(k).tobytes() for keys in steps for k in keys}
    assert len(words) == 6
    # The streams that finished trainings were made with.
    own = jax.random.fold_in(typed_key(key), 1)
    assert steps[1].dropout == own
    assert steps[1].augmentation == jax.random.fold_in(own, 1)


def test_weights_drawn_without_a_volume_are_those_drawn_with_one():
    spec = CNNSpec(repetitions=(1,), filters=(4,), fc=(), dropout=(0.0,))
    key, volume = random_key(7, "init"), jnp.zeros((1, *SHAPE, 1), jnp.float32)
    drawn = fresh_variables(spec, SHAPE, key)
    init = functools.partial(CNN(spec).init, train=False)
    plain = jax.jit(init, compiler_options=FEW_PASSES)(typed_key(key), volume)
    assert float(jnp.abs(drawn["params"]["conv1"]["kernel"]).max()) > 0.01
    jax.tree.map(np.testing.assert_array_equal, drawn, plain)


@pytest.mark.parametrize("forms", [pytest.param("native", marks=needs_compiler), "xla"])
def test_the_trajectory_is_the_golden_one(forms):
    """Fails when the numerics change; then raise NUMERICS_VERSION and write the file anew:

    ``python -m tests.training.test_step``
    """
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["numerics_version"] == step.NUMERICS_VERSION
    np.testing.assert_allclose(golden_losses(forms), golden["losses"], rtol=2e-4)


def golden_losses(forms):
    rng = np.random.default_rng(7)
    optimizer = OptimizerSettings(learning_rate=3e-3)
    settings = settings_for("all", spec=GOLDEN_SPEC, optimizer=optimizer)
    batches = [batch_of(rng) for _ in range(10)]
    _, history = run(settings, start(settings), batches, forms)
    return [entry["loss"] for entry in history]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerSettings(learning_rate=float("nan")), "learning_rate: nan"),
        (lambda: OptimizerSettings(clip_norm=0.0), "clip_norm: 0"),
        (lambda: LossSettings(label_smoothing=1.0), "label_smoothing: 1.0"),
        (lambda: settings_for("all", frozen_statistics="thaw"), "frozen_statistics: 'thaw'"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


if __name__ == "__main__":
    written = {"numerics_version": step.NUMERICS_VERSION, "losses": golden_losses("native")}
    GOLDEN.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
