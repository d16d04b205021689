import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mri_jax.errors import UserError
from mri_jax.evaluation import linear
from mri_jax.evaluation.blocks import block_mean
from mri_jax.evaluation.metrics import auc


def test_age_and_sex_recover_known_log_odds(rng):
    age, sex = rng.uniform(55, 90, 40_000), rng.integers(0, 2, 40_000)
    log_odds = 0.08 * (age - 73) - 0.5 * sex
    label = (rng.uniform(size=40_000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    model = linear.fit_covariates(np.stack([age, sex], axis=1), label)
    per_unit = model.weights / model.scale
    assert per_unit == pytest.approx([0.08, -0.5], abs=0.05)
    logits = model.logits(np.array([[73.0, 0.0], [83.0, 0.0]]))
    assert logits.shape == (2, 2)
    assert (logits[:, 0] == 0).all()
    assert logits[1, 1] - logits[0, 1] == pytest.approx(0.8, abs=0.05)


def test_a_missing_age_counts_as_the_training_mean():
    features = np.array([[60.0], [70.0], [80.0], [np.nan]])
    model = linear.fit_covariates(features, np.array([0, 0, 1, 1]))
    assert model.centre == pytest.approx([70.0])
    np.testing.assert_allclose(model.logits(np.array([[np.nan]])), model.logits(np.array([[70.0]])))


def test_voxel_fit_equals_scikit_learn_on_the_voxels(rng):
    label = np.tile([0, 1], 20)
    volumes = rng.normal(size=(40, 90)).astype(np.float32) + 0.3 * label[:, None]
    model = linear.fit_voxels(volumes, label, seed=3)
    centred = (volumes - volumes.mean(axis=0)).astype(float)
    size = (centred**2).sum(axis=1).mean()
    direct = LogisticRegression(C=1 / model.penalty, max_iter=5000, tol=1e-8).fit(
        centred / np.sqrt(size), label
    )
    test = rng.normal(size=(7, 90)).astype(np.float32)
    expected = direct.decision_function((test - volumes.mean(axis=0)) / np.sqrt(size))
    np.testing.assert_allclose(model.logits(test)[:, 1], expected, rtol=2e-2, atol=2e-3)


def test_penalty_is_the_one_of_least_inner_loss_and_pays_off(rng):
    signal = rng.normal(size=300)
    label = np.tile([0, 1], 100)
    volumes = (rng.normal(size=(200, 300)) * 2 + label[:, None] * signal * 0.3).astype(np.float32)
    model = linear.fit_voxels(volumes[:120], label[:120], seed=1)
    chosen = linear.PENALTIES.index(model.penalty)
    assert chosen == int(np.argmin(model.losses))
    assert auc(label[120:], model.logits(volumes[120:])[:, 1]) > 0.7


def test_a_hundred_thousand_voxels_take_seconds(rng):
    label = np.tile([0, 1], 100)
    volumes = rng.normal(size=(200, 100_000)).astype(np.float32)
    started = time.process_time()
    linear.fit_voxels(volumes, label, seed=1)
    assert time.process_time() - started < 20


def test_block_mean_has_unequal_axes_and_drops_the_rest():
    volume = np.arange(5 * 6 * 9, dtype=np.float32).reshape(5, 6, 9)
    flat = block_mean(volume, spacing=2.0)
    assert flat.shape == (2 * 3 * 4,)
    assert flat.reshape(2, 3, 4)[1, 2, 3] == volume[2:4, 4:6, 6:8].mean()
    assert block_mean(volume, spacing=4.0).shape == (5 * 6 * 9,)


@pytest.mark.parametrize(
    ("volumes", "label", "word"),
    [
        (np.ones((4, 3)), [0, 1, 0, 1], "equal"),
        (np.full((4, 3), np.nan), [0, 1, 0, 1], "NaN"),
        (np.eye(4), [1, 1, 1, 1], "one class"),
        (np.eye(4), [1, 0, 0, 0], "single training subject"),
    ],
)
def test_bad_training_input_is_named(volumes, label, word):
    with pytest.raises(UserError, match=word):
        linear.fit_voxels(volumes, np.array(label), seed=1)


def test_a_covariate_that_separates_the_classes_is_recognised():
    label = np.array([0, 0, 1, 1, 1])
    assert linear.separates([60, 61, 70, 71, np.nan], label)
    assert linear.separates([1, 1, 0, 0, 0], label)
    assert not linear.separates([60, 70, 70, 71, 72], label)
    assert not linear.separates([60, np.nan, np.nan, np.nan, np.nan], label)
    assert not linear.separates([1, 1, 1, 1, 1], label)
