"""What cannot end well is refused with the plan, by the field that asks for it."""

import pytest

from mri_jax.cohort.table import read_table, write_table
from mri_jax.errors import UserError
from mri_jax.planning import simulated
from tests import studies
from tests.planning.test_plan import plan_of
from tests.tiny import make_cohorts


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Eight of each class in ADNI1; in ADNI2 twelve AD and ten CN."""
    folder = tmp_path_factory.mktemp("cohorts")
    table, store = make_cohorts(folder, subjects=12, cohorts=("ADNI1", "ADNI2"))
    frame = read_table(table)
    number = frame.groupby(["cohort", "diagnosis"]).cumcount()
    least = frame["cohort"].map({"ADNI1": 8, "ADNI2": 12})
    few = (frame["cohort"] == "ADNI2") & (frame["diagnosis"] == "CN")
    write_table(table, frame[number < least.where(~few, 10)])
    return table, store


def refused(cohorts, **overrides) -> str:
    with pytest.raises(UserError) as caught:
        plan_of(cohorts, **{"targets": ("ADNI2",), **overrides})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_smaller_than_what_is_asked_for_name_field_cohort_and_remedy(cohorts):
    told = refused(cohorts, train__folds=9)
    assert told.startswith("config.train.folds: 9 must be at most 8, the number of ")
    assert "subjects of ADNI1; lower it" in told
    told = refused(cohorts, finetune__parts=11)
    assert told == (
        "config.finetune.parts: 11 must be at most 10, the number of CN subjects of ADNI2; lower "
        "it, or add subjects"
    )
    # Five parts of ten leave two controls in each.
    told = refused(cohorts, finetune__parts=5, finetune__inner_folds=3)
    assert told == (
        "config.finetune.inner_folds: 3 must be at most 2, the number of CN subjects of part 1 of "
        "the 5 that config.finetune.parts cuts ADNI2 into; lower it (0: none, and no thresholds "
        "of tuned networks), or config.finetune.parts"
    )
    told = refused(cohorts, finetune__stopping="inner", finetune__inner_folds=0)
    assert told.startswith("config.finetune.stopping: 'inner' makes 5 parts, which must be at most")
    assert "config.finetune.parts" in told


def test_a_batch_must_fit_into_what_is_trained_on(cohorts):
    told = refused(cohorts, train__batch=14, finetune__layers=())
    assert told.startswith("config.train.batch: 14 must be at most 12, the scans that a fold")
    plan_of(cohorts, targets=("ADNI2",), train__batch=12, finetune__layers=())
    # Two of five parts hold three AD, the others two; each holds two CN.
    told = refused(cohorts, train__batch=6, finetune__inner_folds=0)
    assert told.startswith("config.train.batch: 6 must be at most ")
    assert "a part that is tuned on" in told
    assert "lower config.finetune.parts" in told


def test_the_voxel_baseline_needs_two_of_each_class_in_every_fold(cohorts, tmp_path):
    frame = read_table(cohorts[0])
    number = frame.groupby(["cohort", "diagnosis"]).cumcount()
    few = frame[(frame["cohort"] != "ADNI1") | (number < 2)]
    write_table(tmp_path / "cohort.csv", few)
    places = (tmp_path / "cohort.csv", cohorts[1])
    two = {"train__folds": 2, "finetune__layers": ()}
    assert "config.baselines.voxels: needs 2 training scans of each class" in refused(places, **two)
    plan_of(places, targets=("ADNI2",), baselines__voxels=False, **two)


def test_poolings_must_leave_something_of_a_volume(cohorts):
    network = {"repetitions": (1, 1, 1, 1), "filters": (2, 2, 2, 2)}
    fields = {f"model__{name}": value for name, value in network.items()}
    told = refused(cohorts, **fields)
    assert told.startswith("config.model.repetitions: (1, 1, 1, 1) halves volumes 4 times")
    assert "9 x 12 x 10 voxels at 8 mm have less than 16" in told


def test_rows_of_a_table_that_would_have_one_name_are_refused(cohorts):
    variants = (
        {"source": {"cohorts": ("ADNI1",)}, "model": {"width": 1.0}, "targets": ("ADNI2",)},
        {"source": {"cohorts": ("ADNI2",)}, "model": {"width": 2.0}, "targets": ("ADNI1",)},
    )
    told = refused(cohorts, name="baseline", variants=variants)
    assert "2 rows of the tables would be called baseline-age-sex source" in told
    assert "source.name" in told


@pytest.mark.parametrize("value", ["large", "-3.1", "0", "inf"])
def test_hippocampal_volumes_that_are_none_are_named_by_their_scan(cohorts, tmp_path, value):
    frame = read_table(cohorts[0])
    frame["hippocampus_ml"], frame["intracranial_ml"] = "3.5", "1400"
    frame.loc[3, "hippocampus_ml"] = value
    frame.loc[4, "hippocampus_ml"] = ""
    write_table(tmp_path / "cohort.csv", frame)
    told = refused((tmp_path / "cohort.csv", cohorts[1]), finetune__inner_folds=0)
    assert "column hippocampus_ml" in told
    assert f"of subject {frame.loc[3, 'subject_id']}" in told
    assert "config.baselines.hippocampus=False" in told


def test_a_target_of_controls_alone_is_planned_and_one_of_nobody_is_not(cohorts, tmp_path):
    frame = read_table(cohorts[0])
    write_table(
        tmp_path / "cohort.csv",
        frame[(frame["cohort"] == "ADNI1") | (frame["diagnosis"] == "CN")],
    )
    places = (tmp_path / "cohort.csv", cohorts[1])
    plan, _ = plan_of(places, targets=("ADNI2",), finetune__layers=())
    tested = [a.examples.labels for e in plan.entries for a in e.answers if a.split == "test"]
    assert {label for labels in tested for label in labels} == {0}
    # A cohort that is tuned on needs both, and so does a source.
    assert "no scan of ADNI2 has diagnosis 'AD'; it has CN" in refused(places)
    source = {"source__cohorts": ("ADNI2",), "targets": ("ADNI1",), "finetune__layers": ()}
    assert refused(places, **source).startswith(
        "config.source, config.task.positive: no scan of ADNI2 has diagnosis 'AD'; it has CN"
    )
    strange = {"source__positive": "AD", "source__negative": "CN", "task__positive": "pMCI"}
    told = refused(places, task__negative="sMCI", finetune__layers=(), **strange)
    assert told == "config.task.positive: no scan of ADNI2 has diagnosis 'pMCI'; it has CN"


def test_what_is_not_simulated_is_not_asked_of_the_simulation():
    for overrides, message in (
        ({"targets": ("SITE_B",)}, "'SITE_B' is not among ADNI1, ADNI2, ADNI3, AIBL"),
        ({"task__positive": "FTD"}, "simulated people are CN, sMCI, pMCI, AD, not 'FTD'"),
    ):
        study = studies.study("baseline", **overrides)
        with pytest.raises(UserError, match=r"^config") as caught:
            simulated.catalogue_to_make(study)
        assert message in str(caught.value)
