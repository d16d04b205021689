import numpy as np
import pandas as pd
import pytest
import synthetic_run
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from mri_jax.errors import UserError
from mri_jax.evaluation import calibration, operating
from mri_jax.evaluation.metrics import five_metrics
from mri_jax.evaluation.scores import gather


def test_temperature_recovers_the_scale_of_the_scores(rng):
    logit = rng.normal(size=60_000) * 2
    label = (rng.uniform(size=60_000) < 1 / (1 + np.exp(-logit))).astype(int)
    assert calibration.temperature(label, 3.0 * logit) == pytest.approx(3.0, rel=0.03)
    assert np.isnan(calibration.temperature(np.ones(4), np.arange(4.0)))


def test_brier_and_ece_against_scikit_learn_and_by_hand(rng):
    label, probability = rng.integers(0, 2, 50), rng.uniform(size=50)
    expected = brier_score_loss(label, probability)
    assert calibration.brier(label, probability) == pytest.approx(expected)
    hand = calibration.ece(np.array([1, 1, 0, 0]), np.array([0.9, 0.9, 0.95, 0.15]))
    assert hand == pytest.approx((3 * abs(2 / 3 - 2.75 / 3) + 0.15) / 4)


def test_reliability_bins_hold_every_scan(rng):
    label, probability = rng.integers(0, 2, 71), rng.uniform(size=71)
    probability[:2] = 0.0, 1.0
    table = calibration.reliability(label, probability, bins=7)
    assert table["n"].sum() == 71
    assert ((table["predicted"] >= table["low"]) & (table["predicted"] <= table["high"])).all()
    assert (table["observed"] * table["n"]).sum() == pytest.approx(label.sum())


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([-2.0, -1, 0, 0.5, 1, 3])), min_size=2)
)
def test_best_threshold_is_the_best_of_all(pairs):
    label, score = (np.array(column) for column in zip(*pairs, strict=True))
    if len(set(label)) < 2:
        assert np.isnan(operating.best_threshold(label, score))
        return
    ours = five_metrics(label, score, operating.best_threshold(label, score)).bac
    every = [five_metrics(label, score, cut).bac for cut in np.arange(-3, 4.01, 0.25)]
    assert ours == pytest.approx(max(every))


def test_thresholds_of_a_network_come_from_its_own_held_out_fold():
    predictions, _ = synthetic_run.make_predictions()
    fitted = operating.of_folds(predictions, "cnn5-w1")
    fold = predictions.query("run == 'cnn5-w1' and split == 'validation' and fold == 3")
    score = (fold["logit_1"] - fold["logit_0"]).to_numpy()
    assert fitted["threshold"][3] == operating.best_threshold(fold["label"].to_numpy(), score)
    altered = predictions.assign(
        logit_1=predictions["logit_1"].where(predictions["split"] == "validation", 99.0)
    )
    pd.testing.assert_frame_equal(operating.of_folds(altered, "cnn5-w1"), fitted)


def test_refitted_thresholds_never_see_a_test_subject():
    predictions, _ = synthetic_run.make_predictions(stages=("tuned-high",), repeats=2)
    tuned = gather(
        predictions.query("stage == 'tuned-high' and cohort == 'ADNI2' and split == 'test'")
    )
    source = operating.never_trained(predictions, "cnn5-w1", "ADNI2")
    cuts = operating.refitted(source, tuned)
    assert cuts.shape == (10,)
    inside = predictions.query(
        "run == 'cnn5-w1' and stage == 'source' and split == 'adaptation' and fold == 2"
    )
    score = (inside["logit_1"] - inside["logit_0"]).to_numpy()
    row = np.flatnonzero((tuned.repeat == 0) & (tuned.fold == 2))[0]
    assert cuts[row] == operating.best_threshold(inside["label"].to_numpy(), score)
    # Of a share of the part, on that share alone.
    few = inside.groupby("label").head(3)
    shown = dict(operating.shown_to(predictions, "cnn5-w1", "tuned-high", "ADNI2"))
    np.testing.assert_array_equal(operating.refitted(source, tuned, shown), cuts)
    shown[0, 2] = (few["subject_id"] + "/" + few["session_id"]).to_numpy(str)
    cut = operating.refitted(source, tuned, shown)[row]
    score = (few["logit_1"] - few["logit_0"]).to_numpy()
    assert cut == operating.best_threshold(few["label"].to_numpy(), score)


def test_source_is_taken_on_the_subjects_of_the_tuned_networks():
    predictions, _ = synthetic_run.make_predictions(stages=("tuned-high",), repeats=2)
    tuned = gather(
        predictions.query("stage == 'tuned-high' and cohort == 'ADNI2' and split == 'test'")
    )
    like = operating.like(operating.never_trained(predictions, "cnn5-w1", "ADNI2"), tuned)
    np.testing.assert_array_equal(like.tested, tuned.tested)
    row = predictions.query(
        "run == 'cnn5-w1' and stage == 'source' and cohort == 'ADNI2' and fold == 4"
    ).set_index("subject_id")
    network = np.flatnonzero((tuned.repeat == 1) & (tuned.fold == 4))[0]
    for scan, score in zip(like.scan, like.score[network], strict=True):
        subject = scan.split("/")[0]
        assert score == pytest.approx(row["logit_1"][subject] - row["logit_0"][subject])


def test_a_source_without_some_test_scans_is_refused():
    predictions, _ = synthetic_run.make_predictions(stages=("tuned-high",))
    tuned = gather(
        predictions.query("stage == 'tuned-high' and cohort == 'ADNI2' and split == 'test'")
    )
    source = operating.never_trained(predictions, "cnn5-w1", "ADNI2")
    with pytest.raises(UserError, match="3 scans were tested by the tuned networks and not by"):
        operating.like(source.only(np.setdiff1d(source.scan, tuned.scan[:3])), tuned)


def test_ece_is_the_weighted_gap_of_the_reliability_table(rng):
    probability = np.r_[rng.uniform(size=200), 0.0, 1.0, 0.5]
    label = (rng.uniform(size=203) < probability).astype(int)
    table = calibration.reliability(label, probability)
    gap = (table["observed"] - table["predicted"]).abs()
    expected = (gap * table["n"]).sum() / table["n"].sum()
    assert calibration.ece(label, probability) == pytest.approx(expected, abs=1e-12)
