from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.cohort.dates import (
    AUTO,
    DAY_FIRST,
    MONTH_FIRST,
    birth_years,
    order_of,
    read_date,
    to_dates,
)
from mri_jax.problems import Problem

TODAY = date(2026, 6, 1)
days = st.dates(date(1990, 1, 1), TODAY)


def read(texts: list[str], order: str = AUTO) -> tuple[list, list[Problem]]:
    problems: list[Problem] = []
    dates = to_dates(pd.Series(texts, name="D"), "f.csv", TODAY, problems, order=order)
    return [None if d is pd.NaT else d.date() for d in dates], problems


@given(days)
def test_forms_that_say_one_day(day):
    texts = [
        f"{day:%Y-%m-%d}", f"{day:%Y/%m/%d}", f"{day:%Y%m%d}", f"{day:%Y-%m-%d}_09_30_00.0",
        f"{day:%Y-%m-%d} 09:30:00", f"{day:%Y-%m-%dT%H:%M:%S}Z", f"{day:%d-%b-%y}",
        f"{day.day}-{day:%b-%Y}", f"{day:%d%b%Y}".upper(), f"{day:%d %B %Y}", f"{day:%B %d, %Y}",
        f"{day:%b} {day.day} {day.year}",
    ]  # fmt: skip
    assert read(texts) == ([day] * len(texts), [])
    assert read(["-4", "", "NA"]) == ([None] * 3, [])


@given(st.lists(days, min_size=1, max_size=6), st.sampled_from([MONTH_FIRST, DAY_FIRST]))
def test_numbers_are_read_in_the_order_that_the_column_or_the_option_tells(of, order):
    form = "{1}/{0}/{2}" if order == DAY_FIRST else "{0}/{1}/{2}"
    texts = [form.format(d.month, d.day, d.year) for d in of]
    short = [form.format(d.month, d.day, f"{d.year % 100:02d}") for d in of]
    assert read(texts, order) == read(short, order) == (of, [])
    told = any(d.day > 12 for d in of)
    alike = all(d.day == d.month for d in of)
    if told or alike:
        assert read(texts) == (of, [])
    else:
        _, problems = read(texts)
        assert len(problems) == 1
        assert "give --dates month-first or --dates day-first" in problems[0].rule


def test_what_can_be_read_two_ways_is_said_once_with_both_days():
    _, problems = read(["01/03/2006", "05/03/2007", "03/03/2006"])
    (problem,) = problems
    assert str(problem) == (
        "f.csv: column D: '01/03/2006' can be 2006-01-03 or 2006-03-01, and no date of the column "
        "tells which: give --dates month-first or --dates day-first"
    )
    assert order_of(pd.Series(["01/03/2006", "13/03/2006"]), TODAY) == DAY_FIRST
    assert order_of(pd.Series(["01/03/2006", "03/13/2006"]), TODAY, DAY_FIRST) == MONTH_FIRST


def test_a_column_of_two_orders_is_refused_by_row():
    _, problems = read(["12/31/2006", "1/2/2006", "31/12/2006"])
    assert [(p.row, p.value, p.rule) for p in problems] == [
        (2, "31/12/2006", "is no date, the column being month-first")
    ]


@pytest.mark.parametrize(
    "text",
    ["2005-02-30", "13/13/2005", "2006-00-00", "soon", "2006-03", "06-03-01", "38777", "3/1",
     "1/1/1", "01-Foo-06", "2006-03-01 or later", "0001-01-01", "٣/١/٢٠٠٦"],
)  # fmt: skip
def test_what_is_no_date(text):
    dates, problems = read([text])
    assert dates == [None]
    assert [p.value for p in problems] == [text]


def test_dates_outside_of_the_study():
    _, problems = read(["1805-01-01", "2030-01-01"])
    assert {p.rule for p in problems} == {"must lie between 1990 and 2026-06-01"}
    assert read_date("1/2/27", TODAY) == (1, 2, 1927)
    assert read_date("1/2/26", TODAY) == (1, 2, 2026)


@given(st.text(alphabet="0123456789-/. :_TJanuryFebMcd,", max_size=14))
def test_no_text_stops_the_reader(text):
    dates, problems = read([text], MONTH_FIRST)
    assert (dates == [None]) or not problems


def test_years_of_birth():
    problems: list[Problem] = []
    texts = [
        "1931",
        "1931.0",
        "/1931",
        "04/1931",
        "4/1/1931",
        "1931-04",
        "-4",
        "31",
        "1031",
        "x1931",
    ]
    years = birth_years(pd.Series(texts), "f", problems, "PTDOB", 2000)
    assert years[:6].tolist() == [1931.0] * 6
    assert np.isnan(years[6:]).all()
    assert [p.value for p in problems] == ["31", "1031", "x1931"]
