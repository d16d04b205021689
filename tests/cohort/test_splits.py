import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort.splits import Adaptation, Fold, adaptation, fifths, folds
from mri_jax.errors import UserError


def labelled(positives: int, negatives: int, sessions: int = 1) -> pd.DataFrame:
    rows = [
        {
            "subject_id": f"sub-{number:04d}",
            "session_id": f"ses-{session}",
            "label": int(number < positives),
            "sex": "FM"[number % 2],
            "age": 55.0 + (number * 7) % 35,
        }
        for number in range(positives + negatives)
        for session in range(sessions)
    ]
    return pd.DataFrame(rows)


sizes = st.tuples(st.integers(5, 60), st.integers(5, 60), st.integers(1, 3))


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(0, 10**6), st.integers(2, 5), st.randoms(use_true_random=False))
def test_folds_hold_every_subject_out_once_and_ignore_the_order_of_rows(size, seed, n, random):
    frame = labelled(*size)
    made = folds(frame, seed=seed, n_folds=n)
    everyone = sorted(frame["subject_id"].unique())
    assert sorted(s for fold in made for s in fold.validation_ids) == everyone
    label = frame.drop_duplicates("subject_id").set_index("subject_id")["label"]
    for fold in made:
        assert sorted(fold.train_ids + fold.validation_ids) == everyone
    positives = [sum(label[s] for s in fold.validation_ids) for fold in made]
    totals = [len(fold.validation_ids) for fold in made]
    assert max(positives) - min(positives) <= 1
    assert max(totals) - min(totals) <= 1
    order = list(range(len(frame)))
    random.shuffle(order)
    columns = list(frame.columns)
    random.shuffle(columns)
    assert folds(frame.iloc[order][columns], seed=seed, n_folds=n) == made


def test_a_seed_and_a_purpose_name_the_split():
    frame = labelled(23, 31)
    assert folds(frame, seed=1) == folds(frame, seed=1)
    # Other company, not only another order of the same parts.
    parts = [{fold.validation_ids for fold in folds(frame, seed=seed)} for seed in (1, 2)]
    assert not parts[0] & parts[1]
    assert fifths(frame, seed=1, purpose="ADNI2") != fifths(frame, seed=1, purpose="AIBL")


def test_fifths_are_disjoint_and_the_test_set_is_the_rest():
    frame = labelled(11, 20)
    parts = fifths(frame, seed=4)
    assert sorted(len(part) for part in parts) == [6, 6, 6, 6, 7]
    assert sorted(s for part in parts for s in part) == sorted(frame["subject_id"])
    split = adaptation(parts, 2)
    assert split.adaptation_ids == parts[2]
    assert set(split.test_ids) == set(frame["subject_id"]) - set(parts[2])
    with pytest.raises(UserError, match="repeat: 5 must be from 0 to 4"):
        adaptation(parts, 5)


def test_splits_survive_json():
    frame = labelled(9, 8)
    fold = folds(frame, seed=0)[0]
    split = adaptation(fifths(frame, seed=0), 0)
    assert Fold.from_json(json.loads(json.dumps(fold.to_json()))) == fold
    assert Adaptation.from_json(json.loads(json.dumps(split.to_json()))) == split


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (labelled(9, 0), "no negative subject"),
        (labelled(0, 9), "no positive subject"),
        (labelled(4, 9), "4 positive subjects are fewer than the 5 folds"),
        (labelled(9, 9).drop(columns="label"), "column 'label' is missing"),
        (labelled(9, 9).assign(label=2), "label must be 0 or 1"),
    ],
)
def test_what_cannot_be_split_is_refused(frame, message):
    with pytest.raises(UserError, match=message):
        folds(frame, seed=0)


def test_a_subject_with_two_labels_is_refused():
    frame = labelled(9, 9, sessions=2)
    frame.loc[1, "label"] = 0
    with pytest.raises(UserError, match="sub-0000 has two labels"):
        folds(frame, seed=0)
