"""Which labels are one session, and which session came first."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort.sessions import Clock, aligned, asked, day_of, in_time

NOTHING = Clock({}, {}, {}, frozenset())


@pytest.mark.parametrize(
    ("tree", "said", "wanted"),
    [
        (["ses-01", "ses-02"], ["ses-1", "ses-2", "ses-1"], {"ses-1": "ses-01", "ses-2": "ses-02"}),
        (["ses-M00"], ["ses-M000", "ses-m0"], {"ses-M000": "ses-M00", "ses-m0": "ses-M00"}),
        (["ses-M00"], ["ses-BL"], {"ses-BL": "ses-M00"}),
        (["ses-BL"], ["ses-SC"], {"ses-SC": "ses-BL"}),
        (["ses-BL"], ["ses-SC", "ses-BL"], {"ses-SC": "ses-SC", "ses-BL": "ses-BL"}),
        (["ses-M00"], ["ses-SC", "ses-BL"], {"ses-SC": "ses-SC", "ses-BL": "ses-M00"}),
        (["ses-M00", "ses-BL"], ["ses-Base"], {"ses-Base": "ses-Base"}),
        ([], ["ses-1", "ses-01"], {"ses-1": "ses-1", "ses-01": "ses-1"}),
    ],
)
def test_sessions_of_tables_are_spelt_as_the_folders_are(tree, said, wanted):
    assert aligned(tree, said) == wanted


@pytest.mark.parametrize(
    ("labels", "clock", "order", "wanted"),
    [
        (["ses-10", "ses-2"], NOTHING, (), ["ses-2", "ses-10"]),
        (["ses-M12", "ses-M06", "ses-BL"], NOTHING, (), ["ses-BL", "ses-M06", "ses-M12"]),
        (["ses-d0129", "ses-d0000"], NOTHING, (), ["ses-d0000", "ses-d0129"]),
        (["ses-fu", "ses-pre"], NOTHING, (), None),
        (["ses-fu", "ses-pre"], NOTHING, ("pre", "fu"), ["ses-pre", "ses-fu"]),
        (["ses-fu", "ses-bl"], NOTHING, (), ["ses-bl", "ses-fu"]),
        (["ses-a", "ses-b"], Clock({}, {}, {"ses-a": 70.0, "ses-b": 69.0}, frozenset()), (),
         ["ses-b", "ses-a"]),
        (["ses-a", "ses-b"], Clock({}, {}, {"ses-a": 70.0, "ses-b": 70.0}, frozenset()), (), None),
        (["ses-a", "ses-b"], Clock({}, {"ses-a": 30.0}, {}, frozenset()), (), None),
        (["ses-a", "ses-b"], Clock({"ses-a": pd.Timestamp("1923-05-01"),
                                    "ses-b": pd.Timestamp("1922-05-01")}, {}, {}, frozenset()), (),
         ["ses-b", "ses-a"]),
        (["ses-SC", "ses-BL"], NOTHING, (), ["ses-BL", "ses-SC"]),
        (["ses-SC", "ses-BL"], Clock({}, {}, {}, frozenset(["ses-SC"])), (), ["ses-SC", "ses-BL"]),
        (["ses-V04", "ses-SC", "ses-BL"],
         Clock({}, {}, {"ses-SC": 60.1, "ses-BL": 60.4, "ses-V04": 61.4}, frozenset(["ses-BL"])),
         (), ["ses-BL", "ses-SC", "ses-V04"]),
        (["only"], NOTHING, (), ["only"]),
    ],
)  # fmt: skip
def test_time_orders_sessions_or_the_user_but_never_the_alphabet(labels, clock, order, wanted):
    assert in_time(labels, clock, order) == wanted


def test_the_session_that_is_asked_for():
    assert asked(["ses-BL", "ses-SC"], "SC") == "ses-SC"
    assert asked(["ses-BL"], "SC") == ""
    assert asked(["ses-BL", "ses-V04"], "M00") == "ses-BL"
    assert asked(["ses-01", "ses-02"], "2") == "ses-02"
    assert day_of("ses-d0129") == 129


@settings(deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=6, unique=True), st.randoms())
def test_numbers_order_sessions_whatever_their_padding(numbers, random):
    labels = [f"ses-{n:0{random.randint(1, 5)}d}" for n in numbers]
    assert [int(label[4:]) for label in in_time(labels, NOTHING)] == sorted(numbers)
