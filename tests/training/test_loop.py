import dataclasses
import time

import jax
import numpy as np
import pytest

from mri_jax.training.augment import AugmentSettings
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import OnDevice, Streamed, ahead
from mri_jax.training.folds import Wave
from mri_jax.training.loop import (
    Interrupted,
    cross_entropy,
    epoch_order,
    fit,
    predict,
    resume,
)
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.stream import Reader
from tests.tiny import make_cohorts
from tests.training.small import LABELS, job, settings, volumes

WAVE = Wave((jax.local_devices()[0],))


def train(folder, fold=0, how=None, feed=None, interrupted=lambda: False, one=None):
    one, epochs = one or job(fold), []
    place, how = TrainingCheckpoints(folder), how or settings()
    states = [resume(how, one, place)]
    feed = feed or OnDevice(volumes())
    ended = fit(how, [one], states, [place], feed, WAVE, epochs.append, interrupted)
    return ended[0], epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted training, and what it reported."""
    return train(tmp_path_factory.mktemp("whole"))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_order_is_a_function_of_seed_purpose_and_epoch():
    first, again = epoch_order(job(1), 3, 2), epoch_order(job(1), 3, 2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, epoch_order(job(1), 4, 2))
    assert len(set(first.ravel())) == first.size
    assert set(first.ravel()) <= set(job(1).train)


def test_the_best_epoch_is_returned_and_later_epochs_do_not_change_it(whole):
    ended, epochs = whole
    best = int(ended.stopping.best_epoch)
    assert best == min(range(len(epochs)), key=lambda i: epochs[i].figures["validation_loss"]) + 1
    logits = predict(settings(), WAVE.stack([ended.best]), [job(0).validation],
                     OnDevice(volumes()), WAVE)[0]  # fmt: skip
    loss = cross_entropy(logits, LABELS[job(0).validation])
    assert loss == pytest.approx(epochs[best - 1].figures["validation_loss"], abs=1e-12)


@pytest.mark.parametrize("stop_after", [1, 4, 11, 17])
def test_an_interrupted_training_continues_to_the_same_bits(whole, tmp_path, stop_after):
    whole, _ = whole
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", interrupted=lambda: next(calls) == stop_after)
    ended, _ = train(tmp_path / "cut")
    same(ended.best, whole.best)
    same(ended.state, whole.state)
    columns = [0, 1, 4]  # losses and not-finite steps; seconds differ
    np.testing.assert_array_equal(ended.history[:, columns], whole.history[:, columns])


def test_a_stream_gives_the_same_bits_as_volumes_on_the_device(tmp_path):
    _, path = make_cohorts(tmp_path, subjects=13, cohorts=("ADNI1",))
    store = VolumeStore(path)
    keys = tuple((f"ADNI1-{i:03d}", "bl") for i in range(26))
    reader = Reader(store, keys, Normalisation())
    one = dataclasses.replace(job(2), labels=1 - LABELS)
    here, _ = train(tmp_path / "a", one=one, feed=OnDevice(reader.load(2)))
    there, epochs = train(tmp_path / "b", one=one, feed=Streamed(reader, threads=2, prefetch=3))
    same(here.best, there.best)
    same(here.state, there.state)
    assert 0 <= epochs[0].figures["waiting"] < 1


def test_without_validation_the_last_epoch_is_the_result(tmp_path):
    one = dataclasses.replace(job(0), validation=np.zeros(0, int))
    ended, epochs = train(tmp_path, one=one, how=settings(max_epochs=2))
    same(ended.best, ended.state.variables)
    assert len(epochs) == 2
    assert np.isnan(epochs[0].figures["validation_loss"])


def test_class_weights_scale_the_training_loss(whole, tmp_path):
    one = dataclasses.replace(job(0), weights=np.where(LABELS == 1, 3.0, 1.0).astype(np.float32))
    weighted, _ = train(tmp_path, one=one)
    assert weighted.history[0, 0] != whole[0].history[0, 0]


def test_augmentation_is_deterministic_and_does_something(tmp_path):
    how = settings(max_epochs=2, augment=AugmentSettings(flip=True, shift=1, noise=0.1))
    first, _ = train(tmp_path / "1", how=how)
    again, _ = train(tmp_path / "2", how=how)
    plain, _ = train(tmp_path / "3", how=settings(max_epochs=2))
    same(first.best, again.best)
    assert first.history[0, 0] != plain.history[0, 0]


def test_a_training_goes_on_from_the_state_before_a_damaged_one(tmp_path, whole):
    train(tmp_path)
    newest = max(tmp_path.iterdir(), key=lambda path: int(path.name))
    (newest / "state.json").write_text("{", encoding="utf-8")
    ended, epochs = train(tmp_path)
    assert [each.epoch for each in epochs] == [int(ended.stopping.epochs)]
    same(ended.state, whole[0].state)
    same(ended.best, whole[0].best)


def test_states_are_saved_now_and_then_and_at_the_end(tmp_path):
    """A long interval saves once, at the end; what is saved there is the end."""
    one, how = job(0), settings()
    place = TrainingCheckpoints(tmp_path)
    states = [resume(how, one, place)]
    ended = fit(how, [one], states, [place], OnDevice(volumes()), WAVE,
                lambda _: None, lambda: False, save_seconds=1000.0)[0]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["0"]
    again = resume(how, one, place)
    same(again.state, ended.state)
    same(again.best, ended.best)
    assert int(again.stopping.epochs) == int(ended.stopping.epochs) > 1


def test_the_next_item_is_made_while_the_present_one_is_used():
    made = []

    def items():
        for number in range(4):
            made.append(number)
            yield number

    stream = ahead(items())
    assert next(stream) == 0
    deadline = time.monotonic() + 20
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [0, 1]  # one ahead, no more
    assert list(stream) == [1, 2, 3]
