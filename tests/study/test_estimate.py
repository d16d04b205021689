"""What a plan says it will cost: arithmetic on given costs, and one real measurement."""

import re
from dataclasses import replace
from typing import NamedTuple

import jax
import pytest

from mri_jax.errors import UserError
from mri_jax.models.summary import step_bytes
from mri_jax.planning import feasible
from mri_jax.planning.planner import make_plan
from mri_jax.progress import duration
from mri_jax.study import estimate
from mri_jax.study.announce import lengths, summary
from mri_jax.study.measured import Costs
from mri_jax.study.scans import open_catalogue
from mri_jax.study.stages import StageFolders
from mri_jax.training.cost import ProgramCost
from mri_jax.training.job import with_step
from mri_jax.training.wave import Wave
from mri_jax.volumes.store import VolumeStore
from tests import studies
from tests.tiny import GRID, SMALL_MODEL, make_cohorts
from tests.training.test_checkpoints import flip

COST = ProgramCost(
    compile_seconds=100.0, step_seconds=1.0, validation_seconds=0.25, evaluation_seconds=0.5,
    prefix_seconds=0.0, save_seconds=2.0, stage_seconds=3.0, load_seconds=4.0, bytes=3 << 30,
    process_bytes=5 << 30,
)  # fmt: skip


class Device(NamedTuple):
    """What a plan asks of a device."""

    platform: str


class Known:
    """Costs that are known instead of measured, in the place of `Costs`."""

    def __init__(self, folds: int = 1, split: int = 1, platform: str = "cpu"):
        self.wave = Wave((Device(platform),) * folds * split, split)
        self.save_seconds = 10.0

    def program(self, fit, grid):
        return COST

    def scan_seconds(self, grid):
        return 36.0

    def volume_seconds(self, grid):
        return 0.0

    def baseline_seconds(self, stage):
        return 72.0

    def held_bytes(self, scans, grid):
        return scans << 27


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=10)


@pytest.fixture(scope="module")
def study_and_plan(places):
    return planned(places, train__min_steps=0, train__patience_steps=0)


def planned(places, **more):
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    overrides = {
        "train__folds": 5, "train__max_epochs": 10, "train__min_epochs": 10,
        "data__cohort": str(places[0]), "data__store": str(places[1]), **more,
    }  # fmt: skip
    study = studies.study("baseline", **{**small, **overrides}, targets=("ADNI2",))
    catalogue = open_catalogue(places[0], VolumeStore(places[1]), study)
    return study, make_plan(study, catalogue)


def report(plan, folders, costs, to_simulate=0):
    return estimate.report(plan, folders, costs, GRID, to_simulate)[0]


