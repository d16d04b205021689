import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.cohort.joining import refuse_strangers, whole_numbers
from mri_jax.problems import Problem


@given(
    st.integers(0, 99999),
    st.sampled_from(["{}", "{:05d}", "{}.0", "{}.", "'{}'", '"{:04d}"', "{}.000"]),
)
def test_one_number_in_every_spelling(number, form):
    problems: list[Problem] = []
    found = whole_numbers(pd.Series([form.format(number)], name="RID"), "f", problems)
    assert (found.tolist(), problems) == ([str(number)], [])


@pytest.mark.parametrize("text", ["901.5", "9e2", "1,901", "-7", "x901", "901_S", "٩٠١"])
def test_what_is_no_number_is_named(text):
    problems: list[Problem] = []
    rows = pd.Series([text, "NA", "-4", ""], name="RID", index=[2, 3, 4, 5])
    assert whole_numbers(rows, "f", problems).tolist() == [""] * 4
    assert [(p.row, p.value) for p in problems] == [(2, text)]


def test_a_join_that_matches_nobody_is_one_line_with_both_sides():
    ours = pd.Series(["901", "902", "903", "904"], name="RID")
    problems: list[Problem] = []
    refuse_strangers(ours, "DXSUM.csv", pd.Series(["17", "18"], name="RID"), "P.csv", problems)
    (problem,) = problems
    assert str(problem) == (
        "P.csv: column RID: has nobody of DXSUM.csv: here 17, 18, there 901, 902, 903, ...; "
        "tables of other subjects, or ids in another spelling?"
    )
    problems.clear()
    for theirs in (["901", "17"], [""], []):
        refuse_strangers(ours, "a", pd.Series(theirs, dtype=object, name="RID"), "b", problems)
    assert problems == []
