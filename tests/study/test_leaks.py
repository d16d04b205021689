"""One person, or one scan, on both sides: what a study refuses, and how a user settles it."""

import pandas as pd
import pytest

from mri_jax.cohort.leakage import LeakageError
from mri_jax.cohort.same_people import NAME
from mri_jax.cohort.table import read_table, write_table
from mri_jax.errors import UserError
from mri_jax.problems import TableError
from mri_jax.volumes.store import VolumeStore
from tests.leak_attempts import ATTEMPTS, make_attempt, make_base
from tests.planning.test_plan import plan_of
from tests.tiny import make_cohorts


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("leaks") / "base")


def test_people_who_are_all_different_are_no_leak(base):
    _, catalogue = plan_of((base / "cohort.csv", base / "store"))
    assert len(catalogue.frame) == 60
    searched = catalogue.searched
    assert (searched.scans, searched.pairs, searched.found) == (60, 60 * 59 // 2, 0)
    assert searched.threshold == 0.5
    assert not (base / "duplicates.csv").exists()


@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_attempt_is_refused_in_one_line_that_names_both(base, tmp_path, name):
    table, store = make_attempt(base, tmp_path / "made", name)
    with pytest.raises(UserError) as refused:
        plan_of((table, store))
    for own in ATTEMPTS[name].ids:
        assert own in str(refused.value) or ascii(own)[1:-1] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_confirmed_pair_goes_on_and_is_recorded(base, tmp_path):
    table, store = make_attempt(base, tmp_path / "made", "image noised in the target")
    with pytest.raises(UserError, match="fill in decision and reason in"):
        plan_of((table, store))
    with pytest.raises(TableError, match="row 2: column decision"):
        plan_of((table, store))
    listed = pd.read_csv(table.parent / "duplicates.csv", dtype=str, keep_default_na=False)
    assert listed[["subject_a", "subject_b"]].values.tolist() == [["ADNI1-004", "ADNI2-006"]]
    decided = listed.assign(decision="keep both", reason="twins")
    decided.to_csv(table.parent / "duplicates.csv", index=False)
    _, catalogue = plan_of((table, store))
    assert (catalogue.searched.found, catalogue.searched.decided) == (1, 1)
    decided.assign(decision="keep first").to_csv(table.parent / "duplicates.csv", index=False)
    with pytest.raises(UserError, match=r"still has \(ADNI2-006\)"):
        plan_of((table, store))
    write_table(table, read_table(table).query("subject_id != 'ADNI2-006'"))
    assert plan_of((table, store))[1].searched.found == 0


def test_sessions_of_one_person_are_no_leak(base, tmp_path):
    table, store = make_attempt(base, tmp_path / "made", "image noised in the source")
    rows, index = read_table(table), pd.read_csv(store / "index.csv", dtype=str)
    for frame, path in ((rows, table), (index, store / "index.csv")):
        second = frame["subject_id"] == "ADNI1-006"
        frame.loc[second, ["subject_id", "session_id"]] = ["ADNI1-004", "m12"]
        frame.to_csv(path, index=False)
    searched = plan_of((table, store))[1].searched
    assert (searched.found, searched.pairs) == (0, 60 * 59 // 2 - 1)


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
