"""Who a search sees: the inner part of the source, never those set aside, never a target."""

import dataclasses

import pytest

from configs.search import get_config
from mri_jax.errors import UserError
from mri_jax.evaluation.variants import SEARCHED
from mri_jax.planning.inner import aside_plan, inner_plan, parts_of
from mri_jax.planning.plan import TrainStage
from mri_jax.planning.simulated import catalogue_to_make
from mri_jax.settings.study import Study


@pytest.fixture(scope="module")
def study():
    return Study.parse(get_config("smoke").to_dict())


@pytest.fixture(scope="module")
def catalogue(study):
    return catalogue_to_make(study)


@pytest.fixture(scope="module")
def parts(study, catalogue):
    return parts_of(study, study.trial({}), catalogue)


def subjects(catalogue, rows):
    return set(catalogue.frame["subject_id"].iloc[list(rows)])


def test_a_stratified_fifth_of_the_source_is_set_aside(study, catalogue, parts):
    source = catalogue.task("AD", "CN", ("ADNI1",)).drop_duplicates("subject_id")
    assert set(parts.inner) | set(parts.aside) == set(source["subject_id"])
    assert not set(parts.inner) & set(parts.aside)
    aside = source[source["subject_id"].isin(parts.aside)]
    for label in (0, 1):
        share = aside["label"].eq(label).sum() - source["label"].eq(label).sum() / 5
        assert abs(share) < 1
    assert subjects(catalogue, parts.scans.rows) == set(parts.aside)


def test_a_trial_reads_nobody_but_the_inner_part(study, catalogue, parts):
    plan = inner_plan(study, study.trial({"model.width": 0.5}), catalogue, parts)
    assert subjects(catalogue, plan.rows()) == set(parts.inner)
    networks = [stage for stage in plan.stages() if isinstance(stage, TrainStage)]
    assert [stage.fold for stage in networks] == [0, 1]
    held_out = [subjects(catalogue, stage.validation.rows) for stage in networks]
    assert held_out[0] | held_out[1] == set(parts.inner)
    assert not held_out[0] & held_out[1]
    assert {answer.split for entry in plan.entries for answer in entry.answers} == {"validation"}


def test_also_of_a_study_that_adapts(study, catalogue, parts):
    values = get_config("smoke").to_dict()
    values["finetune"]["layers"] = ("high",)
    values["adaptation"]["methods"] = ("adabn",)
    adapting = Study.parse(values)
    plan = inner_plan(adapting, adapting.trial({}), catalogue, parts)
    assert len(plan.entries) == 2
    assert subjects(catalogue, plan.rows()) == set(parts.inner)


def test_those_set_aside_are_asked_about_networks_that_never_saw_them(study, catalogue, parts):
    run = study.trial({})
    plan = inner_plan(study, run, catalogue, parts)
    variant = dataclasses.replace(run.variant, chosen=SEARCHED)
    asked = aside_plan(study, plan, variant, catalogue, parts)
    assert {entry.network.fingerprint for entry in asked.entries} == {
        entry.network.fingerprint for entry in plan.entries
    }
    for entry in asked.entries:
        (answer,) = entry.answers
        assert answer.split == "test"
        assert subjects(catalogue, answer.examples.rows) == set(parts.aside)
        seen = subjects(catalogue, entry.network.train.rows + entry.network.validation.rows)
        assert not seen & set(parts.aside)
    assert {entry.run for entry in asked.entries} == {"searched-cnn5-w1"}


def test_more_parts_than_subjects_are_refused(study, catalogue):
    many = dataclasses.replace(study, search=dataclasses.replace(study.search, parts=500))
    with pytest.raises(UserError, match=r"config.search.parts: 500 must be at most 12"):
        parts_of(many, many.trial({}), catalogue)
