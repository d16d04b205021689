import numpy as np
import pandas as pd
import pytest

from mri_jax.errors import UserError
from mri_jax.evaluation.predictions import COLUMNS, NEEDED, probability_of, validate


def table(**changes):
    """Four scans of a network; ``changes`` are values of the third row (row 4 of the file)."""
    logits = np.array([[0.5, -0.5], [0.0, 1.0], [-2.0, 2.0], [800.0, -800.0]])
    frame = pd.DataFrame(
        {
            "run": "cnn5-w1",
            "stage": "source",
            "repeat": 0,
            "fold": 1,
            "cohort": "ADNI2",
            "split": "test",
            "subject_id": ["a", "b", "c", "d"],
            "session_id": "bl",
            "label": [0, 1, 1, 0],
            "logit_0": logits[:, 0],
            "logit_1": logits[:, 1],
            "probability": probability_of(logits),
        }
    )
    for column, value in changes.items():
        frame[column] = frame[column].astype(object)
        frame.loc[2, column] = value
    return frame


def test_a_table_of_a_study_passes_with_its_columns_in_order():
    found = validate(table()[list(NEEDED[::-1])], "x.csv")
    assert tuple(found.columns) == COLUMNS
    assert len(found) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"label": 2},
        {"label": "1"},
        {"split": "train"},
        {"fold": -1},
        {"fold": 0.5},
        {"fold": np.inf},
        {"fold": "one"},
        {"repeat": -2},
        {"repeat": np.nan},
        {"logit_0": np.inf},
        {"logit_1": "abc"},
        {"logit_1": np.nan},
        {"probability": 1.5},
        {"probability": -0.1},
        {"probability": 0.25},
        {"probability": np.nan},
        {"logit_0": np.nan, "logit_1": np.nan},
    ],
)
def test_a_cell_that_cannot_be_is_named_by_its_row(changes):
    with pytest.raises(UserError, match=r"^x.csv: row 4: \w+ .* must be [^\n]*$"):
        validate(table(**changes), "x.csv")


def test_logits_that_a_network_never_gave_are_missing_with_their_probability():
    nothing = dict.fromkeys(("logit_0", "logit_1", "probability"), np.nan)
    assert validate(table(**nothing), "x.csv")["probability"].isna().sum() == 1


def test_a_row_that_occurs_twice_is_named():
    with pytest.raises(UserError, match=r"row 4: a .run, stage, fold, scan. occurs twice: a bl"):
        validate(table(subject_id="a"), "x.csv")
