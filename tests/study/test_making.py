"""Cohorts that a study simulates for itself: planned before they exist, stopped, gone on with."""

import pytest

from mri_jax.interruption import Interrupted
from mri_jax.planning.planner import make_plan
from mri_jax.study import making, prepare
from mri_jax.study.stages import StageFolders
from tests import studies


def study_of(name="finetune_high", subjects=5, **overrides):
    small = {"simulation__subjects_per_class": subjects, "train__folds": 3}
    return studies.study(name, **small, finetune__inner_folds=0, **overrides)


def fingerprints(plan):
    return [stage.fingerprint for stage in plan.stages()]


def test_the_plan_before_and_after_the_simulation_is_one_and_a_stop_keeps_scans(tmp_path):
    study, folders = study_of(), StageFolders(tmp_path / "stages")
    planned, plan = prepare.planned(study, folders)
    assert not folders.root.exists()
    assert making.scans_to_make(study, folders.root) == 20
    asked = []

    def after_three() -> bool:
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(Interrupted):
        making.make(study, planned, folders.root, after_three)
    kept = len(list(folders.root.glob("simulated/*/parts/*/*.json")))
    assert 3 <= kept <= 3 + 4  # those in work were finished
    assert making.scans_to_make(study, folders.root) == 20
    made, store = making.make(study, planned, folders.root, lambda: False)
    assert len(store) == 20
    assert making.scans_to_make(study, folders.root) == 0
    # The same rows, with what was measured of them.
    assert made.keys == planned.keys
    assert made.identity(plan.stages()[0].train) == planned.identity(plan.stages()[0].train)
    share = made.frame["hippocampus_ml"] / planned.frame["hippocampus_ml"]
    assert 0 < abs(share - 1).max() < 0.02
    assert made.searched.scans == 20
    assert planned.searched is None
    assert fingerprints(make_plan(study, made)) == fingerprints(plan)


def test_who_else_is_simulated_does_not_change_a_source_network(tmp_path):
    folders = StageFolders(tmp_path)
    _, high = prepare.planned(study_of(), folders)
    _, depth = prepare.planned(study_of("baseline", targets=("ADNI2", "AIBL")), folders)
    sources = [
        {s.fingerprint for s in plan.stages() if s.kind == "source"} for plan in (high, depth)
    ]
    assert sources[0] == sources[1]
    _, other = prepare.planned(study_of(simulation__seed=5), folders)
    assert not sources[0] & set(fingerprints(other))
    _, coarse = prepare.planned(study_of(simulation__grid="dev"), folders)
    assert not sources[0] & set(fingerprints(coarse))
