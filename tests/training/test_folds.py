"""Folds on several devices (forced on the host) against one device, as real processes."""

import dataclasses
import gc
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mri_jax.training.augment import AugmentSettings
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import OnDevice, StreamedPerFold
from mri_jax.training.folds import Programs, Steps
from mri_jax.training.inference import predict
from mri_jax.training.job import with_step
from mri_jax.training.loop import Control, fit, resume
from mri_jax.training.objectives.coral import Coral
from mri_jax.training.statistics import reestimated
from mri_jax.training.step import OptimizerSettings
from mri_jax.training.wave import Wave
from tests.compiling import XLA_FLAGS
from tests.conftest import ROOT
from tests.training.small import LABELS, SPEC, job, settings, volumes


def train_all(folder: str, out: str, split: str, name: str, at_once: str) -> None:
    """Train four folds, some at once, on the devices at hand; save epochs and logits of all scans.

    ``name``: ``source``, or ``coral``, whose statistics are then estimated on the target's scans.
    """
    full, count = Programs(Wave(tuple(jax.local_devices()), int(split))), int(at_once)
    feed = OnDevice(volumes(), range(len(LABELS)))
    how = settings(max_epochs=5, augment=AugmentSettings(noise=0.1))
    if name == "coral":
        how = with_step(how, objective=Coral(weight=10.0, memory=8))
    logits, epochs = [], []
    for start in range(0, 4, count):
        folds = range(start, min(start + count, 4))
        programs = full.of(len(folds))
        trainings = [
            resume(how, learnt(name, i), TrainingCheckpoints(f"{folder}/{at_once}-{split}/{i}"))
            for i in folds
        ]
        ended = fit(how, trainings, feed, programs, Control())
        rows = [np.arange(len(LABELS))] * len(folds)
        assert_parts_are_equal(how, programs, ended)
        networks = [e.best for e in ended]
        if name == "coral":
            plain, shown = (
                Programs(programs.wave.unsplit),
                [np.arange(16, len(LABELS))] * len(folds),
            )
            there = plain.wave.stack(networks)
            found = reestimated(how.step, there, shown, feed, plain)
            networks = [n | {"batch_stats": s} for n, s in zip(networks, found, strict=True)]
            plain.release()
        stacked = programs.wave.stack(networks)
        logits += predict(how.step, stacked, rows, feed, programs)
        epochs += [(int(e.stopping.epochs), int(e.stopping.best_epoch)) for e in ended]
    client = jax.local_devices()[0].client
    compiled = len(client.live_executables())
    del programs, trainings, stacked
    full.release()
    gc.collect()
    assert len(client.live_executables()) < compiled
    np.savez(out, logits=np.stack(logits), epochs=np.array(epochs))


def learnt(name, fold):
    """Returns the training of a fold; with ``coral`` the last ten scans are the target's."""
    one = job(fold)
    if name == "source":
        return one
    rows = np.arange(len(LABELS))
    return dataclasses.replace(one, train=one.train[one.train < 16], unlabelled=rows[rows >= 16])


def assert_parts_are_equal(how, programs, ended):
    """One more step of the wave leaves the same bits on all devices of a fold."""
    wave = programs.wave
    rows = np.tile(np.arange(how.volumes, dtype=np.int32), (wave.folds, 1, 1))
    steps = Steps(rows, rows, np.ones(rows.shape, np.float32), np.ones((wave.folds, 1), bool))
    program = programs.train(how.step, how.augment)
    state, _ = program(wave.stack([e.state for e in ended]), wave.copies(volumes()), steps)
    for leaf in jax.tree.leaves(state):
        held = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(held) == len(wave.devices)
        for first in range(0, len(held), wave.split):
            for other in held[first : first + wave.split]:
                np.testing.assert_array_equal(other, held[first])