def line_of(text, start):
    """The columns of a line, as texts."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return re.split(r" {2,}", line.rstrip())


def test_time_follows_from_steps_epochs_saves_and_devices(study_and_plan, tmp_path):
    _, plan = study_and_plan
    text = report(plan, StageFolders(tmp_path), Known(), to_simulate=100)
    assert line_of(text, "simulate scans")[1:] == ["100", "0", duration(3600)]
    # 16 scans are 8 steps; 4 held-out ones fill a batch of 8; a save each 10 s of 100 s, and one.
    source = 5 * (3.0 + 10 * (8 * 1.0 + 8 * 0.25) + 10 * 2.0) + 100.0
    assert line_of(text, "source cnn2-w1")[1:] == ["5", "0", duration(source), "3,072"]
    # 5 networks, each read once: the held-out fold (4 scans) and the target (20), in batches of 8.
    evaluation = 5 * (4.0 + 24 * 0.5)
    assert line_of(text, "evaluate")[1:] == ["10", "0", duration(evaluation)]
    assert line_of(text, "baseline")[1:] == ["10", "0", "12 min"]
    total = 3600 + source + evaluation + 720
    assert f"in all about {duration(total)} at most" in text
    told = estimate.report(plan, StageFolders(tmp_path), Known(), GRID, to_simulate=100)
    assert told == (text, pytest.approx(total))
    five = report(plan, StageFolders(tmp_path), Known(5))
    assert line_of(five, "source cnn2-w1")[3] == duration((source - 100) / 5 + 100)
    assert "simulate" not in five
    # Three waves of two, two and one; the last is another program.
    two = report(plan, StageFolders(tmp_path), Known(2))
    each = (source - 100) / 5
    assert line_of(two, "source cnn2-w1")[3] == duration(3 * each + 2 * 100)
    # Split by sixteen, a batch of evaluation is sixteen volumes.
    split = report(plan, StageFolders(tmp_path), Known(1, split=16))
    longer = duration(5 * (4.0 + 32 * 0.5))
    assert line_of(split, "evaluate")[3] == longer != duration(evaluation)


def test_memory_is_that_of_the_process_and_its_volumes_or_of_each_device(study_and_plan, tmp_path):
    _, plan = study_and_plan
    # 40 scans of 128 MiB.
    told = report(plan, StageFolders(tmp_path), Known()).splitlines()[-1]
    assert told == (
        "memory about 10.0 GiB: 5.0 GiB for the process with its programs and steps, 5.0 GiB for "
        "the volumes"
    )
    told = report(plan, StageFolders(tmp_path), Known(2, platform="gpu")).splitlines()[-1]
    assert told == (
        "memory of each device about 8.0 GiB: 3.0 GiB for a step, 5.0 GiB for the volumes; of the "
        "host about 10.0 GiB"
    )
    assert "largest batch" not in told


def test_a_length_in_steps_is_planned_for_and_said(places, tmp_path):
    study, plan = planned(places, train__min_steps=100, train__patience_steps=90)
    text = report(plan, StageFolders(tmp_path), Known())
    # 100 steps of 8 an epoch are 13 epochs, where 10 were the most; a save each.
    source = 5 * (3.0 + 13 * (8 * 1.0 + 8 * 0.25) + 13 * 2.0) + 100.0
    assert line_of(text, "source cnn2-w1")[1:] == ["5", "0", duration(source), "3,072"]
    (line,) = lengths(study, plan)
    assert line == (
        "cnn2-w1: 8 steps an epoch, so exactly 13 epochs, patience 12 (config.train.min_steps=100, "
        "patience_steps=90, which raise max_epochs=10)"
    )
    assert lengths(*planned(places, train__min_steps=80, train__patience_steps=0)) == []


def test_stages_are_counted_by_what_they_are(places, tmp_path):
    tuned = {"finetune__layers": ("high",), "finetune__parts": 2, "finetune__inner_folds": 2}
    _, plan = planned(places, **tuned)
    # 5 networks, each tuned once, and twice inside the part; 5 of each of two baselines.
    told = summary(plan, StageFolders(tmp_path))
    assert told.startswith(
        "stages: 5 source networks (0 cached), 5 fine-tunings (0 cached), 10 fine-tunings inside "
        "cross-validation (0 cached), "
    )
    assert told.endswith(" baselines (0 cached)")


def test_a_finished_stage_costs_nothing(study_and_plan, tmp_path):
    _, plan = study_and_plan
    folders = StageFolders(tmp_path)
    for stage in plan.stages():
        if stage.kind == "source":
            folders.finish(stage, {})
    text = report(plan, folders, Known())
    assert line_of(text, "source cnn2-w1")[1:] == ["5", "5", "0 s"]


def test_a_measurement_is_made_once(study_and_plan, tmp_path, monkeypatch):
    study, plan = study_and_plan
    costs = Costs(tmp_path, Wave(tuple(jax.local_devices()[:1])), study)
    fit = next(stage.fit for stage in plan.stages() if stage.kind == "source")
    found = costs.program(fit, GRID)
    assert 0 < found.step_seconds < found.compile_seconds
    assert found.bytes > 4 * 2 * 9 * 12 * 10 * 4  # the first layer's activations
    assert found.process_bytes > 100 << 20  # Python and JAX alone
    assert found.prefix_seconds == 0.0
    with monkeypatch.context() as broken:
        broken.setattr("mri_jax.training.cost.measure", None)
        assert costs.program(fit, GRID) == found
    # A damaged note is measured anew.
    monkeypatch.setattr(
        "mri_jax.training.cost.measure", lambda *_: replace(found, step_seconds=7.0)
    )
    (kept,) = (tmp_path / "measured").glob("*.json")
    flip(kept)
    assert costs.program(fit, GRID).step_seconds == 7.0


def test_a_batch_beyond_memory_is_refused_before_compiling(study_and_plan):
    _, plan = study_and_plan
    fit = plan.stages()[0].fit
    needed = step_bytes(fit.step.spec, (181, 217, 181), 2)
    told = (
        r"train\.batch: 2 volumes of 181x217x181.*; by estimate, 1 volume fits at once at this grid"
    )
    with pytest.raises(UserError, match=told):
        feasible.check_memory(fit, (181, 217, 181), needed - 1)
    feasible.check_memory(fit, (181, 217, 181), needed)
    in_parts = with_step(fit, accumulate=2)
    feasible.check_memory(in_parts, (181, 217, 181), needed - 1)
