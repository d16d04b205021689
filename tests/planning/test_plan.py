import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mri_jax.cohort.leakage import LeakageError
from mri_jax.cohort.table import read_table, write_table
from mri_jax.errors import UserError
from mri_jax.planning.plan import BaselineStage, EvaluateStage, TrainStage
from mri_jax.planning.planner import make_plan
from mri_jax.study.feeds import Volumes, check_volumes
from mri_jax.study.scans import _of_earlier_rules, open_catalogue
from mri_jax.volumes.store import VolumeStore
from tests import studies
from tests.tiny import SMALL_MODEL, make_cohorts


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=15)


def study_of(cohorts, name="finetune_high", **overrides):
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    places = {"data__cohort": str(cohorts[0]), "data__store": str(cohorts[1])}
    return studies.study(name, **{**small, **places, **overrides})


def plan_of(cohorts, **overrides):
    study = study_of(cohorts, **overrides)
    catalogue = open_catalogue(cohorts[0], VolumeStore(cohorts[1]), study)
    return make_plan(study, catalogue), catalogue


@pytest.fixture(scope="module")
def planned(cohorts):
    return plan_of(cohorts)


def fingerprints(plan, kind):
    return {s.fingerprint for s in plan.stages() if s.kind == kind}


def test_configs_that_differ_in_tuning_share_their_source_networks(cohorts, planned):
    high, _ = planned
    low, _ = plan_of(cohorts, finetune__layers=("low",), train__folds=5)
    assert fingerprints(high, "source") == fingerprints(low, "source")
    assert len(fingerprints(high, "source")) == 5
    assert not fingerprints(high, "tune") & fingerprints(low, "tune")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"train__learning_rate": 2e-4},
        {"train__patience": 31},
        {"train__min_steps": 600},
        {"model__filters": (4, 9)},
        {"data__normalisation": "minmax"},
        {"augment__flip": True},
        {"train__class_weights": "balanced"},
    ],
)
def test_whatever_determines_a_network_changes_its_fingerprint(cohorts, planned, change):
    before, _ = planned
    after, _ = plan_of(cohorts, **change)
    assert not fingerprints(before, "source") & fingerprints(after, "source")


def test_limits_in_steps_are_those_of_the_smallest_fold_and_orphan_nothing_they_do_not_change(
    cohorts,
):
    # 30 scans in 4 folds: 22 or 23 train, in 11 steps an epoch.
    in_epochs = {"train__min_steps": 0, "train__patience_steps": 0, "train__folds": 4}
    plain, _ = plan_of(cohorts, **in_epochs)
    networks = [s for s in plain.stages() if s.kind == "source"]
    lengths = [s.fit.stopping for s in networks]
    assert {(each.min_epochs, each.max_epochs) for each in lengths} == {(12, 20)}
    longer, _ = plan_of(cohorts, **{**in_epochs, "train__min_steps": 250})
    sources = [s for s in longer.stages() if s.kind == "source"]
    assert {len(s.train) for s in sources} == {22, 23}
    assert {(s.fit.stopping.min_epochs, s.fit.stopping.max_epochs) for s in sources} == {(23, 23)}
    # 12 epochs of 11 steps are 132: a limit below that changes nothing, so no network is orphaned.
    same, _ = plan_of(cohorts, **{**in_epochs, "train__min_steps": 132})
    assert fingerprints(same, "source") == fingerprints(plain, "source")
    assert not fingerprints(longer, "source") & fingerprints(plain, "source")


def test_names_places_and_threads_do_not_change_fingerprints(cohorts, planned):
    before, _ = planned
    after, _ = plan_of(cohorts, name="finetune_high", data__threads=7, data__placement="stream")
    assert [s.fingerprint for s in before.stages()] == [s.fingerprint for s in after.stages()]


