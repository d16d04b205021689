import dataclasses

import jax
import numpy as np
import pytest

from mri_jax.training.augment import AugmentSettings
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs, Wave
from mri_jax.training.freezing import rules_for
from mri_jax.training.loop import Control, fit, resume, with_step
from mri_jax.training.prefix import frozen_layers, on_features
from tests.training.small import LABELS, SPEC, job, settings, volumes

PROGRAMS = Programs(Wave((jax.local_devices()[0],)))


def tuning(layers: str):
    return with_step(settings(max_epochs=2), rules=rules_for(layers, SPEC))


@pytest.mark.parametrize(("layers", "layers_frozen"), [("high", 1), ("head", 2)])
def test_tuning_on_features_is_tuning_on_volumes(tmp_path, layers, layers_frozen):
    how, one, results = tuning(layers), job(1), []
    # In an order of their own, as where a study holds other scans than these.
    order = np.random.default_rng(2).permutation(len(LABELS))
    feed = OnDevice(volumes()[order], order)
    assert frozen_layers(how, one.variables["params"]) == layers_frozen
    for number in range(2):
        place = TrainingCheckpoints(tmp_path / str(number))
        training, ready = resume(how, one, place), (how, feed)
        if number:
            ready = on_features(how, [training], feed, PROGRAMS)
        results += fit(ready[0], [training], ready[1], PROGRAMS, Control())
    assert ready[0].step.first == layers_frozen + 1
    volumes_way, features_way = results
    for a, b in zip(*(jax.tree.leaves(r.best) for r in results), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    np.testing.assert_allclose(volumes_way.history[:, :2], features_way.history[:, :2], atol=1e-5)
    start = one.variables["params"]["fc1"]["kernel"]
    assert np.abs(features_way.best["params"]["fc1"]["kernel"] - start).max() > 1e-4


def test_nothing_is_cached_where_features_change():
    one = job(0)
    assert frozen_layers(tuning("low"), one.variables["params"]) == 0
    adapting = with_step(tuning("head"), frozen_statistics="adapt")
    assert frozen_layers(adapting, one.variables["params"]) == 0
    altered = dataclasses.replace(tuning("head"), augment=AugmentSettings(flip=True))
    assert frozen_layers(altered, one.variables["params"]) == 0
