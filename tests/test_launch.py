"""The real launcher as a process, on a cohort of tiny volumes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mri_jax import results
from tests.conftest import ROOT
from tests.study.tiny import make_cohorts

FIELDS = {
    "model.preset": "",
    "model.repetitions": "(1,1)",
    "model.filters": "(4,8)",
    "model.fc": "(8,)",
    "model.dropout": "(0.5,0.)",
    "train.folds": 3,
    "train.learning_rate": 1e-3,
    "train.min_epochs": 4,
    "train.min_steps": 0,
    "train.patience_steps": 0,
    "train.max_epochs": 6,
    "finetune.epochs": 3,
    "finetune.inner_folds": 0,
    "finetune.statistics": "('keep',)",
    "baselines.voxels": False,
    "save_seconds": 0.0,
}


def command(cohorts: tuple[Path, Path], workdir: Path, *more: str) -> list[str]:
    fields = {"data.cohort": cohorts[0], "data.store": cohorts[1], **FIELDS}
    return [
        sys.executable,
        str(ROOT / "launch.py"),
        f"--config={ROOT}/configs/finetune_high.py",
        f"--workdir={workdir}",
        "--noreport",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *more,
    ]


def launch(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        timeout=300,
        cwd=ROOT,
        **options,
        encoding="utf-8",
    )


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
    assert "3 source (0 cached), 3 tune (0 cached)" in printed
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
    again = launch(cohorts, workdir)
    assert again.returncode == 0, again.stderr
    assert "3 source (3 cached), 3 tune (3 cached)" in again.stdout
    assert (workdir / "predictions.csv").read_bytes() == before


def test_folds_side_by_side_on_a_cpu_give_the_predictions_of_one_after_another(
    cohorts, finished, workdir
):
    two = ("--cpu_folds=2", "--config.finetune.layers=()")
    done = launch(cohorts, workdir, *two)
    assert done.returncode == 0, done.stderr
    assert "2 folds at once" in done.stdout
    assert "3 source (0 cached)" in done.stdout
    key = ["run", "stage", "fold", "cohort", "subject_id", "split"]
    found, expected = (
        results.load(folder).predictions.query("stage == 'source'").set_index(key)["probability"]
        for folder in (workdir, finished[0])
    )
    # The same networks; those of the other run are not tested on the part that is tuned on.
    shared = expected.index.intersection(found.index)
    assert len(shared) > 60
    np.testing.assert_allclose(found.loc[shared], expected.loc[shared], atol=1e-5)


def test_a_plan_measures_what_the_study_will_run(cohorts, workdir):
    plan = launch(cohorts, workdir, "--plan")
    assert plan.returncode == 0, plan.stderr
    # Small volumes are not split.
    assert "devices: 1 x cpu (cpu), 1 fold at once, " in plan.stdout
    # Features of the frozen prefix are among what is measured.
    assert "tune " in plan.stdout
    assert "in all about" in plan.stdout


def test_another_config_in_the_work_directory_is_refused(cohorts, finished):
    done = launch(cohorts, finished[0], "--config.train.patience=3")
    assert done.returncode == 2
    assert "config.train.patience is 5, not 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.modle.width=2", "config.modle.width: no such field; did you mean config.model"),
        ("--config.train.batch=two", "config.train.batch: 'two' must be a whole number from 1"),
        (
            "--config.targets='A' --config.targets='B'",
            "config.targets: is given 2 times",
        ),
        ("--config.data.cohort=/nowhere.csv", "data.cohort: /nowhere.csv: no such cohort table"),
        (
            f"--config.data.cohort={ROOT}",
            f"data.cohort: {ROOT}: is a folder; give the cohort",
        ),
        (f"--config.data.store={__file__}", "launch.py: is a file; give the folder of the store"),
        ("--config.data.cohort=~/nowhere.csv", f"{Path.home()}/nowhere.csv: no such cohort table"),
        ("--config=~/nowhere.py", f"--config: {Path.home()}/nowhere.py: no such file"),
        ("--stages=~no-such-user/x", "no such home folder"),
        ("--config.train.min_delta=inf", "config.train.min_delta: inf must be a number from 0"),
        ("--config.data.clip=()", "config.data.clip: () must be a tuple of 2 values"),
        ("--cpu_folds=0", "--cpu_folds: 0 must be a whole number from 1 to"),
        ("--cpu_folds=100000", "--cpu_folds: 100000 must be a whole number from 1 to"),
        (
            "--cpu_folds=2 --debug_nans",
            "NaNs are looked for (--debug_nans) in one",
        ),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(cohorts, tmp_path, argument, message):
    done = launch(cohorts, tmp_path / "w", *argument.split(" "))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_refused_study_leaves_its_work_directory_to_the_corrected_one(cohorts, workdir):
    refused = launch(cohorts, workdir, "--config.train.folds=11")
    assert refused.returncode == 2
    assert "config.train.folds" in refused.stderr
    assert not (workdir / results.CONFIG).exists()
    corrected = launch(cohorts, workdir, "--plan")
    assert corrected.returncode == 0, corrected.stderr
    assert launch(cohorts, workdir).returncode == 0


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
    done = launch(cohorts, workdir, env={**os.environ, **switches})
    assert done.returncode == 0, done.stderr
    assert "3 source (0 cached)" in done.stdout
    assert predictions(workdir) == predictions(finished[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_PLATFORMS", "nonsense", "JAX_PLATFORMS: 'nonsense' cannot start on this machine"),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true", "must not be set: it changes results"),
    ],
)
def test_a_backend_that_cannot_be_used_is_one_line(cohorts, tmp_path, name, value, message):
    done = launch(cohorts, tmp_path / "run", env={**os.environ, name: value})
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_help_is_no_failure():
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "--help"], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "--config.model.width=2" in done.stdout


@pytest.fixture
def workdir(finished, tmp_path):
    """A new work directory; its stages folder holds compiled programs and nothing else."""
    shutil.copytree(finished[0].parent / "stages" / "xla", tmp_path / "stages" / "xla")
    return tmp_path / "run"


def predictions(workdir: Path) -> bytes:
    return (workdir / "predictions.csv").read_bytes()


def wait_for_epoch(workdir: Path, process: subprocess.Popen, least: int = 1) -> None:
    path = workdir / results.HISTORY
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= least:
            return
        time.sleep(0.01)


def test_sigterm_saves_asks_to_be_requeued_and_changes_nothing(cohorts, finished, workdir):
    process = subprocess.Popen(
        command(cohorts, workdir), stderr=subprocess.PIPE, cwd=ROOT, encoding="utf-8"
    )
    wait_for_epoch(workdir, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 75, told
    assert "the same command goes on" in told
    assert launch(cohorts, workdir).returncode == 0
    assert predictions(workdir) == predictions(finished[0])


def holds_sigterm(process: int) -> bool:
    """Whether a process blocks or catches SIGTERM by now."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigCgt"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_in_the_first_second_and_while_programs_compile_is_answered(cohorts, tmp_path):
    """In a process that imports, and in one whose main thread compiles or is about to."""
    wide = "--config.model.width=8"
    for moment in ("import", "compile"):
        process = subprocess.Popen(
            command(cohorts, tmp_path / "run", wide),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, encoding="utf-8",
        )  # fmt: skip
        if moment == "import":
            while not holds_sigterm(process.pid):  # before that it is any Python's
                time.sleep(0.005)
        else:
            line = ""
            while not line.startswith("stages:"):
                line = process.stdout.readline()
                assert line, process.stderr.read()
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 75, told
        assert time.monotonic() - asked < 20
        assert told.strip().endswith("the same command goes on")
        assert "Traceback" not in told


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
            cwd=ROOT, start_new_session=True,
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