def run(tmp_path, devices: int, split: int = 1, name: str = "source", at_once: int | None = None):
    code = "import sys; from tests.training.test_folds import train_all; train_all(*sys.argv[1:])"
    flags = f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
    out, at_once = tmp_path / f"{devices}-{split}.npz", at_once or devices // split
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(out), str(split), name, str(at_once)],
        env={**os.environ, "XLA_FLAGS": flags}, cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    return np.load(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Four folds one after another on one device."""
    found = run(tmp_path_factory.mktemp("alone"), 1)
    # Folds stop at different epochs, so a stopped fold kept its best state while others went on.
    assert len(set(found["epochs"][:, 0])) > 1
    assert np.abs(found["logits"]).max() > 0.1
    return found


# Four folds at once (slow); two at once, the batches of each split over two devices.
@pytest.mark.parametrize(("devices", "split"), [pytest.param(4, 1, marks=pytest.mark.slow), (4, 2)])
def test_several_devices_give_the_predictions_of_one(alone, tmp_path, devices, split):
    several = run(tmp_path, devices, split)
    np.testing.assert_array_equal(several["epochs"], alone["epochs"])
    np.testing.assert_allclose(several["logits"], alone["logits"], atol=1e-5)


# Four on one device; three on two devices, which leaves a place that repeats the third, then one.
@pytest.mark.parametrize(("devices", "at_once"), [(1, 4), (2, 3)])
def test_folds_side_by_side_give_the_predictions_of_one_by_one(alone, tmp_path, devices, at_once):
    beside = run(tmp_path, devices, at_once=at_once)
    np.testing.assert_array_equal(beside["epochs"], alone["epochs"])
    np.testing.assert_allclose(beside["logits"], alone["logits"], atol=1e-5)


@pytest.mark.slow
def test_several_devices_adapt_as_one_does(tmp_path):
    one = run(tmp_path, 1, name="coral")
    assert np.abs(one["logits"]).max() > 0.1
    for devices, split in ((4, 1), (4, 2)):
        several = run(tmp_path, devices, split, "coral")
        np.testing.assert_array_equal(several["epochs"], one["epochs"])
        np.testing.assert_allclose(several["logits"], one["logits"], atol=1e-5)


def test_a_batch_of_evaluation_can_be_split():
    assert [Wave((), split).whole(8) for split in (1, 2, 3, 5)] == [8, 8, 9, 10]


def test_devices_that_cannot_be_shared_out_are_refused():
    assert Wave(("device",) * 6, 2).folds == 3
    assert len(Wave(("device",) * 6, 2).of(2).devices) == 4
    with pytest.raises(ValueError, match="5 devices cannot be split by 2"):
        Wave(("device",) * 5, 2)
    with pytest.raises(ValueError, match="devices that share a batch train one fold"):
        Wave(("device",) * 6, 2).of(4)


def test_more_folds_than_devices_lie_side_by_side():
    two = Wave(("device",) * 2)
    assert [(w.folds, len(w.devices), w.beside) for w in map(two.of, (1, 2, 3, 4))] == [
        (1, 1, 1),
        (2, 2, 1),
        (3, 2, 2),
        (4, 2, 2),
    ]
    assert two.of(3).of(1) == two.of(1)


@pytest.mark.parametrize("folds", [1, 4])
def test_what_is_streamed_to_a_device_at_a_time_is_shared_by_its_folds(monkeypatch, folds):
    volume = int(np.prod(volumes().shape[1:])) * 4
    monkeypatch.setattr("mri_jax.training.feed.STREAMED_BYTES", 24 * volume)
    monkeypatch.setattr(Wave, "steps_per_program", 64)
    wave, rows = Wave(tuple(jax.local_devices()[:1])).of(folds), np.arange(24, dtype=np.int32)
    each = np.tile(rows.reshape(1, 12, 2), (folds, 1, 1))
    steps = Steps(each, each % 2, np.ones(each.shape, np.float32), np.ones((folds, 12), bool))
    feed = StreamedPerFold([volumes()[:24]] * folds, rows)
    sizes = [shown.nbytes // volume for shown, _ in feed.chunks(steps, 0, wave)]
    assert max(sizes) == 24
    assert sum(sizes) == 24 * folds


def test_compiled_programs_can_be_released():
    client = jax.local_devices()[0].client

    def alive():
        gc.collect()
        return len(client.live_executables())

    programs = Programs(Wave(tuple(jax.local_devices()[:1])))
    wave, one, how = programs.wave, job(0), settings()
    feed, before = OnDevice(volumes(), range(len(LABELS))), alive()
    predict(how.step, wave.stack([one.variables]), [one.validation], feed, programs)
    assert programs.evaluate(SPEC) is programs.evaluate(SPEC)
    assert alive() > before
    programs.release()
    assert alive() == before


def test_a_nan_is_found_where_it_arises(tmp_path):
    how = with_step(settings(), optimizer=OptimizerSettings(learning_rate=1e30))
    programs = Programs(Wave(tuple(jax.local_devices()[:1])))
    with jax.debug_nans(True):
        training = resume(how, job(0), TrainingCheckpoints(tmp_path))
        feed = OnDevice(volumes(), range(len(LABELS)))
        with pytest.raises(FloatingPointError, match="invalid value"):
            fit(how, [training], feed, programs, Control())
