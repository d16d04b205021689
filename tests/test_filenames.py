import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.errors import UserError
from mri_jax.filenames import LONGEST_NAME, alike, joined_name, refuse_alike, safe_name

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.one_of(
    TEXTS, st.sampled_from([".", "..", "a/b", "con", "CON.txt", "a.", "%2e", "~", ""])
)


@given(NAMES, NAMES)
def test_names_of_files_are_injective_and_stay_in_their_folder(one: str, other: str):
    names = safe_name(one), safe_name(other)
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9%~\-][A-Za-z0-9.%~\-]*", name)
        assert len(name) <= LONGEST_NAME


PARTS = st.lists(st.text("_a%5f/", min_size=1, max_size=8), min_size=1, max_size=3)


@given(PARTS, PARTS)
def test_joined_names_are_injective(one: list[str], other: list[str]):
    assert (joined_name(*one) == joined_name(*other)) == (one == other)


def test_joined_names_keep_the_underscores_of_ordinary_ids():
    assert joined_name("002_S_0295", "bl") == "002_S_0295__bl"
    assert joined_name("a_", "_b") == "a%5f__%5fb"


@given(st.text("ab/", min_size=100, max_size=300), st.text("ab/", min_size=100, max_size=300))
def test_long_names_are_shortened_and_stay_different(one: str, other: str):
    assert len(safe_name(one)) <= LONGEST_NAME
    assert (safe_name(one) == safe_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("002_S_0295", "002%5fS%5f0295"),  # as in stores that are there already
        ("sub-01", "sub-01"),
        ("é.x", "%c3%a9.x"),
        ("..", "%2e%2e"),
        (".", "%2e"),
        ("../x", "%2e.%2fx"),
        ("nul", "%6eul"),
        ("Com1.a", "%43om1.a"),
        ("common", "common"),
        ("a.", "a%2e"),
        ("", "%"),
    ],
)
def test_names_of_files(text: str, name: str):
    assert safe_name(text) == name


@given(st.lists(st.text("aA_é%5f", min_size=1, max_size=3), max_size=8))
def test_names_that_differ_by_case_alone_are_found_and_no_others(names: list[str]):
    found = {name for names_alike in alike(names) for name in names_alike}
    files = {name: safe_name(name).casefold() for name in names}
    shared = {a for a in files for b in files if a != b and files[a] == files[b]}
    assert found == shared
    assert all(len({name.casefold() for name in names_alike}) == 1 for names_alike in alike(names))


def test_names_that_differ_by_case_alone_are_refused_with_the_field():
    refuse_alike(["SITE_A", "SITE_B", "SITE_A"], "cohorts")
    said = "cohorts: 'Site' and 'SITE' differ by case alone, and would be one file on macOS and Win"
    with pytest.raises(UserError, match=said):
        refuse_alike(["Site", "B", "SITE"], "cohorts")
