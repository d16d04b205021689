import numpy as np
import pytest

from mri_jax.simulation.people import (
    AGE_RANGE,
    RATIO_AT_STAGE_1,
    RESIDUAL_SD,
    residual_correlation,
    scan_named,
    scans_of,
)
from mri_jax.simulation.settings import (
    CohortRequest,
    SimulationSettings,
    default_cohorts,
)
from mri_jax.simulation.sites import site_named
from mri_jax.site_shifts import SHIFTS


def settings(seed=5, **counts):
    cohorts = tuple(CohortRequest(name, count) for name, count in counts.items())
    return SimulationSettings("demo", seed, cohorts or default_cohorts())


def as_bytes(scan):
    return repr({**vars(scan), "targets": scan.targets.tobytes()})


def test_a_scan_does_not_depend_on_who_else_is_made():
    alone = settings(ADNI2={"AD": 9})
    among = settings(AIBL={"CN": 3}, ADNI2={"CN": 2, "AD": 11, "sMCI": 1})
    wanted = {scan.name: as_bytes(scan) for scan in scans_of(alone)}
    found = {scan.name: as_bytes(scan) for scan in scans_of(among)}
    assert len(wanted) == 9
    assert wanted.items() <= found.items()
    assert as_bytes(scan_named(settings(seed=6), "ADNI2", "AD", 0)) not in wanted.values()


def test_people_who_return_are_older_sicker_and_otherwise_the_same():
    every = scans_of(SimulationSettings("demo", 1, default_cohorts(("AD", "CN"))))
    first = {scan.subject_id: scan for scan in every if scan.session_id == "m000"}
    again = [scan for scan in every if scan.session_id != "m000" and scan.subject_id in first]
    assert len(again) >= 8
    assert len({(s.subject_id, s.session_id) for s in every}) == len(every)
    for scan in again:
        before = first[scan.subject_id]
        assert scan.cohort != before.cohort
        assert (scan.diagnosis, scan.sex, scan.anatomy_seed) == (
            before.diagnosis,
            before.sex,
            before.anatomy_seed,
        )
        assert scan.intracranial_ml == before.intracranial_ml
        assert scan.scan_seed != before.scan_seed
        assert 3.9 < scan.age - before.age < 10.1
        assert 0 < scan.stage - before.stage < 0.6
        # An older, sicker brain: less hippocampus, more ventricle than at the first scan.
        assert scan.targets[0] < before.targets[0]
        assert scan.targets[4] > before.targets[4]


def test_without_effect_the_classes_have_the_same_stage_and_age():
    many = SimulationSettings(
        "demo", 2, (CohortRequest("ADNI1", {"AD": 400, "CN": 400}),), effect=0.0
    )
    stages = {"AD": [], "CN": []}
    for scan in scans_of(many):
        stages[scan.diagnosis].append((scan.stage, scan.age))
    difference = np.mean(stages["AD"], axis=0) - np.mean(stages["CN"], axis=0)
    assert abs(difference[0]) < 4 * 0.2 * np.sqrt(2 / 400)
    assert abs(difference[1]) < 4 * 6.5 * np.sqrt(2 / 400)
    assert np.std(stages["AD"], axis=0)[0] == pytest.approx(0.2, abs=0.03)


def test_log_volumes_have_the_stated_mean_spread_and_correlation():
    many = settings(ADNI1={"CN": 1500, "AD": 1500})
    values = {"CN": [], "AD": []}
    for scan in scans_of(many):
        assert AGE_RANGE[0] <= scan.age <= AGE_RANGE[1]
        values[scan.diagnosis].append(scan.targets)
    healthy, sick = (np.array(values[label]) for label in ("CN", "AD"))
    ratio = np.exp(sick.mean(0) - healthy.mean(0))
    assert np.allclose(np.log(ratio), np.log(RATIO_AT_STAGE_1), atol=0.05)
    assert (healthy.std(0) > 0.95 * RESIDUAL_SD).all()
    assert (healthy.std(0) < 1.3 * RESIDUAL_SD).all()
    correlation = residual_correlation()
    assert correlation[0, 1] == pytest.approx(0.3)
    assert correlation[0, 4] == pytest.approx(-0.3)
    assert (np.linalg.eigvalsh(correlation) > 0.5).all()


@pytest.mark.parametrize("shift", SHIFTS)
def test_each_shift_is_switched_by_itself(shift):
    reference, other = site_named("ADNI1", SHIFTS), site_named("AIBL", SHIFTS)
    without = site_named("AIBL", [name for name in SHIFTS if name != shift])
    changed = {
        name
        for name in vars(other)
        if name != "name" and getattr(without, name) != getattr(other, name)
    }
    assert shift in changed
    assert all(getattr(without, name) == getattr(reference, name) for name in changed)
    also = {"contrast": {"field_strength"}, "resolution": {"orientation", "voxel"}}
    assert changed == {shift} | also.get(shift, set())
