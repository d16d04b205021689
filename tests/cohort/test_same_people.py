import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mri_jax.cohort.identity import canonical, likeness, person, plain
from mri_jax.cohort.same_people import NAME, Apart, Holder, find, people, read, refuse_probable
from mri_jax.errors import UserError
from mri_jax.problems import TableError

COHORTS = ("SITE_A", "SITE_B", "ADNI1", "AIBL")
text = st.text(st.sampled_from("aAbS01２９_- .\u200b\ufeff\u00a0еΑsubesmi"), max_size=12)


def alike(one: str, other: str) -> bool:
    said = likeness(one, "bl", COHORTS), likeness(other, "bl", COHORTS)
    assert said[0].may_be(said[1]) == said[1].may_be(said[0])
    return said[0].may_be(said[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("S01", "s01"), ("S_01", "S-01"), ("S01", "S 01"), ("S01", "S1"), ("10", "010"),
        ("A1", "A-1"), ("01", "sub-01"), ("01", "SUB01"), ("sub-01", "sub-sub-01"),
        ("S01", "Ｓ０１"), ("Jos\u00e91", "Jose\u03011"), ("S01", "\ufeffS01"),
        ("S01", "S\u200b01"), ("S\u22121", "S-1"), ("S01", "Ѕ01"),
        ("sub-01", "sub-01_ses-02"), ("P7", "P7_m12"), ("P7", "P7_bl"), ("P7", "P7_T1w"),
        ("OAS1_0061", "OAS1_0061_MR1"), ("12", "12.0"), ("01", "SITEA-01"), ("01", "SITE_A_01"),
        ("P7", "sub-SITEBP7"), ("P7", "SITE_A_sub-P7"),
        ("002_S_0295", "295"), ("002_S_0295", "0295"), ("sub-ADNI002S0295", "sub-295"),
        ("002_S_0295", "2_S_295"), ("AIBL295", "295"),
    ],
)  # fmt: skip
def test_two_spellings_are_probably_one_person(one, other):
    assert alike(one, other)
    assert person(one) != person(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sub-1", "sub-11"), ("12", "1_2"), ("S12", "S1_2"), ("S1", "T1"), ("1", "1_1"),
        ("SITEA-01", "SITEB-01"), ("002_S_0295", "AIBL295"), ("002_S_0295", "296"),
        ("S_V1", "S_V2"), ("sub-01", "sub-10"), ("100", "1"), ("A1B2", "A1B02C"), ("0", "00_1"),
        ("ADNI1-000", "SITE_B-000"), ("2S12", "12"),
    ],
)  # fmt: skip
def test_other_ids_are_not(one, other):
    assert not alike(one, other)


def test_spaces_at_the_ends_are_no_difference_at_all():
    assert person("S01") == person(" S01") == person("S01\u00a0") == ("", "S01")


def test_the_scans_own_session_may_stand_behind_an_id():
    assert likeness("P1_follow", "follow").may_be(likeness("P1"))
    assert likeness("1_2", "2").may_be(likeness("1"))
    assert not likeness("P1_follow", "bl").may_be(likeness("P1"))


@pytest.mark.parametrize(
    "spelling",
    ["002-S-0295", "2_S_0295", "ADNI_002_S_0295", "002_S_0295_m12", "002_S_0295_ses-M12",
     "ADNI2_002_S_0295", "\ufeff002_S_0295", "００２_S_0295", "002\u2011S\u20110295", "002s0295"],
)  # fmt: skip
def test_full_adni_ids_are_certain(spelling):
    assert person(spelling) == ("ADNI", "295")
    assert canonical(spelling) == "sub-ADNI002S0295"


@pytest.mark.parametrize("other", ["2S0295", "0002_S_0295", "002_S_02955x", "1_2_S_0295", "S0295"])
def test_what_only_resembles_one_is_not(other):
    assert person(other) == ("", other)


