import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.errors import UserError
from mri_jax.simulation import (
    CLASSES,
    COHORTS,
    SHIFTS,
    CohortRequest,
    SimulationSettings,
    default_cohorts,
    parse_cohort,
)

ONE = (CohortRequest("AIBL", {"AD": 1}),)


@given(
    st.sampled_from(COHORTS),
    st.dictionaries(st.sampled_from(CLASSES), st.integers(0, 900), min_size=1),
)
def test_a_cohort_is_read_back_from_its_text(name, counts):
    text = f"{name}:" + ",".join(f"{label}={count}" for label, count in counts.items())
    assert parse_cohort(text) == CohortRequest(name, counts)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ADNI4:AD=1", "cohort: 'ADNI4' is unknown"),
        ("ADNI1:FTD=1", "class 'FTD' is unknown"),
        ("ADNI1:AD=-1", "AD=-1 must be a whole number of at least 0"),
        ("ADNI1:AD=1.5", "'AD=1.5' is not CLASS=NUMBER"),
        ("ADNI1:AD", "'AD' is not CLASS=NUMBER"),
        ("ADNI1:AD=1,AD=2", "class 'AD' is given twice"),
        ("ADNI1", "is not NAME:CLASS=NUMBER"),
        ("", "is not NAME:CLASS=NUMBER"),
    ],
)
def test_a_wrong_cohort_is_named_in_one_line(text, rule):
    with pytest.raises(UserError, match=rule) as caught:
        parse_cohort(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"grid": "huge"}, "grid: 'huge' is unknown"),
        ({"seed": -1}, "seed: -1 must be from 0"),
        ({"effect": -0.1}, "effect: -0.1 must be from 0"),
        ({"shifts": ("colour",)}, "shifts: 'colour' is unknown"),
        ({"cohorts": ()}, "at least one subject"),
        ({"cohorts": ONE + ONE}, "cohort AIBL: is given more than once"),
    ],
)
def test_a_wrong_setting_is_named(change, rule):
    given_fields = {"grid": "demo", "seed": 0, "cohorts": ONE, **change}
    with pytest.raises(UserError, match=rule):
        SimulationSettings(**given_fields)


def test_paper_counts_are_the_papers():
    totals = {r.name: r.total for r in default_cohorts(paper_counts=True)}
    assert totals == {"ADNI1": 748, "ADNI2": 708, "ADNI3": 389, "AIBL": 549}


def test_default_cohorts_hold_only_the_classes_asked_for():
    names = [request.name for request in default_cohorts(("pMCI", "sMCI"))]
    assert names == ["ADNI1", "ADNI2", "AIBL"]
    assert default_cohorts(("AD", "CN"))[0].counts == {"AD": 60, "CN": 60}


def test_settings_survive_json_and_the_fingerprint_sees_every_field():
    plain = SimulationSettings("demo", 3, ONE)
    assert SimulationSettings.from_json(plain.to_json(), "simulation.json") == plain
    others = [
        SimulationSettings("dev", 3, ONE),
        SimulationSettings("demo", 4, ONE),
        SimulationSettings("demo", 3, (CohortRequest("AIBL", {"AD": 2}),)),
        SimulationSettings("demo", 3, ONE, effect=0.5),
        SimulationSettings("demo", 3, ONE, shifts=SHIFTS[1:]),
        SimulationSettings("demo", 3, ONE, raw=True),
    ]
    assert len({s.fingerprint for s in (plain, *others)}) == 7
    same = SimulationSettings("demo", 3, ONE, shifts=SHIFTS[::-1])
    assert same.fingerprint == plain.fingerprint
