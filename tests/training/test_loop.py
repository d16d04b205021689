import dataclasses
import time
from functools import partial

import jax
import numpy as np
import pytest

from mri_jax.interruption import Interrupted
from mri_jax.keys import random_key
from mri_jax.models import CNN
from mri_jax.models.cnn import fresh_variables
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import OnDevice, Streamed, ahead
from mri_jax.training.folds import Programs
from mri_jax.training.inference import cross_entropy, outputs, predict
from mri_jax.training.job import epoch_order, with_step
from mri_jax.training.loop import Control, fit, resume
from mri_jax.training.wave import Wave
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.stream import Reader
from tests.compiling import quickly
from tests.tiny import make_cohorts
from tests.training.small import LABELS, SHAPE, SPEC, job, settings, volumes

WAVE = Wave((jax.local_devices()[0],))
PROGRAMS = Programs(WAVE)
ROWS = range(len(LABELS))


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """What goes on around steps is tested here; their arithmetic is in `test_step`."""
    with quickly():
        yield


def train(folder, fold=0, how=None, feed=None, interrupted=lambda: False, one=None):
    how, epochs = how or settings(), []
    training = resume(how, one or job(fold), TrainingCheckpoints(folder))
    control = Control(epochs.append, interrupted)
    ended = fit(how, [training], feed or OnDevice(volumes(), ROWS), PROGRAMS, control)
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
    feed, stacked = OnDevice(volumes(), ROWS), WAVE.stack([ended.best])
    (logits,) = predict(settings().step, stacked, [job(0).validation], feed, PROGRAMS)
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
    here, _ = train(tmp_path / "a", one=one, feed=OnDevice(reader.load(2), ROWS))
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


def test_cross_entropy_is_that_of_any_number_of_classes():
    rng = np.random.default_rng(1)
    three, label = rng.normal(0, 9, (50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    wide = three.astype(float)
    by_hand = [np.log(np.exp(row - row[k]).sum()) for row, k in zip(wide, label, strict=True)]
    assert cross_entropy(three, label) == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert np.isnan(cross_entropy(np.where(three > 20, np.inf, three + 20), label))
    # Of two classes the bits are those of the margin, by which earlier versions computed it.
    two, label = rng.normal(0, 9, (5000, 2)).astype(np.float32), rng.integers(0, 2, 5000)
    two[:50, 1] = two[:50, 0]
    margin = (two[:, 1].astype(float) - two[:, 0].astype(float)) * (2 * label - 1)
    assert cross_entropy(two, label) == float(np.logaddexp(0.0, -margin).mean())


def test_logits_and_features_of_scans_in_any_order_and_an_end_between_batches():
    step, variables = settings().step, job(0).variables
    feed, stacked = OnDevice(volumes(), ROWS), WAVE.stack([variables])
    rows = [np.array([20, 3, 7, *range(8, 18)])]
    ((logits, features),) = outputs(step, stacked, rows, feed, PROGRAMS, lambda: False)
    (alone,) = predict(step, stacked, rows, feed, PROGRAMS)
    np.testing.assert_allclose(logits, alone, rtol=1e-6, atol=1e-6)
    run = partial(CNN(SPEC, forms="reference").apply, train=False, method="outputs")
    made = jax.jit(run)(variables, volumes()[rows[0]])
    np.testing.assert_allclose(features, made.penultimate, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, made.logits, rtol=1e-5, atol=1e-5)
    asked = []
    with pytest.raises(Interrupted):
        outputs(step, stacked, rows, feed, PROGRAMS, lambda: asked.append(0) or len(asked) == 2)
    assert len(asked) == 2  # before the second of two batches


def test_three_classes_are_trained_and_told_apart(tmp_path):
    spec = dataclasses.replace(SPEC, classes=3)
    how = with_step(settings(), spec=spec)
    one = dataclasses.replace(
        job(1), labels=np.arange(26) % 3, variables=fresh_variables(spec, SHAPE, random_key(7, "3"))
    )
    ended, epochs = train(tmp_path, how=how, one=one)
    assert epochs[0].figures["validation_loss"] == pytest.approx(np.log(3), abs=0.5)
    feed, stacked = OnDevice(volumes(), ROWS), WAVE.stack([ended.best])
    (logits,) = predict(how.step, stacked, [np.arange(9)], feed, PROGRAMS)
    assert logits.shape == (9, 3)
    loss = cross_entropy(
        predict(how.step, stacked, [one.validation], feed, PROGRAMS)[0], one.labels[one.validation]
    )
    assert loss == pytest.approx(float(ended.stopping.best_loss), abs=1e-12)


def test_parameters_come_to_the_host_only_to_be_saved(tmp_path, monkeypatch):
    fetched, fetch = [], Wave.fetch
    monkeypatch.setattr(Wave, "fetch", lambda wave, tree: fetched.append(0) or fetch(wave, tree))
    training = resume(settings(), job(0), TrainingCheckpoints(tmp_path))
    feed, epochs = OnDevice(volumes(), ROWS), []
    fit(settings(), [training], feed, PROGRAMS, Control(epochs.append, save_seconds=1000.0))
    assert len(epochs) > 1
    assert len(fetched) == 2  # the state and the best network, once


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
    one, how, place = job(0), settings(), TrainingCheckpoints(tmp_path)
    feed, control = OnDevice(volumes(), ROWS), Control(save_seconds=1000.0)
    (ended,) = fit(how, [resume(how, one, place)], feed, PROGRAMS, control)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["0"]
    again = resume(how, one, place).state
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
