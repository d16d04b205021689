import dataclasses

import numpy as np
import pandas as pd
import pytest

from mri_jax.cli import main
from mri_jax.errors import UserError
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.simulation.check import _deformation, _effects, check, expected_effect, hedges_g
from mri_jax.simulation.people import scans_of
from mri_jax.simulation.phantom import template
from mri_jax.simulation.regions import REGIONS

MANY = SimulationSettings("demo", 8, (CohortRequest("ADNI1", {"AD": 150, "CN": 150}),))


def truth_of(settings):
    """The truth table as it would be if every target were met exactly."""
    volumes = template().volumes_ml()
    rows = []
    for scan in scans_of(settings):
        achieved = volumes * np.exp(scan.targets)
        row = {"cohort": scan.cohort, "diagnosis": scan.diagnosis, "minimum_jacobian": 0.2}
        for name, value in zip(REGIONS, achieved, strict=True):
            row |= {f"{name}_ml": value, f"{name}_target_ml": value}
        rows.append(row)
    return pd.DataFrame(rows)


def test_the_effect_size_of_known_samples():
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 5.0, 4.0])
    # Pooled variance (3 * 5/3 + 2 * 1) / 5 = 1.4; five degrees of freedom.
    assert hedges_g(first, second) == pytest.approx(-1.5 / np.sqrt(1.4) * (1 - 3 / 19))


def test_the_targets_are_the_published_ones():
    ad, _ = expected_effect(MANY, "ADNI1", "AD", "CN", (100, 100))
    mci, _ = expected_effect(MANY, "ADNI1", "pMCI", "sMCI", (100, 100))
    assert ad[0] == pytest.approx(-1.6, abs=0.05)
    assert mci[0] == pytest.approx(-0.7, abs=0.06)
    settings = dataclasses.replace(MANY, effect=0.0)
    nothing, error = expected_effect(settings, "ADNI1", "AD", "CN", (50, 50))
    assert np.allclose(nothing, 0)
    assert np.allclose(error, np.sqrt(2 / 50))
    milder, _ = expected_effect(MANY, "ADNI3", "AD", "CN", (100, 100))
    assert (np.abs(milder) < np.abs(ad)).all()


def test_targets_and_errors_are_those_of_many_drawn_cohorts():
    """Where people return, classes are of unequal size, and their variances differ."""
    counts = {"AD": 20, "CN": 100}
    settings = SimulationSettings("demo", 0, (CohortRequest("ADNI3", counts),))
    target, error = expected_effect(settings, "ADNI3", "AD", "CN", (20, 100))
    found = []
    for seed in range(120):
        scans = scans_of(dataclasses.replace(settings, seed=seed))
        sick, healthy = (
            np.array([scan.targets for scan in scans if scan.diagnosis == label])
            for label in ("AD", "CN")
        )
        found.append([hedges_g(sick[:, k], healthy[:, k]) for k in range(len(REGIONS))])
    assert np.allclose(np.mean(found, axis=0), target, atol=3.5 * error.max() / np.sqrt(120))
    assert np.allclose(np.std(found, axis=0), error, rtol=3.5 / np.sqrt(2 * 120))


def test_effects_of_true_cohorts_pass_and_of_tampered_ones_fail():
    truth = truth_of(MANY)
    findings = list(_effects(truth, MANY))
    assert len(findings) == len(REGIONS)
    assert all(finding.passed for finding in findings)
    truth.loc[truth["diagnosis"] == "AD", "hippocampus_ml"] *= 0.9
    assert [f.passed for f in _effects(truth, MANY)] == [False, True, True, True, True]


def test_a_fold_and_a_missed_target_fail():
    truth = truth_of(MANY)
    assert all(finding.passed for finding in _deformation(truth))
    truth.loc[3, "minimum_jacobian"] = -0.01
    truth["cortex_ml"] *= 1.1
    failed = [finding.what for finding in _deformation(truth) if not finding.passed]
    assert len(failed) == 2
    assert "Jacobian" in failed[0]
    assert "cortex" in failed[1]


def test_a_folder_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="holds no simulated cohorts"):
        check(tmp_path)
    assert main(["simulate", "--check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_few_hundred_subjects_pass_the_check(tmp_path, capsys):
    request = ["--cohort", "ADNI1:AD=80,CN=80", "--cohort", "AIBL:AD=80,CN=80"]
    out = str(tmp_path / "out")
    assert main(["simulate", "--out", out, "--seed", "5", *request]) == 0
    findings = check(out)
    assert all(finding.passed for finding in findings), [f.line() for f in findings]
    aucs = [f for f in findings if "classifier" in f.what]
    assert len(aucs) == 4
    assert min(f.low for f in aucs) > 0.5
    sites = [f for f in findings if f.what.startswith("site")]
    assert sites[0].low > 0.9
    assert main(["simulate", "--check", out]) == 0
    assert "SIMULATED" in capsys.readouterr().out


@pytest.mark.slow
def test_without_effect_no_classifier_finds_one(tmp_path):
    request = (
        CohortRequest("ADNI1", {"AD": 60, "CN": 60}),
        CohortRequest("ADNI2", {"AD": 60, "CN": 60}),
    )
    settings = SimulationSettings("demo", 6, request, effect=0.0)
    simulate(settings, tmp_path / "out", progress=False)
    findings = check(tmp_path / "out")
    aucs = [f for f in findings if "classifier" in f.what]
    assert len(aucs) == 4
    assert all(f.rule == "interval holds 0.5" for f in aucs)
    assert all(f.passed for f in findings), [f.line() for f in findings]
