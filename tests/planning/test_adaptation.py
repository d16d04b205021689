"""What each method of adaptation is shown, starts from and is tested on."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from etils import epath

from mri_jax import adaptation
from mri_jax.adaptation import METHODS
from mri_jax.errors import UserError
from mri_jax.planning.catalogue import UNKNOWN
from mri_jax.planning.cuts import Targets
from mri_jax.planning.plan import TrainStage
from mri_jax.planning.planner import make_plan
from mri_jax.study.history import write_history
from mri_jax.study.scans import open_catalogue
from mri_jax.study.verdicts import remarks
from mri_jax.volumes.store import VolumeStore
from tests import studies
from tests.planning.test_plan import plan_of, study_of
from tests.tiny import make_cohorts

NETWORKS = tuple(method for method in METHODS if method.start != adaptation.BASELINES)
NAMES = tuple(method.name for method in NETWORKS)
SCRATCH_AND_HELD_OUT = ("coral", "dann", "ad2a", "pooled")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=15)


def planned(cohorts, methods=NAMES, **overrides):
    fields = {
        "finetune__layers": (),
        "adaptation__methods": methods,
        "train__folds": 3,
        "baselines__age_sex": False,
        **overrides,
    }
    return plan_of(cohorts, **fields)


@pytest.fixture(scope="module")
def everything(cohorts):
    return planned(cohorts)


def entry_of(plan, stage, fold=0):
    return next(e for e in plan.entries if e.stage == stage and e.fold == fold)


def networks(plan) -> list[TrainStage]:
    return [stage for stage in plan.stages() if isinstance(stage, TrainStage)]


def test_a_network_is_told_of_by_the_training_that_made_it(everything):
    plan, _ = everything
    kinds = {}
    for name in ("source", "adapted-coral", "adapted-adabn", "adapted-tent", "adapted-lp-ft"):
        network = entry_of(plan, name).network
        trained = network.trained
        kinds[name] = trained and (trained.kind, trained is network)
    assert kinds == {
        "source": ("source", True),
        "adapted-coral": ("adapt", False),
        "adapted-adabn": None,
        "adapted-tent": ("adapt", True),
        "adapted-lp-ft": ("adapt", True),
    }


def test_epochs_are_those_of_the_training_before_new_statistics(everything, tmp_path):
    plan, _ = everything

    def history(stage):
        return [{"epoch": 1, "train_loss": 0.6, "validation_loss": 0.7, "trained": stage.kind}]

    write_history(epath.Path(tmp_path), plan, SimpleNamespace(history=history))
    rows = [
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    kinds = {row["stage"]: row["trained"] for row in rows}
    assert kinds["source"] == "source"
    assert kinds["adapted-coral"] == kinds["adapted-tent"] == "adapt"
    assert "adapted-adabn" not in kinds


def test_methods_that_train_from_scratch_are_judged_by_their_own_training(everything):
    plan, _ = everything
    folders = SimpleNamespace(failure=lambda _: "", note=lambda _: {"best_validation_loss": 0.7})
    nobody = pd.DataFrame(columns=["run", "stage", "fold", "split", "label"])
    found = remarks(plan, folders, nobody)
    assert {stage for _, stage, *_ in found} == {f"adapted-{m}" for m in SCRATCH_AND_HELD_OUT}
    assert all(
        told["not_learnt"].startswith("its probabilities are no better") for told in found.values()
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_adaptation_part_is_seen_and_the_test_part_is_not(everything, name):
    plan, catalogue = everything
    entry, method = entry_of(plan, f"adapted-{name}"), adaptation.named(name)
    parts = {a.split: set(a.examples.rows) for a in entry.answers if a.cohort == "ADNI2"}
    assert len(parts["adaptation"]) == 6
    assert len(parts["test"]) == 24
    line = (*entry.network.ancestors, entry.network)
    learnt = {row for s in line for row in s.train.rows}
    shown = {row for s in line for row in s.unlabelled.rows}
    assert not (learnt | shown) & parts["test"]
    assert (learnt if method.target_labels else shown) >= parts["adaptation"]
    if method.label_free:
        assert not learnt & parts["adaptation"]
        assert {label for s in line for label in s.unlabelled.labels} == {UNKNOWN}
    source = entry_of(plan, "source").network
    assert (set(source.train.rows) <= learnt) == (name != "target-only")
    # An epoch of what trains on the source is chosen on the held-out source scans.
    if method.source_labels:
        assert any(s.validation == source.validation for s in line)
    people = {subject for subject, _, _ in catalogue.triples(tuple(parts["adaptation"]))}
    assert people <= entry.network.seen.subjects


def test_networks_start_where_their_method_says(everything):
    plan, _ = everything
    source = entry_of(plan, "source").network
    lines = {
        name: [stage.kind for stage in (*e.network.ancestors, e.network)]
        for name in NAMES
        if (e := entry_of(plan, f"adapted-{name}"))
    }
    assert lines == {
        "adabn": ["source", "statistics"],
        "tent": ["source", "statistics", "adapt"],
        "coral": ["adapt", "statistics"],
        "dann": ["adapt", "statistics"],
        "ad2a": ["adapt", "statistics"],
        "lp-ft": ["source", "tune", "adapt"],
        "l2-sp": ["source", "adapt"],
        "pooled": ["adapt"],
        "target-only": ["adapt"],
    }
    adabn, tent = (entry_of(plan, f"adapted-{name}").network for name in ("adabn", "tent"))
    assert tent.parent == adabn
    assert adabn.parent == source
    for name in ("coral", "pooled", "target-only"):
        network = entry_of(plan, f"adapted-{name}", fold=1).network
        first = (*network.ancestors, network)[0]
        assert first.drawn == entry_of(plan, "source", fold=1).network.purpose
    assert {s.fold for s in networks(plan) if s.purpose[0] == "pooled"} == {0, 1, 2}


def test_no_network_of_a_method_without_labels_depends_on_a_label_of_the_adaptation_part(
    cohorts, everything, monkeypatch
):
    plan, _ = everything
    told = Targets.adapting

    def turned(targets, which):
        part = told(targets, which)
        return part.assign(label=1 - part["label"])

    monkeypatch.setattr(Targets, "adapting", turned)
    again, _ = planned(cohorts)
    for method in NETWORKS:
        before, after = (entry_of(p, f"adapted-{method.name}").network for p in (plan, again))
        assert (before.fingerprint == after.fingerprint) == method.label_free, method.name


def test_inside_the_adaptation_part_no_ancestor_saw_the_subject_that_is_scored(everything):
    plan, catalogue = everything
    checked = 0
    for entry in plan.entries:
        for answer in (a for a in entry.answers if a.split == "inner"):
            network = answer.stage.network
            tested = {s for s, _, _ in catalogue.triples(answer.examples.rows)}
            for stage in (*network.ancestors, network):
                trained = {s for s, _, _ in catalogue.triples(stage.train.rows)}
                assert not trained & tested
                checked += 1
    # 3 inner folds of 3 folds: two ancestors and itself for LP-FT, one and itself for L2-SP.
    assert checked == 3 * 3 * (3 + 2)
    inner = {e.stage for e in plan.entries if any(a.split == "inner" for a in e.answers)}
    assert inner == {"adapted-lp-ft", "adapted-l2-sp"}


def test_transductive_methods_see_all_of_the_target_without_labels_and_are_named_so(cohorts):
    plan, _ = planned(cohorts, ("adabn", "l2-sp"), adaptation__transductive=True)
    entry = entry_of(plan, "adapted-adabn-transductive")
    assert len(entry.network.unlabelled) == 30
    tested = next(a.examples for a in entry.answers if (a.split, a.cohort) == ("test", "ADNI2"))
    assert len(tested) == 24
    assert entry_of(plan, "adapted-l2-sp").network.unlabelled.rows == ()


def test_scans_without_diagnosis_adapt_with_the_part_and_no_one_else_is_told_of_them(cohorts):
    study = study_of(
        cohorts, adaptation__methods=("adabn", "coral", "l2-sp"), finetune__inner_folds=0,
        adaptation__undiagnosed="unknown",
    )  # fmt: skip
    catalogue = open_catalogue(cohorts[0], VolumeStore(cohorts[1]), study)
    frame = catalogue.frame.copy()
    of_target = np.flatnonzero(frame["cohort"] == "ADNI2")
    unknown, again, other = of_target[:9], of_target[8], np.flatnonzero(frame["cohort"] == "ADNI1")
    frame.loc[[*unknown, other[0]], "diagnosis"] = "unknown"
    # A second scan of a subject who has a diagnosis, and who may test.
    frame.loc[again, "subject_id"] = frame["subject_id"].iloc[of_target[9]]
    frame.loc[again, "session_id"] = "later"
    plan = make_plan(study, dataclasses.replace(catalogue, frame=frame))
    for name in ("adabn", "coral"):
        entry = entry_of(plan, f"adapted-{name}-undiagnosed")
        tested = next(a.examples for a in entry.answers if (a.split, a.cohort) == ("test", "ADNI2"))
        shown = set(entry.network.unlabelled.rows)
        assert shown >= set(unknown[:-1])
        assert not shown & {again, other[0]}
        assert not shown & set(tested.rows)
        assert len(shown) == 8 + len(
            next(
                a.examples for a in entry.answers if (a.split, a.cohort) == ("adaptation", "ADNI2")
            )
        )
        assert set(entry.network.unlabelled.labels) == {UNKNOWN}
        assert entry.network.seen.subjects >= set(frame["subject_id"].iloc[unknown[:-1]])
    assert not set(entry_of(plan, "adapted-l2-sp").network.train.rows) & set(unknown)


def test_the_adaptation_part_is_drawn_to_shares_of_patients_of_one_size(cohorts):
    plan, catalogue = planned(cohorts, ("adabn", "coral"), adaptation__resampled=("adabn",))
    counts = {}
    for stage in {entry.stage for entry in plan.entries} - {"source", "adapted-coral"}:
        rows = entry_of(plan, stage).network.unlabelled.rows
        diagnoses = catalogue.frame["diagnosis"].to_numpy()[list(rows)]
        counts[stage] = (int((diagnoses == "AD").sum()), int((diagnoses == "CN").sum()))
    # Three of each class: 80% of four are three.
    assert counts == {
        "adapted-adabn": (3, 3),
        "adapted-adabn-patients20": (1, 3),
        "adapted-adabn-patients50": (2, 2),
        "adapted-adabn-patients80": (3, 1),
    }
    assert all(len(a.examples) == 6 for e in plan.entries for a in e.answers
               if a.split == "adaptation")  # fmt: skip
    with pytest.raises(UserError, match=r"config\.adaptation\.resampled: must be empty where"):
        studies.study(
            adaptation__methods=("adabn",), adaptation__resampled=("adabn",),
            adaptation__transductive=True,
        )  # fmt: skip


def test_shares_of_labels_are_nested_and_are_tested_on_the_same_subjects(cohorts):
    plan, _ = planned(
        cohorts, ("adabn",), finetune__labels=(2.5, 20, 80), finetune__layers=("head",),
        finetune__repeats=2, finetune__inner_folds=0,
    )  # fmt: skip
    found, tested = {}, set()
    for entry in plan.entries:
        splits = {a.split: a.examples.rows for a in entry.answers if a.cohort == "ADNI2"}
        tested.add(splits["test"])
        if entry.fold == 0 and entry.stage.startswith("tuned-head-labels"):
            found[entry.stage, entry.repeat] = set(splits["adaptation"])
            assert set(entry.network.train.rows) == found[entry.stage, entry.repeat]
    assert len(tested) == 1
    (tested,) = tested
    assert len(tested) == 6
    sizes = {name: len(rows) for name, rows in found.items()}
    # Of 15 of each class: two at least, three, and all twelve that do not test.
    assert sizes == {
        (f"tuned-head-labels{share}", repeat): size
        for share, size in (("2.5", 4), ("20", 6), ("80", 24))
        for repeat in (0, 1)
    }
    for repeat in (0, 1):
        few, some, most = (found[f"tuned-head-labels{n}", repeat] for n in ("2.5", "20", "80"))
        assert few < some < most
        assert not most & set(tested)
    assert found["tuned-head-labels20", 0] != found["tuned-head-labels20", 1]
    with pytest.raises(
        UserError, match=r"config\.finetune\.labels: 90 must be at most 80, what the"
    ):
        studies.study(finetune__labels=(5, 90))


def test_a_method_alone_changes_no_fingerprint_of_the_others(cohorts, everything):
    plan, _ = everything
    alone, _ = planned(cohorts, ("coral",))
    coral = entry_of(alone, "adapted-coral").network
    assert coral.fingerprint == entry_of(plan, "adapted-coral").network.fingerprint
    heavier, _ = planned(cohorts, ("coral",), adaptation__coral_weight=2.0)
    assert coral.fingerprint != entry_of(heavier, "adapted-coral").network.fingerprint


def test_what_trains_and_for_how_long(everything):
    plan, _ = everything
    fits = {name: entry_of(plan, f"adapted-{name}").network.fit for name in NAMES}
    source = entry_of(plan, "source").network.fit
    assert fits["coral"].stopping == source.stopping
    # 576 steps: 58 epochs of 10, and 45 of 13.
    assert (source.stopping.min_epochs, fits["pooled"].stopping.min_epochs) == (58, 45)
    assert fits["tent"].step.rules == ((r"bn\d+/.*", True), (".*", False))
    assert fits["tent"].step.optimizer.learning_rate == 1e-3
    assert fits["l2-sp"].stopping.max_epochs == 10  # finetune.epochs of the preset
    assert fits["lp-ft"].step.objective.name == "cross-entropy"
    # 20 scans make 10 steps, 6 make 3: as many steps as the source takes at least, or a few more.
    least = source.stopping.min_epochs * 10
    assert 0 <= fits["target-only"].stopping.max_epochs * 3 - least < 3
    assert fits["dann"].step.objective.steps == source.stopping.max_epochs * 10


def test_what_cannot_be_adapted_is_refused_by_field_count_and_rule(cohorts):
    with pytest.raises(UserError) as caught:
        planned(cohorts, ("adabn",), train__batch=4)
    assert str(caught.value) == (
        "config.adaptation.methods: 'adabn' needs two batches of scans without labels, 8, and part "
        "1 of the 5 that config.finetune.parts cuts ADNI2 into has 6; lower config.finetune.parts "
        "or config.train.batch, or add scans"
    )
    related = {"source__positive": "MCI", "source__negative": "SMC"}
    with pytest.raises(UserError, match=r"config\.finetune\.cohort: 'ADNI1' is also in .* another"):
        studies.study(adaptation__methods=("coral",), finetune__cohort="ADNI1", **related)
    with pytest.raises(UserError, match=r"config\.adaptation\.methods: 'high' must be one of"):
        studies.study(adaptation__methods=("high",))
    with pytest.raises(
        UserError, match=r"methods: 'tent' changes BatchNorm layers, and config\.model"
    ):
        studies.study(adaptation__methods=("coral", "tent"), model__norm="instance")
    with pytest.raises(UserError, match=r"methods: 'combat' harmonises what is measured in scans"):
        studies.study(
            adaptation__methods=("combat",), baselines__voxels=False, baselines__hippocampus=False
        )
    message = r"'combat' harmonises .* table has no hippocampus_ml and intracranial_ml; add them"
    with pytest.raises(UserError, match=message):
        planned(cohorts, ("combat",), baselines__voxels=False, baselines__hippocampus=True)
    marks = {"undiagnosed": "unknown", "transductive": True}
    for name, value in ({"resampled": ("adabn",)} | marks).items():
        field = rf"config\.adaptation\.{name}: cannot be combined with config\.finetune\.labels"
        with pytest.raises(UserError, match=field):
            studies.study(finetune__labels=(5.0,), **{f"adaptation__{name}": value})
    for name, value in marks.items():
        field = rf"config\.adaptation\.{name}: is for methods that use no labels of the target"
        with pytest.raises(UserError, match=field):
            studies.study(adaptation__methods=("l2-sp",), **{f"adaptation__{name}": value})
    with pytest.raises(UserError, match=r"undiagnosed: 'CN' is a diagnosis that is learnt"):
        studies.study(adaptation__methods=("adabn",), adaptation__undiagnosed="CN")
    with pytest.raises(UserError, match=r"undiagnosed: 'MCI' is the diagnosis of no scan of ADNI2"):
        planned(cohorts, ("adabn",), adaptation__undiagnosed="MCI")
    with pytest.raises(UserError, match=r"config\.adaptation\.tent_epochs: 0 must be a whole"):
        studies.study(adaptation__tent_epochs=0)


def test_combat_harmonises_the_features_of_measured_baselines_alone_and_keeps_age_and_sex(cohorts):
    asked = {"baselines__age_sex": True, "targets": ("ADNI2", "ADNI3")}
    plan, _ = planned(cohorts, ("combat",), **asked)
    found = {e.run: e for e in plan.entries if e.stage == "adapted-combat" and e.fold == 0}
    assert set(found) == {"baseline-voxels"}
    entry = found["baseline-voxels"]
    stage = entry.network
    assert stage.site == "ADNI2"
    assert stage.kept == ("age", "sex")
    assert set(stage.unlabelled.labels) == {UNKNOWN}
    asked = {(a.cohort, a.split): a.examples.rows for a in entry.answers}
    assert set(asked) == {("ADNI1", "validation"), ("ADNI2", "adaptation"), ("ADNI2", "test")}
    assert not set(stage.unlabelled.rows) & set(asked["ADNI2", "test"])
    assert set(asked["ADNI2", "adaptation"]) == set(stage.unlabelled.rows)
    plain = next(e for e in plan.entries if (e.run, e.stage) == ("baseline-voxels", "source"))
    assert plain.network.train == stage.train
    assert plain.network.fingerprint != stage.fingerprint
    assert "ADNI3" in {a.cohort for a in plain.answers}