def test_a_work_directory_in_use_is_refused(cohorts, workdir):
    first = subprocess.Popen(
        command(cohorts, workdir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    wait_for_epoch(workdir, first)
    second = launch(cohorts, workdir)
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert "in use by another process" in second.stderr


def test_the_allocator_is_tuned_for_this_process_only_and_can_be_left_alone():
    code = (
        "import os, sys; import launch; from mri_jax import allocator; "
        "allocator.kept_stock(sys.argv) or allocator.tune(); "
        "assert 'jax' not in sys.modules; "
        "print(os.environ.get('GLIBC_TUNABLES', 'stock'))"
    )
    bare = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}

    def tunables(*flags: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *flags],
            capture_output=True, cwd=ROOT, env=bare, timeout=60, check=True, encoding="utf-8",
        )  # fmt: skip
        return done.stdout.strip()

    assert tunables("--allocator=stock") == "stock"
    assert tunables("--allocator", "stock") == "stock"
    if sys.platform == "linux":
        assert "glibc.malloc.hugetlb=1" in tunables()


def test_the_script_for_slurm_passes_sigterm_on_and_queues_the_job_again(tmp_path):
    page = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
    script = page.split("```")[1].strip("\n")
    start, end = script.index("python launch.py"), script.index(" &\n")
    run = "bash -c 'trap \"exit 75\" TERM; touch ready; while :; do sleep 0.02; done'"
    (tmp_path / "job").write_text(script[:start] + run + script[end:] + "\n", encoding="utf-8")
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" > requeued\n', encoding="utf-8")
    (tmp_path / "scontrol").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "job"], cwd=tmp_path, env=environment)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == "requeue 17\n"


def test_predictions_name_every_network_once(finished):
    frame = pd.read_csv(finished[0] / "predictions.csv")
    networks = frame[["run", "stage", "repeat", "fold"]].drop_duplicates()
    assert len(networks) == 3 * 3