def test_the_order_of_the_table_does_not_matter(cohorts, planned, tmp_path):
    table = read_table(cohorts[0])
    shuffled = tmp_path / "cohort.csv"
    write_table(shuffled, table.sample(frac=1, random_state=3))
    before, _ = planned
    after, _ = plan_of((shuffled, cohorts[1]))
    assert [s.fingerprint for s in before.stages()] == [s.fingerprint for s in after.stages()]


def test_tuning_sees_one_fifth_and_everyone_is_tested_on_the_rest(cohorts):
    plan, catalogue = plan_of(cohorts, finetune__repeats=5)
    target = catalogue.examples(catalogue.task("AD", "CN", ("ADNI2",)))
    tuned = [e for e in plan.entries if e.stage == "tuned-high"]
    shown = []
    for repeat in range(5):
        entry = next(e for e in tuned if e.repeat == repeat and e.fold == 0)
        tested = {
            row for a in entry.answers if (a.split, a.cohort) == ("test", "ADNI2")
            for row in a.examples.rows
        }  # fmt: skip
        assert set(entry.network.train.rows) | tested == set(target.rows)
        assert not set(entry.network.train.rows) & tested
        labels = dict(zip(target.rows, target.labels, strict=True))
        assert np.mean([labels[r] for r in entry.network.train.rows]) == 0.5
        shown += entry.network.train.rows
        source = next(e for e in plan.entries if e.stage == "source" and e.fold == 0)
        asked = {
            row for a in source.answers
            if (a.split, a.cohort, a.repeat) == ("test", "ADNI2", repeat) for row in a.examples.rows
        }  # fmt: skip
        assert asked == tested
    assert sorted(shown) == sorted(target.rows)


def test_inner_scores_come_from_networks_tuned_without_the_subject(cohorts):
    plan, _ = plan_of(cohorts, finetune__inner_folds=3)
    for entry in plan.entries:
        if entry.stage != "tuned-high":
            continue
        inner = [a for a in entry.answers if a.split == "inner"]
        assert len(inner) == 3
        rows = [row for a in inner for row in a.examples.rows]
        assert sorted(rows) == sorted(entry.network.train.rows)
        for answer in inner:
            assert not set(answer.stage.network.train.rows) & set(answer.examples.rows)


def test_related_tasks_train_on_what_they_say(cohorts):
    variants = (
        {"source": {"name": "both", "cohorts": ("ADNI1", "ADNI2")}, "targets": ("ADNI3",)},
        {"source": {"name": "half", "cohorts": ("ADNI1", "ADNI2"), "size_like": ("ADNI1",)},
         "targets": ("ADNI3",)},
    )  # fmt: skip
    plan, _ = plan_of(cohorts, name="baseline", variants=variants, targets=("ADNI3",))
    sizes = {e.run: len(e.network.seen.subjects) for e in plan.entries if e.stage == "source"}
    assert sizes["both-w1"] == 60
    assert sizes["half-w1"] == 30


def test_a_subject_on_both_sides_is_refused_by_name(cohorts, tmp_path):
    table = read_table(cohorts[0])
    moved = (table["cohort"] == "ADNI2") & (table["subject_id"] == "ADNI2-003")
    table.loc[moved, "subject_id"] = "ADNI1-003"
    table.loc[moved, "session_id"] = "later"
    write_table(tmp_path / "cohort.csv", table)
    index = pd.read_csv(cohorts[1] / "index.csv", dtype=str)
    renamed = index["subject_id"] == "ADNI2-003"
    index.loc[renamed, ["subject_id", "session_id"]] = ["ADNI1-003", "later"]
    store = tmp_path / "store"
    store.mkdir()
    (store / "store.json").write_bytes((cohorts[1] / "store.json").read_bytes())
    index.to_csv(store / "index.csv", index=False)
    places = (tmp_path / "cohort.csv", store)
    with pytest.raises(LeakageError, match=r"1 subject \(ADNI1-003\) on both sides"):
        plan_of(places)
    plan, catalogue = plan_of(places, data__repeated="remove")
    assert (catalogue.frame["subject_id"] == "ADNI1-003").sum() == 1
    assert len(plan.stages()) > 0


