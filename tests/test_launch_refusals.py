"""What the launcher refuses or answers before it computes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from mri_jax.locks import folder_locked
from tests.conftest import ROOT
from tests.launching import command, launch, launch_copy
from tests.tiny import make_cohorts


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=10, cohorts=("ADNI1", "ADNI2"))


MISTAKES = [
    ("--config.modle.width=2", "config.modle.width: no such field; did you mean config.model"),
    ("--config.train.batch=two", "config.train.batch: 'two' must be a whole number from 1"),
    ("--config.targets='A' --config.targets='B'", "config.targets: is given 2 times"),
    ("--config.data.cohort=/nowhere.csv", "data.cohort: /nowhere.csv: no such cohort table"),
    (f"--config.data.cohort={ROOT}", f"data.cohort: {ROOT}: is a folder; give the cohort"),
    (f"--config.data.store={__file__}", "refusals.py: is a file; give the folder of the store"),
    ("--config.data.cohort=~/nowhere.csv", f"{Path.home()}/nowhere.csv: no such cohort table"),
    ("--config=~/nowhere.py", f"--config: {Path.home()}/nowhere.py: no such file"),
    ("--stages=~no-such-user/x", "no such home folder"),
    ("--config.train.min_delta=inf", "config.train.min_delta: inf must be a number from 0"),
    ("--config.data.clip=()", "config.data.clip: () must be a tuple of 2 values"),
    (
        "--config.model.form=native",
        "config.model.form: is no field any more; --forms (launch.py --help) chooses how",
    ),
    ("--forms=fast", "--forms: 'fast'"),
    ("--cpu_folds=0", "--cpu_folds: 0 must be a whole number from 1 to"),
    ("--cpu_folds=100000", "--cpu_folds: 100000 must be a whole number from 1 to"),
    ("--plan --debug_nans", "--debug_nans: looks for NaNs in a study that runs"),
    (
        "--cpu_folds=2 --debug_nans",
        "--cpu_folds: must be 1 with --debug_nans",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_gives_one_line_and_exit_code_2(cohorts, tmp_path, arguments, message):
    done = launch_copy(cohorts, tmp_path / "run", *arguments.split(" "))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_PLATFORMS", "nonsense", "JAX_PLATFORMS: 'nonsense' cannot start on this machine"),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true", "must not be set: it changes results"),
    ],
)
def test_a_backend_that_cannot_be_used_is_one_line(cohorts, tmp_path, name, value, message):
    done = launch(cohorts, tmp_path / "run", **{name: value})
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("asked", [("--forms=native",), ()])
def test_without_a_compiler_native_kernels_are_refused_or_a_line_says_so(cohorts, tmp_path, asked):
    without = {"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    asked = ("--plan", "--config.finetune.layers=()", *asked)
    done = launch_copy(cohorts, tmp_path / "run", *asked, **without)
    missing = "native kernels: no C++ compiler (no-such-compiler) was found; install one"
    told = done.stderr.splitlines()
    if "--forms=native" in asked:
        assert done.returncode == 2
        assert len(told) == 1
        assert told[0].startswith(f"error: --forms=native: {missing}")
    else:
        assert done.returncode == 0, done.stderr
        said = [line for line in told if line.startswith(f"note: {missing}")]
        assert len(said) == 1
        assert "about 6 times as long (a step at 2 mm)" in said[0]
        assert done.stdout.startswith("computing on the CPU with XLA's own convolutions, ")


def test_help_is_no_failure():
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "--help"], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "--config.model.width=2" in done.stdout


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


def test_a_work_directory_in_use_is_refused(cohorts, tmp_path):
    with folder_locked(epath.Path(tmp_path / "run"), "work directory"):
        second = launch_copy(cohorts, tmp_path / "run")
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
