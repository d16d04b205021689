"""Losses and gradients of the methods of adaptation against NumPy in float64."""

import dataclasses
import re
import sys
from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax import adaptation
from mri_jax.interruption import Interrupted
from mri_jax.keys import random_key, typed_key
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs
from mri_jax.training.freezing import trainable_mask
from mri_jax.training.job import epoch_order, with_step
from mri_jax.training.loop import Control, begin, fit, resume
from mri_jax.training.objectives import of_method
from mri_jax.training.objectives.ad2a import AD2A
from mri_jax.training.objectives.adversary import (
    discriminator,
    reversed_gradient,
    schedule,
    site_loss,
)
from mri_jax.training.objectives.coral import Coral, coral_loss
from mri_jax.training.objectives.dann import Dann
from mri_jax.training.objectives.l2_sp import L2SP
from mri_jax.training.objectives.tent import Tent, entropy
from mri_jax.training.state import Batch
from mri_jax.training.step import OptimizerSettings, StepSettings, init_state, train_step
from mri_jax.training.wave import Wave
from tests import networks
from tests.compiling import QUICKLY, quickly
from tests.conftest import ROOT
from tests.training import small

OBJECTIVES = {
    "coral": Coral(weight=50.0, memory=8),
    "dann": Dann(weight=1.0, hidden=5, steps=40),
    "tent": Tent(),
    "l2-sp": L2SP(weight=0.5),
    "ad2a": AD2A(consistency=1.0, weight=1.0, hidden=5, steps=40),
}


def gated(spec: CNNSpec, name: str) -> CNNSpec:
    """Returns the network of a method: AD2A's has a gate after its last block."""
    blocks = (len(spec.repetitions),)
    gate = {"attention": "spatial", "attention_blocks": blocks} if name == "ad2a" else {}
    return dataclasses.replace(spec, **gate)


quick = partial(jax.jit, compiler_options=QUICKLY)


def compiled(step: StepSettings):
    """Returns a step of training as one program."""
    return quick(partial(train_step, step, forms="xla"))


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_corals_loss_and_gradient_are_those_of_the_paper():
    source, target, known = drawn(9, 4), 2 * drawn(9, 4, seed=1), np.arange(9) < 7
    with jax.enable_x64(True):
        found, slopes = quick(jax.value_and_grad(coral_loss, (0, 1)))(source, target, known)
    a, b = source[:7], target[:7]
    apart = np.cov(a, rowvar=False) - np.cov(b, rowvar=False)
    assert found == pytest.approx((apart**2).sum() / (4 * 4**2), rel=1e-10)
    # Equation 4 and 5 of Sun and Saenko 2016.
    wanted = (a - a.mean(0)) @ apart / (4**2 * 6)
    np.testing.assert_allclose(slopes[0][:7], wanted, rtol=1e-8)
    np.testing.assert_allclose(slopes[1][:7], -(b - b.mean(0)) @ apart / (4**2 * 6), rtol=1e-8)
    np.testing.assert_array_equal(slopes[0][7:], 0)