def test_the_same_image_under_two_names_is_refused(cohorts, tmp_path):
    index = pd.read_csv(cohorts[1] / "index.csv", dtype=str)
    same = index.set_index("subject_id").loc["ADNI1-004", "sha256"]
    index.loc[index["subject_id"] == "ADNI2-007", "sha256"] = same
    store = tmp_path / "store"
    store.mkdir()
    (store / "store.json").write_bytes((cohorts[1] / "store.json").read_bytes())
    index.to_csv(store / "index.csv", index=False)
    with pytest.raises(LeakageError, match="ADNI2-007 bl = ADNI1-004 bl"):
        plan_of((cohorts[0], store))


def test_every_unusable_volume_is_named_before_training(tmp_path):
    table, path = make_cohorts(tmp_path, subjects=6, cohorts=("ADNI1", "ADNI2", "ADNI3"))
    folder = path / "volumes" / "ADNI1"
    np.save(folder / "ADNI1-002_bl.npy", np.load(folder / "ADNI1-002_bl.npy")[::-1])
    shutil.copy(folder / "ADNI1-006_bl.npy", folder / "ADNI1-005_bl.npy")
    (folder / "ADNI1-007_bl.npy").write_bytes(b"nothing")
    study, store = study_of((table, path)), VolumeStore(path)
    catalogue = open_catalogue(table, store, study)
    volumes = Volumes(store, catalogue, study.data.intensities, tmp_path, threads=2)
    with pytest.raises(UserError) as caught:
        check_volumes(volumes, list(range(len(catalogue.frame))))
    told = str(caught.value)
    assert told.startswith("3 of 24 volumes cannot be used")
    lines = told.splitlines()[1:]
    for name, line in zip(("ADNI1-002", "ADNI1-005", "ADNI1-007"), lines, strict=True):
        assert f"{name}_bl.npy: is not the volume of subject {name}, session bl" in line


def test_other_masks_give_other_stages_and_an_index_without_masks_those_of_before(tmp_path):
    cohorts = make_cohorts(tmp_path, subjects=15)
    index = pd.read_csv(cohorts[1] / "index.csv", dtype=str, keep_default_na=False)
    found = []
    for changed in (
        index,
        index.assign(mask_sha256="0" * 64),
        index.drop(columns="mask_sha256"),
        index.assign(mask_sha256=""),
    ):
        changed.to_csv(cohorts[1] / "index.csv", index=False)
        found.append(fingerprints(plan_of(cohorts)[0], "source"))
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert found[2] == found[3]


def test_subjects_without_a_volume_are_counted_in_the_flow(cohorts, tmp_path):
    table = read_table(cohorts[0])
    extra = table.iloc[:2].assign(subject_id=["ADNI1-900", "ADNI1-901"])
    write_table(tmp_path / "cohort.csv", pd.concat([table, extra]))
    store = VolumeStore(cohorts[1])
    catalogue = open_catalogue(tmp_path / "cohort.csv", store, study_of(cohorts))
    flow = catalogue.flow.query("cohort == 'ADNI1'")
    assert flow.query("step == 'found'")["n"].sum() == 32
    lost = flow.query("stage == 'store' and step == 'excluded'")
    assert lost["n"].sum() == 2
    assert set(lost["reason"]) == {"no volume in the store"}
    assert flow.query("stage == 'store' and step == 'kept'")["n"].sum() == 30
    (note,) = catalogue.notes
    assert note.startswith("2 of 62 scans of the table have no volume in")
    assert "ADNI1-900" in note
    write_table(tmp_path / "less.csv", table.iloc[3:])
    (note,) = open_catalogue(tmp_path / "less.csv", store, study_of(cohorts)).notes
    assert note.startswith(f"3 of {len(table)} volumes in {store.path} are not in the table")


