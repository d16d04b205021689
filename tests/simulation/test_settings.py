import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.errors import UserError
from mri_jax.simulation import (
    CLASSES,
    COHORTS,
    SITES,
    CohortRequest,
    SimulationSettings,
    cohorts_of_shift,
    default_cohorts,
    parse_cohort,
    planned_table,
)
from mri_jax.simulation.sites import site_named
from mri_jax.site_shifts import POPULATION_SHIFTS, SCANNER_SHIFTS, SHIFTS, shifts_named

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
        SimulationSettings("demo", 3, ONE, strength=2.0),
    ]
    assert len({s.fingerprint for s in (plain, *others)}) == 8
    assert SimulationSettings.from_json(others[-1].to_json(), "simulation.json") == others[-1]
    same = SimulationSettings("demo", 3, ONE, shifts=SHIFTS[::-1])
    assert same.fingerprint == plain.fingerprint


def test_cohorts_of_a_shift_have_one_share_of_patients_or_a_third_of_them_elsewhere():
    asked = default_cohorts(("AD", "CN"))
    alike = {r.name: r.counts for r in cohorts_of_shift(SCANNER_SHIFTS, asked)}
    assert alike["ADNI1"] == alike["ADNI2"] == alike["ADNI3"] == {"AD": 60, "CN": 60}
    assert cohorts_of_shift((), asked) == cohorts_of_shift(SCANNER_SHIFTS, asked)
    other = {r.name: r.counts for r in cohorts_of_shift(POPULATION_SHIFTS, asked)}
    assert other["ADNI1"] == {"AD": 60, "CN": 60}
    assert other["ADNI2"] == other["AIBL"] == {"AD": 30, "CN": 90}
    assert cohorts_of_shift(("gamma", "age"), asked) == cohorts_of_shift(POPULATION_SHIFTS, asked)


def test_shifts_are_named_by_a_set_or_one_by_one():
    assert set(shifts_named("both")) == set(SHIFTS)
    assert set(shifts_named("scanner")).isdisjoint(shifts_named("population"))
    assert shifts_named("none") == ()
    assert shifts_named("gamma, contrast") == ("contrast", "gamma")
    with pytest.raises(
        UserError, match=r"--shift: 'gama' is unknown; choose one of scanner, .*gamma"
    ):
        shifts_named("gama,age")
    with pytest.raises(UserError, match=r"--shift: 'scanner' stands alone"):
        shifts_named("scanner,age")


def test_strength_multiplies_how_far_a_site_is_from_the_first():
    first, site = site_named("ADNI1", SHIFTS), site_named("AIBL", SHIFTS)
    far = site_named("AIBL", SHIFTS, 3.0)
    assert far.age - first.age == pytest.approx(3 * (site.age - first.age))
    assert far.gamma / first.gamma == pytest.approx((site.gamma / first.gamma) ** 3)
    assert far.contrast[1] / first.contrast[1] == pytest.approx(
        (site.contrast[1] / first.contrast[1]) ** 3
    )
    assert site_named("AIBL", (), 3.0) == site_named("AIBL", ())
    assert site_named("ADNI1", SHIFTS, 3.0) == first


def test_seven_sites_have_two_small_ones_another_field_strength_and_other_ages():
    requests = default_cohorts(names=SITES)
    assert [r.name for r in requests if max(r.counts.values()) < 10] == ["SITE6", "SITE7"]
    sites = {r.name: site_named(r.name, SHIFTS) for r in requests}
    assert [n for n, site in sites.items() if site.field_strength != 3.0] == ["SITE3"]
    assert [n for n, site in sites.items() if abs(site.age - 73.5) > 5] == ["SITE4"]
    people = planned_table(SimulationSettings("demo", 1, requests))
    assert people["subject_id"].is_unique
    assert len(people) == 264
    ages = people.groupby("cohort")["age"].mean()
    assert ages["SITE4"] < ages.drop("SITE4").min() - 3
