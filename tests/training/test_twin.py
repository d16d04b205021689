"""The same network in PyTorch takes the same steps."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.keys import random_key
from mri_jax.models import CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.training import freezing, step
from mri_jax.training.state import Batch
from tests.conftest import needs_compiler

SHAPE = (48, 56, 48)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("member", ["cnn5", "cnn7"])
def test_twenty_losses_agree_with_pytorch(rng, member):
    pytest.importorskip("torch", reason="extra bench")
    from benchmarks import contenders, twin

    spec = CNNSpec.preset(member)
    spec = dataclasses.replace(spec, dropout=(0.0,) * len(spec.dropout))
    settings = step.StepSettings(spec, rules=freezing.rules_for("all", spec))
    variables = fresh_variables(spec, SHAPE, random_key(3, "init"))
    volumes = rng.normal(size=(20, 2, *SHAPE, 1)).astype(np.float32)
    volumes[:, :, :20] = -1.25
    labels = np.tile([0, 1], (20, 1))
    volumes[:, 1] += 0.3
    state = step.init_state(settings, variables, random_key(3, "dropout"))
    advance, ours = jax.jit(partial(step.train_step, settings, forms="native")), []
    for x, y in zip(volumes, labels, strict=True):
        state, metrics = advance(state, Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(2)))
        ours.append(float(metrics["loss"]))
    network = contenders.torch_network(spec, SHAPE)
    twin.copy_weights(variables, network, spec)
    batches = zip(volumes, labels, strict=True)
    theirs = list(twin.losses(network, settings.optimizer.learning_rate, batches))
    assert ours[-1] < ours[0] - 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)
