import dataclasses

import jax
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.devices import fold_budget
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs
from mri_jax.training.freezing import rules_for
from mri_jax.training.job import with_step
from mri_jax.training.loop import Control, fit, resume
from mri_jax.training.prefix import frozen_layers, on_features
from mri_jax.training.wave import Wave
from tests.compiling import quickly
from tests.training.small import LABELS, SPEC, job, settings, volumes

PROGRAMS = Programs(Wave((jax.local_devices()[0],)))


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """Two ways to one training are compared; the arithmetic of steps is in `test_step`."""
    with quickly():
        yield


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


def test_features_without_room_on_the_devices_are_streamed(tmp_path, monkeypatch):
    how, one = tuning("high"), job(1)
    feed = OnDevice(volumes(), range(len(LABELS)))
    here, there = [], []
    for room, results in ((2**30, here), (100_000, there)):
        monkeypatch.setattr("mri_jax.training.devices.available_memory", lambda room=room: room)
        training = resume(how, one, TrainingCheckpoints(tmp_path / str(room)))
        ready, seen = on_features(how, [training], feed, PROGRAMS)
        results += [seen, *fit(ready, [training], seen, PROGRAMS, Control())]
    # 26 scans x 4 x 6 x 5 voxels x 4 filters, and 40% of what the host has.
    assert here[0].held == 26 * 4 * 6 * 5 * 4 * 4 == 49_920 > 0.4 * 100_000
    assert there[0].held == 0
    for a, b in zip(*(jax.tree.leaves(r[1].best) for r in (here, there)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_features_that_the_host_has_no_room_for_are_refused(tmp_path, monkeypatch):
    training = resume(tuning("high"), job(1), TrainingCheckpoints(tmp_path))
    feed = OnDevice(volumes(), range(len(LABELS)))
    monkeypatch.setattr("mri_jax.training.prefix.available_memory", lambda: 40_000)
    with pytest.raises(UserError, match=r"output of conv layer 1, .* for 26 scans in 1 fold;"):
        on_features(tuning("high"), [training], feed, PROGRAMS)


def test_volumes_and_features_share_the_memory_of_an_accelerator():
    class Device:
        platform, process_index = "gpu", 0

        def memory_stats(self):
            return {"bytes_limit": 1000}

    two = Wave((Device(), Device()))
    assert [fold_budget(two.of(folds), held=300) for folds in (2, 4)] == [200, 100]


def test_nothing_is_cached_where_features_change():
    one = job(0)
    assert frozen_layers(tuning("low"), one.variables["params"]) == 0
    adapting = with_step(tuning("head"), frozen_statistics="adapt")
    assert frozen_layers(adapting, one.variables["params"]) == 0
    altered = dataclasses.replace(tuning("head"), augment=AugmentSettings(flip=True))
    assert frozen_layers(altered, one.variables["params"]) == 0
