"""One person, or one scan, on both sides: what a study refuses, and how a user settles it."""

import pandas as pd
import pytest

from mri_jax.cohort.leakage import LeakageError
from mri_jax.cohort.same_people import NAME
from mri_jax.cohort.table import read_table, write_table
from mri_jax.errors import UserError
from mri_jax.volumes.store import VolumeStore
from tests.study.test_plan import plan_of
from tests.study.tiny import make_cohorts


@pytest.fixture
def cohorts(tmp_path):
    return make_cohorts(tmp_path, subjects=15, cohorts=("ADNI1", "ADNI2", "ADNI3"))


def rename(cohorts, names: dict[str, str], later: str = "") -> None:
    """Give scans of the table and the store other subject ids, and one another session."""

    def renamed(rows: pd.DataFrame) -> pd.DataFrame:
        sessions = rows["session_id"].mask(rows["subject_id"] == later, "m12")
        return rows.assign(subject_id=rows["subject_id"].replace(names), session_id=sessions)

    table, store = cohorts
    write_table(table, renamed(read_table(table)))
    renamed(pd.read_csv(store / "index.csv", dtype=str)).to_csv(store / "index.csv", index=False)


@pytest.mark.parametrize(
    ("trained", "tested"),
    [
        ("P04", "p4"), ("sub-0777", "777"), ("P04", "P\u200b04"), ("P04", "P04_m12"),
        ("777", "ADNI2-777"), ("002_S_0295", "295"), ("AIBL77", "77"),
    ],
)  # fmt: skip
def test_probable_persons_stop_a_study_until_they_are_told_apart(cohorts, trained, tested):
    rename(cohorts, {"ADNI1-004": trained, "ADNI2-006": tested})
    with pytest.raises(UserError, match="1 pair of subject ids may be one person each") as refused:
        plan_of(cohorts)
    assert ascii(trained) in str(refused.value)
    assert ascii(tested) in str(refused.value)
    assert "\n" not in str(refused.value)
    (cohorts[0].parent / NAME).write_text(
        f"kind,a,b,reason\nsubjects,{tested},{trained},numbered at two clinics\n", "utf-8"
    )
    plan_of(cohorts)


def test_spellings_within_a_fold_stop_a_study_too(cohorts):
    rename(cohorts, {"ADNI1-004": "P04", "ADNI1-006": "P4"})
    with pytest.raises(UserError, match=r"'P04' \(ADNI1\) ~ 'P4' \(ADNI1\)"):
        plan_of(cohorts)


def test_one_spelling_in_two_cohorts_is_one_person_until_their_numberings_are_separate(cohorts):
    rename(cohorts, {"ADNI1-004": "P04", "ADNI2-004": "P04"}, later="ADNI2-004")
    with pytest.raises(LeakageError, match=r"1 subject .P04. on both sides.*cohorts,COHORT"):
        plan_of(cohorts)
    _, removed = plan_of(cohorts, data__repeated="remove")
    (cohorts[0].parent / NAME).write_text(
        "kind,a,b,reason\ncohorts,ADNI1,ADNI2,two hospitals\n", "utf-8"
    )
    _, apart = plan_of(cohorts)
    assert len(apart.frame) == len(removed.frame) + 1 == 60
    assert len(plan_of(cohorts, data__repeated="remove")[1].frame) == 60


@pytest.mark.parametrize("column", ["sha256", "input_sha256"])
@pytest.mark.parametrize("other", ["ADNI1-007", "ADNI2-007"])
def test_equal_bytes_under_two_ids_are_refused_even_within_a_side(cohorts, column, other):
    index = VolumeStore(cohorts[1]).index.reset_index(drop=True)
    index["input_sha256"] = [f"{i:064x}" for i in range(len(index))]
    same = index["subject_id"].isin(["ADNI1-004", other])
    index.loc[same, column] = "a" * 64
    index.to_csv(cohorts[1] / "index.csv", index=False)
    with pytest.raises(LeakageError, match=f"1 scan .{other} bl = ADNI1-004 bl. with the same"):
        plan_of(cohorts)
