"""Whole studies by the real launcher as a process, on a cohort of tiny volumes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mri_jax.runs import results
from mri_jax.volumes.grids import GRIDS
from tests.conftest import ROOT
from tests.launching import command, environment, launch, launch_copy
from tests.tiny import make_cohorts


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=10, cohorts=("ADNI1", "ADNI2"))


@pytest.fixture(scope="module")
def finished(cohorts, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = launch(cohorts, workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout + done.stderr


def test_a_study_prints_its_table_and_writes_its_results(finished):
    workdir, printed = finished
    assert "Tested on ADNI2" in printed
    assert "SIMULATED" in printed
    assert "tuned-high minus source on ADNI2" in printed
    for kind in ("source", "tune"):
        assert re.search(rf"^{kind} .*: compiling, then the first epoch$", printed, re.M)
    assert "3 source networks (0 cached), 3 fine-tunings (0 cached)" in printed
    found = results.load(workdir)
    assert found.missing == ()
    assert found.simulated
    tested = found.predictions.query("split == 'test'")
    by_stage = {name: set(group["subject_id"]) for name, group in tested.groupby(["run", "stage"])}
    # Source, tuned network and baseline are compared on the same 80%.
    assert by_stage["cnn2-w1", "source"] == by_stage["cnn2-w1", "tuned-high"]
    assert by_stage["cnn2-w1", "source"] == by_stage["baseline-age-sex", "source"]
    assert len(by_stage["cnn2-w1", "source"]) == 16
    held_out = found.predictions.query("split == 'validation' and stage == 'source'")
    assert (held_out.groupby(["run", "subject_id"]).size() == 1).all()
    assert set(found.history["stage"]) == {"source", "tuned-high"}


def test_the_same_command_again_trains_nothing_and_gives_the_same_bytes(cohorts, finished):
    workdir, _ = finished
    before = (workdir / "predictions.csv").read_bytes()
    again = launch_copy(cohorts, workdir)
    assert again.returncode == 0, again.stderr
    assert "3 source networks (3 cached), 3 fine-tunings (3 cached)" in again.stdout
    assert (workdir / "predictions.csv").read_bytes() == before


@pytest.mark.slow
def test_folds_side_by_side_on_a_cpu_give_the_predictions_of_one_after_another(
    cohorts, finished, workdir
):
    two = ("--cpu_folds=2", "--config.finetune.layers=()")
    done = launch(cohorts, workdir, *two)
    assert done.returncode == 0, done.stderr
    assert ", 2 folds at once, " in done.stdout
    assert "3 source networks (0 cached)" in done.stdout
    found, expected = source_probabilities(workdir), source_probabilities(finished[0])
    # The same networks; those of the other run are not tested on the part that is tuned on.
    shared = expected.index.intersection(found.index)
    assert len(shared) > 60
    np.testing.assert_allclose(found.loc[shared], expected.loc[shared], atol=1e-5)


def test_a_plan_measures_what_the_study_will_run(cohorts, workdir):
    plan = launch_copy(cohorts, workdir, "--plan")
    assert plan.returncode == 0, plan.stderr
    first = plan.stdout.splitlines()[0]
    assert re.fullmatch(r"computing on the CPU with .*, one fold at a time, .* GiB free", first)
    # Features of the frozen prefix are among what is measured.
    assert "tune " in plan.stdout
    assert "in all about" in plan.stdout


def peak_of(arguments):
    """The output of the launcher, and the most memory that it had, in GiB."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT, encoding="utf-8") as process:
        peak = 0
        while process.poll() is None:
            time.sleep(0.05)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+)", status)
            peak = max(peak, int(found[1])) if found else peak
        assert process.returncode == 0
        return process.stdout.read(), peak / 2**20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["demo", "dev"])
def test_the_memory_of_a_plan_is_that_of_its_run_within_a_half(tmp_path, name):
    places = make_cohorts(tmp_path, 10, ("ADNI1", "ADNI2"), grid=GRIDS[name])
    one = (
        "--config.train.min_epochs=1",
        "--config.train.max_epochs=1",
        "--config.finetune.epochs=1",
    )
    given = command(places, tmp_path / "run", "--config.model.preset=cnn5", *one)
    given = [flag for flag in given if not re.search(r"model\.(rep|fil|fc|drop)", flag)]
    plan, _ = peak_of([*given, "--plan"])
    told = re.search(r"^memory about (.*) GiB: (.*) GiB .*, (.*) GiB for the volumes$", plan, re.M)
    total, process, volumes = map(float, told.groups())
    assert volumes == pytest.approx(40 * 4 * np.prod(GRIDS[name].shape) / 2**30, abs=0.006)
    assert total == pytest.approx(process + volumes, abs=0.06)
    _, peak = peak_of(given)
    assert peak / 1.5 < total < 1.5 * peak