def test_one_class_only_and_too_few_subjects_are_refused(cohorts, tmp_path):
    table = read_table(cohorts[0])
    single = table[(table["cohort"] != "ADNI2") | (table["diagnosis"] == "AD")]
    write_table(tmp_path / "cohort.csv", single)
    # ADNI2 is tuned on, which takes both.
    with pytest.raises(UserError, match="no scan of ADNI2 has diagnosis 'CN'; it has AD"):
        plan_of((tmp_path / "cohort.csv", cohorts[1]))
    with pytest.raises(UserError, match=r"train\.folds: 16 must be at most 15, the number of"):
        plan_of(cohorts, train__folds=16)


def test_stages_are_of_the_kinds_asked_for(planned):
    plan, _ = planned
    kinds = [type(stage) for stage in plan.stages()]
    # Five sources, two tunings of each, and three inner folds of each tuning.
    assert kinds.count(TrainStage) == 5 + 10 + 10 * 3
    # The held-out fold and the target for 15 networks, an inner fold for 30; then the baselines.
    assert kinds.count(EvaluateStage) == 15 * 2 + 30
    assert kinds.count(BaselineStage) == 5 * 2
    assert dataclasses.is_dataclass(plan)


def test_a_baseline_leaves_out_the_covariate_that_is_the_label(cohorts, tmp_path):
    table = read_table(cohorts[0])
    table["diagnosis"] = table["sex"].map({"F": "female", "M": "male"})
    table.loc[0, "age"] = np.nan
    write_table(tmp_path / "cohort.csv", table)
    task = {"positive": "male", "negative": "female"}
    plan, _ = plan_of((tmp_path / "cohort.csv", cohorts[1]), task=task)
    found = {s.fingerprint: s for s in plan.stages() if isinstance(s, BaselineStage)}
    fitted = [s.covariates for s in found.values() if s.name == "age_sex"]
    assert fitted == [("age",)] * 5
    named = {e.run for e in plan.entries if isinstance(e.network, BaselineStage)}
    assert named == {"baseline-age", "baseline-voxels"}
    told = r"source\.name: with 'sex', baseline-age would have the name of another baseline"
    with pytest.raises(UserError, match=told):
        plan_of((tmp_path / "cohort.csv", cohorts[1]), task=task, source__name="sex")
    plan, _ = plan_of(cohorts)
    both = [s for s in plan.stages() if isinstance(s, BaselineStage) and s.name == "age_sex"]
    assert {s.covariates for s in both} == {("age", "sex")}
    assert "baseline-age-sex" in {entry.run for entry in plan.entries}

    table["age"] += 1.0
    write_table(tmp_path / "cohort.csv", table)
    plan, _ = plan_of((tmp_path / "cohort.csv", cohorts[1]), task=task)
    again = {s.fingerprint for s in plan.stages() if isinstance(s, BaselineStage)}
    kept = {found[name].name for name in again & set(found)}
    assert kept == {"voxels"}, "a corrected age must fit the age baseline anew, and nothing else"


def test_a_baseline_without_a_usable_covariate_is_not_planned(cohorts, tmp_path):
    table = read_table(cohorts[0])
    table["age"] = np.where(table["diagnosis"] == "AD", 80.0, 60.0)
    table["sex"] = ""
    write_table(tmp_path / "cohort.csv", table)
    plan, _ = plan_of((tmp_path / "cohort.csv", cohorts[1]))
    assert not any("age" in entry.run for entry in plan.entries)
    assert "baseline-voxels" in {entry.run for entry in plan.entries}


def test_scans_that_an_earlier_version_preprocessed_are_counted():
    made = {"mask_sha256": ["ab", "", "", ""], "examined": ["", "", "yes", np.nan]}
    for settings, count in (({"pipeline": 2}, 2), ({}, 0)):
        store = SimpleNamespace(info=SimpleNamespace(settings=settings), path="STORE")
        said = _of_earlier_rules(pd.DataFrame(made), store)
        assert [line[:37] for line in said] == ["2 of 4 scans in STORE were preprocess"] * (
            count > 0
        )
