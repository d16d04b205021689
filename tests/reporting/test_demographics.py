from types import SimpleNamespace

import pandas as pd

from mri_jax.reporting.demographics import demographics_table


def test_a_third_sex_and_the_first_of_two_sessions():
    cohort = pd.DataFrame(
        [
            ("p1", "ses-10", "A", "AD", 72.0, "O"),
            ("p1", "ses-2", "A", "AD", 70.0, "O"),
            ("p2", "ses-2", "A", "AD", 60.0, "F"),
            ("p3", "ses-2", "A", "AD", 61.0, ""),
        ],
        columns=["subject_id", "session_id", "cohort", "diagnosis", "age", "sex"],
    )
    made = demographics_table(SimpleNamespace(runs=[SimpleNamespace(cohort=cohort)]))
    (row,) = made.rows
    assert [cell.text for cell in row][:5] == ["A", "AD", "3", "4", "1 / 0 (1 other) (1 unknown)"]
    assert made.data["other_sex"].tolist() == [1]
    assert made.data["age_mean"].tolist() == [(70.0 + 60.0 + 61.0) / 3]