def test_tents_entropy_and_its_gradient():
    logits = 3 * drawn(6, 2)
    with jax.enable_x64(True):
        found = quick(entropy)(logits)
        slopes = quick(jax.grad(lambda x: entropy(x).sum()))(logits)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -(shares * np.log(shares)).sum(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    np.testing.assert_allclose(slopes, -shares * (np.log(shares) + wanted[:, None]), rtol=1e-8)


def test_a_reversed_gradient_is_that_of_the_function_times_minus_its_strength():
    x, weight = drawn(5, 3), drawn(3, seed=1)

    def plain(values):
        return jnp.tanh(values @ weight).sum()

    with jax.enable_x64(True):
        strength = jnp.asarray(0.3)
        np.testing.assert_array_equal(reversed_gradient(x, strength), x)
        back = jax.grad(lambda v: plain(reversed_gradient(v, strength)))(jnp.asarray(x))
    wanted = (1 - np.tanh(x @ weight) ** 2)[:, None] * weight
    np.testing.assert_allclose(back, -0.3 * wanted, rtol=1e-10)


def test_the_schedule_is_that_of_ganin():
    progress = np.array([0.0, 0.1, 0.5, 1.0, 2.0])
    with jax.enable_x64(True):
        found = np.asarray(schedule(jnp.asarray(progress)))
    wanted = 2 / (1 + np.exp(-10 * progress.clip(max=1))) - 1
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert found[0] == 0
    assert found[3] == pytest.approx(0.9999092)


def test_the_loss_of_sites_and_its_gradients():
    source, target, strength = drawn(3, 4), drawn(5, 4, seed=1), 0.7
    with jax.enable_x64(True):
        params = quick(partial(discriminator, 4, 6))(typed_key(random_key(0, "site")))
        params = jax.tree.map(partial(np.asarray, dtype=float), params)
        found, (slopes, of_source) = quick(jax.value_and_grad(site_loss, (0, 1)))(
            params, source, target, strength
        )
    layers = [{n: np.asarray(p, float) for n, p in params[f"site{i}"].items()} for i in (1, 2)]
    loss, in_source, kernels = 0.0, 0.0, [0.0, 0.0]
    for site, x in ((0.0, source), (1.0, target)):
        z = x @ layers[0]["kernel"] + layers[0]["bias"]
        hidden = z.clip(min=0)
        logit = (hidden @ layers[1]["kernel"] + layers[1]["bias"])[:, 0]
        share = 1 / (1 + np.exp(-logit))
        loss += -(site * np.log(share) + (1 - site) * np.log(1 - share)).mean() / 2
        back = ((share - site) / len(x) / 2)[:, None]
        kernels[1] = kernels[1] + hidden.T @ back
        inside = back @ layers[1]["kernel"].T * (z > 0)
        kernels[0] = kernels[0] + x.T @ inside
        in_source = in_source if site else -strength * inside @ layers[0]["kernel"].T
    assert found == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(of_source, in_source, rtol=1e-8)
    for i, wanted in enumerate(kernels, start=1):
        np.testing.assert_allclose(slopes[f"site{i}"]["kernel"], wanted, rtol=1e-8)


def test_l2_sp_adds_its_penalty_to_the_loss_and_pulls_back():
    spec = dataclasses.replace(small.SPEC, dropout=(0.0, 0.0), dtype="float64")
    with jax.enable_x64(True):
        start = networks.drawn(spec, small.SHAPE, np.random.default_rng(1))
        away = jax.tree.map(lambda p: p + 0.1, start["params"])
        image = jnp.asarray(small.volumes()[:2], float)
        batch = Batch(image, jnp.arange(2), jnp.ones(2))
        losses, numbers = [], sum(p.size for p in jax.tree.leaves(away))
        for objective in (L2SP(0.0), L2SP(3.0)):
            step = StepSettings(spec, objective=objective)
            state = init_state(step, start, random_key(1, "dropout")).replace(params=away)
            _, told = compiled(step)(state, batch)
            losses.append(float(told["loss"]))
    # Reported in float32.
    assert losses[1] - losses[0] == pytest.approx(1.5 * 0.01 * numbers, rel=1e-5)


def test_the_page_s_example_of_a_method_minimises_what_it_says():
    page = (ROOT / "docs" / "adaptation.md").read_text(encoding="utf-8")
    entry, module = re.findall(r"```python\n(# mri_jax/.*?)```", page, re.S)
    known = dict(vars(adaptation))
    method = eval(entry.split("\n", 1)[1].strip().rstrip(","), known)
    assert method.label_free
    assert method.stage() == "adapted-entropy"
    there = ModuleType(f"mri_jax.training.objectives.{method.objective}")
    # What a dataclass is made in has to be among the modules.
    sys.modules[there.__name__] = there
    try:
        exec(module, vars(there))
        made = [of_method(method.objective, {"weight": w}, steps=40) for w in (0.0, 0.5)]
    finally:
        del sys.modules[there.__name__]
    spec = dataclasses.replace(small.SPEC, dropout=(0.0, 0.0), dtype="float64")
    with jax.enable_x64(True):
        variables = networks.drawn(spec, small.SHAPE, np.random.default_rng(1))
        image = jnp.asarray(small.volumes()[:4], float)
        batch = Batch(image[:2], jnp.arange(2), jnp.ones(2), image[2:])
        losses = []
        for objective in made:
            step = StepSettings(spec, objective=objective)
            state = init_state(step, variables, random_key(1, "dropout"))
            _, told = compiled(step)(state, batch)
            losses.append(float(told["loss"]))
        network = CNN(spec, forms="reference")
        logits, _ = quick(partial(network.apply, train=True, mutable=["batch_stats"]))(
            variables, image[2:]
        )
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -(shares * np.log(shares)).sum(1).mean()
    assert losses[1] - losses[0] == pytest.approx(0.5 * wanted, rel=1e-5)


def job_of(name: str, fold: int = 0):
    rows = np.arange(len(small.LABELS))
    base = small.job(fold)
    if name == "l2-sp":
        return base
    if name == "ad2a":
        key, spec = random_key(7, "init", fold), gated(small.SPEC, name)
        base = dataclasses.replace(base, variables=fresh_variables(spec, small.SHAPE, key))
    train, unlabelled = base.train[base.train < 16], rows[rows >= 16]
    if name == "tent":
        train = train[:0]
    validation = base.validation if name != "tent" else base.validation[:0]
    return dataclasses.replace(base, train=train, validation=validation, unlabelled=unlabelled)


def settings_of(name: str):
    norms = ((r"bn\d+/.*", True), (".*", False)) if name == "tent" else ((".*", True),)
    spec = gated(small.SPEC, name)
    how = small.settings(max_epochs=3)
    return with_step(how, spec=spec, objective=OBJECTIVES[name], rules=norms)


def test_a_step_has_as_many_scans_of_both_sites_in_turn_and_comes_round():
    job = dataclasses.replace(job_of("coral"), unlabelled=np.array([20, 21, 22]))
    order = epoch_order(job, 1, 2)
    assert order.shape == (len(job.train) // 2, 4)
    assert sorted(order[:, ::2].ravel()) == sorted(set(order[:, ::2].ravel()))
    assert set(order[:, ::2].ravel()) <= set(job.train)
    counts = np.unique(order[:, 1::2], return_counts=True)
    assert set(counts[0]) == {20, 21, 22}
    assert counts[1].max() - counts[1].min() <= 1
    alone = epoch_order(job_of("tent"), 1, 2)
    assert alone.shape == (5, 2)
    assert set(alone.ravel()) == set(job_of("tent").unlabelled)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_an_interrupted_training_goes_on_to_the_same_bits_and_trains_what_it_should(name, tmp_path):
    how, job = settings_of(name), job_of(name)
    programs = Programs(Wave((jax.local_devices()[0],), forms="xla"))
    feed = OnDevice(small.volumes(), range(len(small.LABELS)))

    def train(folder, interrupted=lambda: False):
        training = resume(how, job, TrainingCheckpoints(folder))
        return fit(how, [training], feed, programs, Control(interrupted=interrupted))[0]

    calls = iter(range(1000))
    with quickly():  # one program does it all
        whole = train(tmp_path / "whole")
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", lambda: next(calls) == 4)
        ended = train(tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, ended.state, whole.state)
    first = begin(how, job).state.params
    mask = trainable_mask(how.step.rules, first)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), ended.state.params, first)
    frozen = jax.tree.map(lambda on, changed: not on and changed, mask, moved)
    assert not any(jax.tree.leaves(frozen))
    assert all(any(jax.tree.leaves(moved[layer])) for layer in (("bn1",) if name == "tent" else
               ("conv1", "bn2", "fc2")))  # fmt: skip
    assert ("site1" in first) == (name in ("dann", "ad2a"))
    assert ("att2" in first) == (name == "ad2a")
    if name == "tent":
        jax.tree.map(
            np.testing.assert_array_equal, ended.state.batch_stats, job.variables["batch_stats"]
        )


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_step_in_parts_is_the_step_of_the_whole_batch(name):
    with jax.enable_x64(True):
        spec = CNNSpec(repetitions=(1,), filters=(4,), fc=(8,), dropout=(0.5, 0.3), dtype="float64")
        spec, objective = gated(spec, name), OBJECTIVES[name]
        step = StepSettings(spec, OptimizerSettings(learning_rate=1e-2), objective=objective)
        variables = networks.drawn(spec, small.SHAPE, np.random.default_rng(1))
        draw = quick(partial(objective.layers, spec))
        layers = draw(variables["params"], typed_key(random_key(1, "site")))
        layers = jax.tree.map(partial(np.asarray, dtype=float), layers)
        variables["params"] = {**variables["params"], **layers}
        state = init_state(step, variables, random_key(1, "dropout"))
        image = jnp.asarray(small.volumes()[:8], float)
        both = Batch(image[:4], jnp.arange(4) % 2, jnp.ones(4), image[4:])
        nothing = both.replace(image=image[:0], label=both.label[:0], weight=both.weight[:0])
        batch = {"tent": nothing, "l2-sp": both.replace(unlabelled=None)}.get(name, both)
        parts = jax.tree.map(lambda x: x.reshape(2, len(x) // 2, *x.shape[1:]), batch)
        in_part = partial(train_step, step, batch_axis="part", forms="xla")
        in_parts = jax.vmap(in_part, (None, 0), axis_name="part")
        in_parts, at_once = quick(in_parts), compiled(step)
        for _ in range(2):  # the second with something remembered
            found, told = in_parts(state, parts)
            state, whole = at_once(state, batch)
            close = partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-10)
            for part in range(2):
                jax.tree.map(close, jax.tree.map(lambda x, part=part: x[part], found), state)
                close(told["loss"][part], whole["loss"], rtol=1e-6)