def test_another_config_in_the_work_directory_is_refused(cohorts, finished):
    for more in ((), ("--plan",)):
        done = launch_copy(cohorts, finished[0], "--config.train.patience=3", *more)
        assert done.returncode == 2
        assert "config.train.patience is 5, not 3" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""  # nothing is said of a device before


def test_a_refused_study_leaves_its_work_directory_to_the_corrected_one(
    cohorts, finished, tmp_path
):
    workdir, stages = tmp_path / "run", f"--stages={finished[0].parent / 'stages'}"
    refused = launch_copy(cohorts, workdir, stages, "--config.train.folds=11")
    assert refused.returncode == 2
    assert "config.train.folds" in refused.stderr
    assert not (workdir / results.CONFIG).exists()
    corrected = launch_copy(cohorts, workdir, stages)
    assert corrected.returncode == 0, corrected.stderr
    assert predictions(workdir) == predictions(finished[0])


def test_switches_in_the_environment_change_no_number(cohorts, finished, tmp_path):
    """No cached program or stage: a network trained under them is the same to the last bit."""
    switches = {
        "JAX_ENABLE_X64": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_RANDOM_SEED_OFFSET": "7",
    }
    workdir = tmp_path / "run"
    done = launch(cohorts, workdir, "--config.finetune.layers=()", **switches)
    assert done.returncode == 0, done.stderr
    assert "3 source networks (0 cached)" in done.stdout
    found, expected = source_probabilities(workdir), source_probabilities(finished[0])
    shared = expected.index.intersection(found.index)
    assert len(shared) > 60
    assert (found.loc[shared] == expected.loc[shared]).all()


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def predictions(workdir: Path) -> bytes:
    return (workdir / "predictions.csv").read_bytes()


def source_probabilities(workdir: Path) -> pd.Series:
    key = ["run", "stage", "fold", "cohort", "subject_id", "split"]
    found = results.load(workdir).predictions
    return found.query("stage == 'source'").set_index(key)["probability"]


def wait_for_epoch(workdir: Path, process: subprocess.Popen, least: int = 1) -> None:
    path = workdir / results.HISTORY
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= least:
            return
        time.sleep(0.01)


def test_sigterm_saves_asks_to_be_requeued_and_changes_nothing(cohorts, finished, workdir):
    process = subprocess.Popen(
        command(cohorts, workdir), stderr=subprocess.PIPE, cwd=ROOT, encoding="utf-8",
        env=environment(),
    )  # fmt: skip
    wait_for_epoch(workdir, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 75, told
    assert "the same command goes on" in told
    assert launch_copy(cohorts, workdir).returncode == 0
    assert predictions(workdir) == predictions(finished[0])


def half_written(stages: Path) -> list[Path]:
    """Checkpoints that Orbax has begun and not finished."""
    return list(stages.glob("*/training/*/*orbax-checkpoint-tmp*"))


def done_stages(stages: Path) -> int:
    return len(list(stages.glob("*/stage.json")))


@pytest.mark.slow
def test_a_run_killed_again_and_again_gives_the_same_bytes(cohorts, finished, workdir, rng):
    """SIGKILL at random moments of training, while a checkpoint is written, between stages."""
    stages = workdir.parent / "stages"
    kills = {"training": 0, "save": 0, "between": 0}
    for _ in range(60):
        process = subprocess.Popen(
            command(cohorts, workdir), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            cwd=ROOT, start_new_session=True, env=environment(),
        )  # fmt: skip
        moment = min(kills, key=lambda name: kills[name])
        if kills[moment] < 3:
            before = done_stages(stages), set(half_written(stages))
            reached = {
                "training": lambda: False,
                "save": lambda before=before: bool(set(half_written(stages)) - before[1]),
                "between": lambda before=before: done_stages(stages) > before[0],
            }[moment]
            lines = workdir / results.HISTORY
            there = len(lines.read_text(encoding="utf-8").splitlines()) if lines.exists() else 0
            if moment == "training":
                wait_for_epoch(workdir, process, there + int(rng.integers(1, 4)))
                time.sleep(rng.uniform(0, 0.1))
            while process.poll() is None and moment != "training" and not reached():
                time.sleep(0.0005)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=60)
                # A save that was over before the signal came does not count as one.
                hit = moment != "save" or bool(half_written(stages))
                kills[moment] += hit
        if process.wait(timeout=300) == 0:
            break
    assert min(kills.values()) >= 2, kills
    assert sum(kills.values()) >= 7, kills
    assert half_written(stages) == []
    assert predictions(workdir) == predictions(finished[0])


def test_predictions_name_every_network_once(finished):
    frame = pd.read_csv(finished[0] / "predictions.csv")
    networks = frame[["run", "stage", "repeat", "fold"]].drop_duplicates()
    assert len(networks) == 3 * 3
