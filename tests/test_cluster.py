"""Studies by the real launcher on workers of this machine."""

import contextlib
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from etils import epath

from mri_jax import files
from mri_jax.runs import provenance, results
from tests.conftest import ROOT
from tests.launching import command, environment, workers_of
from tests.tiny import make_cohorts

# A worker of two on this machine has one of its cores, or two of four.
CORES = sorted(os.sched_getaffinity(0))[:: min(2, os.cpu_count() or 1)]
ON_CORES = ("taskset", "-c", ",".join(map(str, CORES)))
LOCAL = "--cluster=local:2"
LONGER = ("--config.train.min_epochs=300", "--config.train.max_epochs=300")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=10, cohorts=("ADNI1", "ADNI2"))


def alone(
    cohorts: tuple[Path, Path], workdir: Path, *more: str, cores: Sequence[str] = ON_CORES
) -> bytes:
    """Returns the predictions of one process, by default with the cores of a worker."""
    done = subprocess.run(
        [*cores, *command(cohorts, workdir, *more)], capture_output=True, timeout=300, cwd=ROOT,
        encoding="utf-8", env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return predictions(workdir)


def predictions(workdir: Path) -> bytes:
    return (workdir / results.PREDICTIONS).read_bytes()


def begin(cohorts: tuple[Path, Path], workdir: Path, *more: str) -> subprocess.Popen[str]:
    with (workdir.parent / "said.txt").open("a", encoding="utf-8") as said:
        return subprocess.Popen(
            command(cohorts, workdir, *more),
            cwd=ROOT, stdout=said, stderr=said, encoding="utf-8", env=environment(),
            start_new_session=True,
        )  # fmt: skip


def said(workdir: Path) -> str:
    return (workdir.parent / "said.txt").read_text(encoding="utf-8")


def test_workers_give_the_bytes_of_one_process(cohorts, tmp_path):
    workdir = tmp_path / "run"
    assert begin(cohorts, workdir, LOCAL).wait(timeout=300) == 0, said(workdir)
    assert predictions(workdir) == alone(cohorts, tmp_path / "alone")
    assert "on 2 workers, each computing on the CPU" in said(workdir)
    last = r"^2 workers: (\d+)/\1 volumes, .* at=\w[^=]* fold \d tasks=\d+/\d+$"
    assert re.search(last, said(workdir), re.M), said(workdir)
    assert provenance.read(epath.Path(workdir)).devices == ("cpu:cpu", "cpu:cpu")
    made = {row["made_by"] for row in files.read_json(workdir / results.PLAN)["stages"]}
    assert made <= {f"worker {number} on {platform.node()}" for number in (0, 1)}
    assert made


def test_a_config_that_is_refused_waits_for_no_worker(cohorts, tmp_path):
    workdir = tmp_path / "run"
    assert begin(cohorts, workdir, LOCAL, "--config.task.positive=XX").wait(timeout=120) == 2
    assert said(workdir).startswith("error: ")
    assert "XX" in said(workdir)
    assert not (tmp_path / "stages").exists()


@pytest.mark.slow
def test_workers_killed_at_random_moments_cost_nothing(cohorts, tmp_path):
    rng = random.Random(0)
    workdir = tmp_path / "run"
    process = begin(cohorts, workdir, LOCAL, *LONGER)
    killed = 0
    while process.poll() is None and killed < 5:
        time.sleep(rng.uniform(2.0, 8.0))
        working = workers_of(process)
        if working and (workdir / results.PLAN).exists():
            os.kill(rng.choice(working), signal.SIGKILL)
            killed += 1
    assert process.wait(timeout=600) == 0, said(workdir)
    assert killed == 5
    assert predictions(workdir) == alone(cohorts, tmp_path / "alone", *LONGER)


@contextlib.contextmanager
def scheduler(
    folder: Path, largest: int | None = None
) -> Iterator[tuple[Path, dict[str, subprocess.Popen[bytes]]]]:
    """Gives the file of a Dask scheduler with two workers, a and b, and their processes.

    Args:
      folder: For the file and what they print.
      largest: Bytes of the largest file that worker a can write.
    """
    file = folder / "scheduler.json"
    own = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    of_worker = ["--nthreads", "1", "--resources", "device=1", "--no-dashboard", "--name"]

    def start(kind: str, *more: str) -> subprocess.Popen[bytes]:
        with (folder / f"dask-{more[-1]}.txt").open("ab") as log:
            limit = ["prlimit", f"--fsize={largest}"] if largest and more[-1] == "a" else []
            asked = [*limit, sys.executable, "-m", f"distributed.cli.dask_{kind}"]
            asked += ["--scheduler-file", str(file), *more]
            return subprocess.Popen(asked, stdout=log, stderr=log, cwd=ROOT)

    processes = [start("scheduler", *own)]
    try:
        while not file.exists():
            time.sleep(0.1)
        workers = {name: start("worker", *of_worker, name) for name in "ab"}
        processes += workers.values()
        yield file, workers
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_saves_and_the_launcher_may_be_killed(cohorts, tmp_path):
    workdir = tmp_path / "run"
    with scheduler(tmp_path) as (file, workers):
        process = begin(cohorts, workdir, f"--cluster={file}", *LONGER)
        wait_for(lambda: "volumes," in said(workdir), process, workdir)
        workers["a"].terminate()
        assert workers["a"].wait(timeout=60) == 0
        states = list((tmp_path / "stages").glob("source-*/training/*/state.json"))
        assert states, "the training that worker a was at is not saved"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        assert begin(cohorts, workdir, f"--cluster={file}", *LONGER).wait(timeout=600) == 0, said(
            workdir
        )
    assert predictions(workdir) == alone(cohorts, tmp_path / "alone", *LONGER, cores=())


@pytest.mark.slow
def test_what_a_worker_with_a_full_disk_cannot_do_is_done_elsewhere(cohorts, tmp_path):
    workdir = tmp_path / "run"
    with scheduler(tmp_path, largest=4096) as (file, _):
        assert begin(cohorts, workdir, f"--cluster={file}").wait(timeout=600) == 0, said(workdir)
    told = re.findall(r"^(.*) failed on worker a \(.*: the disk is full\); it is tried on another",
                      said(workdir), re.M)  # fmt: skip
    assert told, said(workdir)
    assert predictions(workdir) == alone(cohorts, tmp_path / "alone", cores=())


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str], workdir: Path) -> None:
    until = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, said(workdir)
        assert time.monotonic() < until, said(workdir)
        time.sleep(0.2)
