import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort.task import remove_earlier, select
from mri_jax.errors import UserError


def table(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["subject_id", "session_id", "cohort", "diagnosis"])
    return frame.assign(age=70.0, sex="F", image="")


SMALL = table(
    [
        ("s3", "a", "ADNI1", "AD"),
        ("s1", "a", "ADNI1", "CN"),
        ("s2", "a", "ADNI1", "sMCI"),
        ("s1", "b", "ADNI2", "AD"),
        ("s4", "b", "ADNI2", "CN"),
    ]
)


def test_select_labels_two_diagnoses_of_a_cohort():
    rows = select(SMALL, "AD", "CN", "ADNI1")
    assert rows[["subject_id", "label"]].values.tolist() == [["s1", 0], ["s3", 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("AD", "AD", "ADNI1"), "they must differ"),
        (("AD", "CN", "ADNI9"), "'ADNI9' is not in the cohort table; it has ADNI1, ADNI2"),
        (("PD", "CN", "ADNI1"), "task.positive: no scan of ADNI1 has diagnosis 'PD'"),
        (("AD", "CN", ["ADNI1", "ADNI2"]), "subject s1 is both AD and CN in ADNI1\\+ADNI2"),
    ],
)
def test_select_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        select(SMALL, *arguments)


def test_pooled_cohorts_after_removing_earlier_persons():
    kept, removed = remove_earlier(SMALL, ["ADNI1", "ADNI2"])
    assert removed[["subject_id", "cohort", "earlier"]].values.tolist() == [
        ["s1", "ADNI2", "ADNI1"]
    ]
    rows = select(kept, "AD", "CN", ["ADNI1", "ADNI2"])
    assert dict(zip(rows["subject_id"], rows["label"], strict=True)) == {"s1": 0, "s3": 1, "s4": 0}


rows = st.lists(
    st.tuples(
        st.integers(0, 8).map("s{}".format),
        st.uuids().map(str),
        st.sampled_from(["A", "B", "C", "X"]),
        st.just("CN"),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(rows, st.permutations(["A", "B", "C"]))
def test_every_person_stays_in_one_of_the_ordered_cohorts_and_no_row_is_lost(content, order):
    frame = table(content)
    kept, removed = remove_earlier(frame, order)
    assert sorted([*kept["session_id"], *removed["session_id"]]) == sorted(frame["session_id"])
    homes = kept[kept["cohort"].isin(order)].groupby("subject_id")["cohort"].nunique()
    assert (homes == 1).all()
    assert not (removed["cohort"] == "X").any()
    for _, row in removed.iterrows():
        assert order.index(row["earlier"]) < order.index(row["cohort"])