@given(text)
@example("sub-sub-01_ses-02_m12")
@example("İ１")
@example("0S_еS0")
def test_normalising_twice_changes_nothing(given_id):
    assert plain(plain(given_id)) == plain(given_id)
    name = likeness(given_id).name
    assert likeness(name).name == name
    assert canonical(canonical(given_id)) == canonical(given_id)


@given(st.text(max_size=10), st.text(max_size=10))
def test_likeness_is_symmetric_and_includes_certainty(one, other):
    a, b = likeness(one), likeness(other)
    assert a.may_be(a)
    assert a.may_be(b) == b.may_be(a)
    if person(one) == person(other):
        assert a.may_be(b)


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from(["{}", "S{:03}", "sub-{:02}"]))
def test_different_numbers_are_never_one_person(one, other, form):
    assert likeness(form.format(one)).may_be(likeness(form.format(other))) == (one == other)


def table_of(*rows: tuple[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["subject_id", "cohort"])
    return frame.assign(session_id=[f"s{i}" for i in range(len(frame))])


def test_pairs_are_found_within_and_between_cohorts_until_told_apart():
    table = table_of(("01", "A"), ("1", "A"), ("001", "B"), ("02", "A"), ("02", "B"))
    one, two, three = Holder("01", "A"), Holder("1", "A"), Holder("001", "B")
    assert find(table) == [(three, one), (three, two), (one, two)]
    pair = Apart(frozenset([frozenset(["1", "01"])]))
    assert find(table, pair) == [(three, one), (three, two)]
    assert find(table, Apart(cohorts=frozenset([frozenset("AB")]))) == [(one, two)]
    assert find(table, Apart(cohorts=frozenset([frozenset("AB"), frozenset("A")]))) == []


def test_two_sites_that_count_from_one_need_one_line(tmp_path):
    rows = [(f"{i:02}", "A") for i in range(300)] + [(str(i), "B") for i in range(300)]
    path = tmp_path / "cohort.csv"
    with pytest.raises(UserError) as refused:
        refuse_probable(table_of(*rows), path, read([path]))
    message = str(refused.value)
    # Ids of two digits and more are written alike in both, and that is one person.
    assert "\n" not in message
    assert "10 pairs of subject ids may be one person each: '0' (B) ~ '00' (A)" in message
    assert "and 6 more" in message
    assert f"{tmp_path / NAME} (columns kind,a,b,reason)" in message
    assert "one line cohorts,B,A,REASON" in message
    (tmp_path / NAME).write_text("kind,a,b,reason\ncohorts,B,A,both count from 0\n", "utf-8")
    apart = read([path])
    refuse_probable(table_of(*rows), path, apart)
    who = people(table_of(*rows), apart)
    assert who[[0, 10, 310]].tolist() == ["00", "A: 10", "B: 10"]


def test_separate_numberings_make_two_people_of_one_id_and_never_of_an_archives():
    table = table_of(("7", "A"), ("7", "B"), ("7", "C"), ("002_S_0295", "A"), ("002_S_0295", "B"))
    apart = Apart(cohorts=frozenset([frozenset("AB"), frozenset("BC")]))
    assert people(table, apart).tolist() == ["A: 7", "B: 7", "A: 7", *["002_S_0295"] * 2]
    joined = Apart(cohorts=frozenset([frozenset("AB")]))
    assert people(table, joined).tolist()[:3] == ["7", "7", "7"]
    assert people(table, Apart()).equals(table["subject_id"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("kind,a,b\n", "column 'reason' is missing"),
        ("kind,a,b,reason\npeople,1,2,x\n", "row 2: column kind: 'people' must be one of"),
        ("kind,a,b,reason\nsubjects,1,2,\n", "row 2: column reason: a reason is needed"),
        ("kind,a,b,reason\nsubjects,1,,x\n", "row 2: column b: is empty"),
    ],
)
def test_the_file_is_checked(tmp_path, lines, said):
    (tmp_path / NAME).write_text(lines, "utf-8")
    with pytest.raises((UserError, TableError), match=said):
        read([tmp_path / "cohort.csv"])
