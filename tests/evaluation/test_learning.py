import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.evaluation import learning
from mri_jax.evaluation.predictions import probability_of
from mri_jax.evaluation.variants import Variant, described

EVEN = np.arange(24) % 2


def scores(strength, label=EVEN, shift=0.0):
    """Every scan right by the same margin, or wrong where ``strength`` is negative."""
    return strength * np.where(label == 1, 1.0, -1.0) + shift


@pytest.mark.parametrize(
    ("strength", "loss", "learnt"),
    # 0.658 is 0.95 ln 2; all decisions are right, so the loss alone speaks.
    [(0.0101, 0.688, False), (0.0667, 0.660, False), (0.0733, 0.657, True), (1.0, 0.313, True)],
)
def test_a_loss_that_never_left_ln_2_is_said(strength, loss, learnt):
    score = scores(strength)
    found = learning.not_learnt(EVEN, score)
    assert np.logaddexp(0, -strength) == pytest.approx(loss, abs=1e-3)
    assert (found == "") is learnt
    if not learnt:
        assert found == (
            "its probabilities are hardly better than guessing "
            f"(held-out loss {loss:.3f}, guessing 0.693; held-out AUC 100%)"
        )


def test_a_network_that_decides_one_class_only_is_said_whatever_its_loss():
    score = scores(1.0, shift=-1.5)
    # Its loss is 0.526, well below chance: it tells the classes apart at another threshold.
    said = "it decides all 24 scans of its held-out fold negative"
    assert learning.not_learnt(EVEN, score) == said
    assert "positive" in learning.not_learnt(EVEN, -score)
    one_class = np.ones(24, int)
    assert learning.not_learnt(one_class, np.full(24, 3.0)) == ""


def test_a_loss_alone_says_nothing_of_an_auc():
    told = "its probabilities are hardly better than guessing (held-out loss 0.685, guessing 0.693)"
    assert learning.hardly(0.685, np.log(2)) == told
    assert learning.hardly(0.65, np.log(2)) == ""


def test_chance_is_that_of_uneven_classes_unless_training_weighed_them_alike():
    label = np.array([1] * 4 + [0] * 26)
    always = np.full(30, np.log(4 / 26))
    expected = -(4 * np.log(4 / 30) + 26 * np.log(26 / 30)) / 30
    assert learning.chance_loss(label) == pytest.approx(expected) == pytest.approx(0.3927, abs=1e-4)
    assert learning.chance_loss(label, balanced=True) == pytest.approx(np.log(2))
    # 0.393 is far below ln 2, and yet says the class's share alone.
    told = "(held-out loss 0.393, guessing 0.393; held-out AUC 50%)"
    assert told in learning.not_learnt(label, always)
    # Right by a margin that is calibrated to even classes: its loss, 0.46, exceeds 0.393.
    weighed = scores(0.55, label)
    assert learning.not_learnt(label, weighed) != ""
    assert learning.not_learnt(label, weighed, balanced=True) == ""


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-5, 5))
def test_one_score_for_all_has_never_learnt(positives, negatives, score):
    label = np.array([1] * positives + [0] * negatives)
    assert learning.not_learnt(label, np.full(len(label), score)) != ""


def test_only_source_networks_are_judged_and_only_on_their_held_out_fold():
    def rows(run, stage, fold, split, score):
        logits = np.stack([np.zeros(24), score], axis=1)
        return pd.DataFrame(
            {"run": run, "stage": stage, "repeat": 0, "fold": fold, "cohort": "A", "split": split,
             "subject_id": [f"s{i}" for i in range(24)], "session_id": "bl", "label": EVEN,
             "logit_0": 0.0, "logit_1": score, "probability": probability_of(logits)}
        )  # fmt: skip

    flat, good, nan = scores(0.0), scores(2.0), np.full(24, np.nan)
    frame = pd.concat(
        [
            rows("cnn5-w1", "source", 0, "validation", good),
            rows("cnn5-w1", "source", 0, "test", flat),
            rows("cnn5-w1", "source", 1, "validation", flat),
            rows("cnn5-w1", "source", 2, "validation", nan),
            rows("cnn5-w1", "tuned-high", 0, "validation", flat),
            rows("baseline-age-sex", "source", 0, "validation", flat),
        ],
        ignore_index=True,
    )
    told = {"baseline-age-sex": Variant("baseline-age-sex")}
    found = learning.unlearnt(described(frame, told))
    assert found[["run", "fold"]].to_numpy().tolist() == [["cnn5-w1", 1]]
    assert found["loss"].item() == pytest.approx(np.log(2))
