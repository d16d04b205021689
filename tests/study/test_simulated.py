"""Cohorts that a study simulates for itself: planned before they exist, stopped, gone on with."""

import pytest

from mri_jax.study import run, simulated
from mri_jax.study.planning import make_plan
from mri_jax.study.settings import Study
from mri_jax.study.stages import StageFolders
from mri_jax.training.loop import Interrupted
from tests.study.test_settings import config


def study_of(name="finetune_high", subjects=5, **overrides):
    small = {"simulation__subjects_per_class": subjects, "train__folds": 3}
    return Study.from_config(config(name, **small, finetune__inner_folds=0, **overrides))


def fingerprints(plan):
    return [stage.fingerprint for stage in plan.stages()]


def test_the_plan_before_and_after_the_simulation_is_one_and_a_stop_keeps_scans(tmp_path):
    study, folders = study_of(), StageFolders(tmp_path / "stages")
    _, before = run.planned(study, folders)
    assert not folders.root.exists()
    root = tmp_path / "simulated"
    assert simulated.scans_to_make(study, root) == 20
    asked = []

    def after_three() -> bool:
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(Interrupted):
        simulated.make(study, root, after_three)
    kept = len(list(root.glob("*/parts/*/*.json")))
    assert 3 <= kept <= 3 + 4  # those in work were finished
    assert simulated.scans_to_make(study, root) == 20
    catalogue, store = simulated.make(study, root, lambda: False)
    assert len(store) == 20
    assert simulated.scans_to_make(study, root) == 0
    assert fingerprints(make_plan(study, catalogue)) == fingerprints(before)


def test_who_else_is_simulated_does_not_change_a_source_network(tmp_path):
    folders = StageFolders(tmp_path)
    _, high = run.planned(study_of(), folders)
    _, depth = run.planned(study_of("baseline", targets=("ADNI2", "AIBL")), folders)
    sources = [
        {s.fingerprint for s in plan.stages() if s.kind == "source"} for plan in (high, depth)
    ]
    assert sources[0] == sources[1]
    _, other = run.planned(study_of(simulation__seed=5), folders)
    assert not sources[0] & set(fingerprints(other))
    _, coarse = run.planned(study_of(simulation__grid="dev"), folders)
    assert not sources[0] & set(fingerprints(coarse))
