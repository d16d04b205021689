import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mri_jax.errors import UserError
from mri_jax.evaluation import metrics
from mri_jax.evaluation.predictions import NEEDED, probability_of


def table(label, difference, fold, **columns):
    """A predictions table of one network; ``difference`` is logit_1 - logit_0."""
    label, difference = np.asarray(label), np.asarray(difference, float)
    logits = np.stack([-difference / 2, difference / 2], axis=1)
    base = {"run": "cnn5-w1", "stage": "source", "repeat": 0, "cohort": "B", "split": "test"}
    frame = pd.DataFrame(
        {
            **(base | columns),
            "fold": fold,
            "subject_id": [f"s{i:05d}" for i in range(len(label))],
            "session_id": "m00",
            "label": label,
            "logit_0": logits[:, 0],
            "logit_1": logits[:, 1],
            "probability": probability_of(logits),
        }
    )
    return frame[list(NEEDED)]


labelled = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])), min_size=1
)


@settings(deadline=None, max_examples=60)
@given(labelled)
def test_auc_is_the_share_of_ordered_pairs(pairs):
    label = np.array([p[0] for p in pairs])
    score = np.array([p[1] for p in pairs])
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in score[label == 1]
        for n in score[label == 0]
    ]
    if wins:
        assert metrics.auc(label, score) == pytest.approx(np.mean(wins), abs=1e-12)
    else:
        assert np.isnan(metrics.auc(label, score))


def test_five_metrics_agree_with_scikit_learn(rng):
    label = rng.integers(0, 2, 83)
    probability = np.round(rng.uniform(size=83) * 0.7 + 0.3 * label, 1)
    ours = metrics.five_metrics(label, probability, threshold=0.6)
    decided = probability > 0.6
    assert ours.auc == pytest.approx(sk.roc_auc_score(label, probability))
    assert ours.acc == pytest.approx(sk.accuracy_score(label, decided))
    assert ours.bac == pytest.approx(sk.balanced_accuracy_score(label, decided))
    assert ours.sen == pytest.approx(sk.recall_score(label, decided))
    assert ours.spe == pytest.approx(sk.recall_score(1 - label, ~decided))


def test_a_tie_goes_to_the_negative_class_as_argmax_does():
    assert metrics.five_metrics([1, 0], [0.5, 0.5]).sen == 0.0


def test_one_class_leaves_only_what_is_defined():
    ours = metrics.five_metrics(np.ones(4), [0.9, 0.8, 0.7, 0.1])
    assert (ours.acc, ours.sen) == (0.75, 0.75)
    assert np.isnan([ours.auc, ours.bac, ours.spe]).all()


@pytest.mark.parametrize(
    ("label", "probability", "word"),
    [([0, 1], [0.1], "shape"), ([0, 2], [0.1, 0.2], "0 or 1"), ([0, 1], [0.1, np.nan], "NaN")],
)
def test_bad_input_is_named(label, probability, word):
    with pytest.raises(UserError, match=word):
        metrics.five_metrics(label, probability)


def test_saturated_probabilities_still_order_scans():
    frame = table([0, 1, 0, 1], [40.0, 90.0, 41.0, 95.0], fold=0)
    assert (frame["probability"] == 1.0).all()
    assert metrics.metrics_table(frame)["auc"].item() == 1.0


def test_metrics_table_marks_nan_scores_instead_of_dropping_them():
    frame = table([0, 1, 0, 1], [0.1, np.nan, 0.2, 0.3], fold=0)
    row = metrics.metrics_table(frame).iloc[0]
    assert (row["n_positive"], row["n_negative"], row["n_nan"]) == (2, 2, 1)
    assert row[list(metrics.METRICS)].isna().all()


def test_ensemble_is_the_mean_probability_over_folds(rng):
    label = rng.integers(0, 2, 31)
    folds = [table(label, rng.normal(size=31) * 3, fold=k) for k in range(3)]
    held_out = table(label[:5], np.ones(5), fold=0, split="validation", cohort="A")
    mean = metrics.ensemble(pd.concat([*folds, held_out]).sample(frac=1, random_state=1))
    expected = np.mean([f["probability"] for f in folds], axis=0)
    np.testing.assert_allclose(mean["probability"], expected, atol=1e-14)
    logits = mean[["logit_0", "logit_1"]].to_numpy()
    np.testing.assert_allclose(probability_of(logits), expected, atol=1e-14)
    assert set(mean["fold"]) == {metrics.ENSEMBLE}
    assert set(mean["split"]) == {"test"}


def test_ensemble_leaves_out_single_folds_and_scans_that_a_fold_did_not_see(rng):
    full = table([0, 1, 1], [0.1, 0.2, 0.3], fold=0)
    partial = table([0, 1], [0.1, 0.2], fold=1)
    assert list(metrics.ensemble(pd.concat([full, partial]))["subject_id"]) == ["s00000", "s00001"]
    assert metrics.ensemble(full).empty


def test_mean_and_sd_use_n_minus_one_and_leave_the_ensemble_out(rng):
    label = np.r_[np.ones(7), np.zeros(9)].astype(int)
    folds = pd.concat([table(label, rng.normal(size=16) + label, fold=k) for k in range(5)])
    rows = metrics.metrics_table(pd.concat([folds, metrics.ensemble(folds)]))
    assert len(rows) == 6
    mean = metrics.mean_and_sd(rows).iloc[0]
    single = rows.loc[rows["fold"] >= 0, "auc"]
    assert mean["networks"] == 5
    assert mean["auc_mean"] == pytest.approx(single.mean())
    assert mean["auc_sd"] == pytest.approx(np.sqrt(((single - single.mean()) ** 2).sum() / 4))


def test_mean_over_networks_is_undefined_when_one_network_is():
    frame = pd.concat([table([0, 1], [0.1, 0.3], fold=0), table([0, 1], [0.1, np.nan], fold=1)])
    assert np.isnan(metrics.mean_and_sd(metrics.metrics_table(frame))["auc_mean"].item())
