"""One study by several processes, which stand for hosts, over the loopback address."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mri_jax import supervision
from mri_jax.errors import UserError
from mri_jax.interruption import CODE
from mri_jax.runs import results
from mri_jax.training import hosts
from tests.conftest import ROOT
from tests.launching import command, environment
from tests.tiny import make_cohorts

HOSTS, DEVICES = 3, 2


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=15, cohorts=("ADNI1", "ADNI2"))


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # a batch script, which runs the command once
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "2"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "1"}, False),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, True),  # refused when it joins
    ],
)
def test_the_environment_tells_whether_there_are_other_processes(variables, several):
    assert supervision.several(variables) == several


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:", "10.0.0.1:http"])
def test_an_address_without_a_port_is_refused(monkeypatch, address):
    monkeypatch.setenv(supervision.COORDINATOR, address)
    with pytest.raises(UserError, match=f"^JAX_COORDINATOR_ADDRESS: '{address}' must be HOST:PORT"):
        hosts.join()


@pytest.mark.parametrize(
    ("count", "index", "told"),
    [
        ("", "0", "JAX_NUM_PROCESSES: '' must be a whole number, beside JAX_COORDINATOR_ADDRESS"),
        ("2", "", "JAX_PROCESS_ID: '' must be a whole number, beside JAX_COORDINATOR_ADDRESS"),
        ("2", "5", "JAX_PROCESS_ID: 5 must be from 0 to 1, as JAX_NUM_PROCESSES is 2"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused_before_anybody_waits(
    monkeypatch, count, index, told
):
    for name, value in zip(
        (supervision.COORDINATOR, supervision.COUNT, supervision.INDEX),
        ("10.0.0.1:1234", count, index),
        strict=True,
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(told)):
        hosts.join()


def test_what_a_process_says_is_passed_on_without_how_jax_ends_it():
    said = ["reading volumes\n", "[Gloo] Rank 1 is connected to 2 peer ranks.\n", "1/3 epochs\n"]
    ending = ["E1129 coordination_service_agent.cc:289] Polled an error\n", "Fatal Python error\n"]
    assert list(supervision.of_use([*said, *ending])) == [said[0], said[2]]


@pytest.fixture
def supervised(tmp_path):
    """A process with a child that sleeps, and the child's number."""
    script = tmp_path / "work.py"
    script.write_text(
        "import os, time\nfrom mri_jax import supervision\nsupervision.supervise([__file__])\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)\n",
        encoding="utf-8",
    )
    several = {supervision.COORDINATOR: "127.0.0.1:1", supervision.COUNT: "2"}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment() | several | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    with process:
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of it on Linux")
def test_a_process_whose_parent_is_killed_ends(supervised):
    process, child = supervised
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{child}/cmdline").exists() and time.monotonic() < until:
        if not Path(f"/proc/{child}/cmdline").read_bytes():  # it waits for nobody to ask
            break
        time.sleep(0.1)
    assert time.monotonic() < until


@pytest.mark.parametrize(
    ("by", "line"),
    [
        (signal.SIGKILL, "this process was ended by SIGKILL; finished stages and saved states are"),
        (signal.SIGABRT, "another process of this study has ended or cannot be reached; finished"),
    ],
)
def test_how_a_process_ended_is_said(supervised, by, line):
    process, child = supervised
    os.kill(child, by)
    _, said = process.communicate(timeout=20)
    assert process.returncode == CODE
    assert said.splitlines()[-1].startswith(line)


class Store:
    """What processes share."""

    def __init__(self):
        self.kept: dict[str, bytes] = {}

    def key_value_set_bytes(self, key: str, value: bytes) -> None:
        self.kept[key] = value

    def blocking_key_value_get_bytes(self, key: str, timeout: int) -> bytes:
        return self.kept[key]


class Told(UserError):
    """An error that cannot be made of its message alone."""

    def __init__(self, file: str, row: int):
        super().__init__(f"{file}: row {row} is wrong")


def test_what_the_first_process_makes_or_raises_is_that_of_all(monkeypatch):
    store = Store()
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "_store", lambda: store)

    def refuse() -> int:
        raise Told("cohort.csv", 7)

    def in_turn(make: Callable[[], int]) -> list[object]:
        """Returns what the first process and another one have of it."""
        found: list[object] = []
        for first in (True, False):
            monkeypatch.setattr(hosts, "first", lambda first=first: first)
            monkeypatch.setattr(hosts, "_ASKED", iter([len(store.kept) - (not first)]))
            try:
                found.append(hosts.agreed(make))
            except UserError as error:
                found.append(str(error))
        return found

    drawn = iter([7, 8])
    assert in_turn(lambda: next(drawn)) == [7, 7]
    assert in_turn(refuse) == ["cohort.csv: row 7 is wrong"] * 2


def test_a_process_that_was_told_of_another_number_is_refused(monkeypatch):
    store = Store()
    monkeypatch.setattr(hosts, "_store", lambda: store)
    hosts._require_count(2, 0)
    hosts._require_count(2, 1)
    with pytest.raises(UserError, match=r"^JAX_NUM_PROCESSES: is 3 here and 2 in the first"):
        hosts._require_count(3, 2)


def begin(cohorts: tuple[Path, Path], workdir: Path, *more: str) -> list[subprocess.Popen[str]]:
    """Starts the command on each host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = command(cohorts, workdir, f"--cpu_folds={DEVICES}", *more)
    started = []
    for host in range(HOSTS):
        there = environment(
            JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
            JAX_NUM_PROCESSES=str(HOSTS),
            JAX_PROCESS_ID=str(host),
        )
        with (workdir.parent / f"said{host}.txt").open("a", encoding="utf-8") as said:
            started.append(
                subprocess.Popen(
                    asked, cwd=ROOT, stdout=said, stderr=said, env=there, encoding="utf-8"
                )
            )
    return started


def said(workdir: Path) -> list[str]:
    files = [workdir.parent / f"said{host}.txt" for host in range(HOSTS)]
    return [path.read_text(encoding="utf-8") for path in files]


def probabilities(workdir: Path) -> pd.Series:
    found = results.load(workdir).predictions
    keys = ["run", "stage", "fold", "cohort", "split", "subject_id"]
    return found.set_index(keys)["probability"].sort_index()


@pytest.fixture(scope="module")
def alone(cohorts, tmp_path_factory) -> pd.Series:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    done = subprocess.run(
        command(cohorts, workdir, "--config.train.batch=6"), capture_output=True, timeout=300,
        cwd=ROOT, encoding="utf-8", env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return probabilities(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("per_fold", [1, 2, 3, 6])
def test_three_hosts_of_two_devices_give_the_predictions_of_one_process(
    cohorts, alone, tmp_path, per_fold
):
    workdir = tmp_path / "run"
    more = ("--config.train.batch=6", f"--devices_per_fold={per_fold}")
    codes = [host.wait(timeout=600) for host in begin(cohorts, workdir, *more)]
    assert codes == [0, 0, 0], said(workdir)
    found = probabilities(workdir)
    assert found.index.equals(alone.index)
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert "Tested on ADNI2" in said(workdir)[0]
    assert "Tested on ADNI2" not in said(workdir)[1]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 2])
def test_when_a_host_is_killed_the_others_end_with_a_line_and_the_same_command_goes_on(
    cohorts, alone, tmp_path, lost
):
    workdir = tmp_path / "run"
    more = ("--config.train.batch=6", "--devices_per_fold=2")
    started = begin(cohorts, workdir, *more)
    until = time.monotonic() + 300
    while not list((tmp_path / "stages").glob("source-*/stage.json")):
        assert time.monotonic() < until, said(workdir)
        time.sleep(0.2)
    # The parent and the child that works are one group, as on a host that loses its power.
    os.kill(child_of(started[lost].pid), signal.SIGKILL)
    started[lost].kill()
    started[lost].wait()
    others = [host for i, host in enumerate(started) if i != lost]
    assert [host.wait(timeout=120) for host in others] == [CODE, CODE], said(workdir)
    for i in {0, 1, 2} - {lost}:
        *before, last = said(workdir)[i].splitlines()
        assert last == supervision.LINE
        assert not [line for line in before if "Fatal" in line or "Traceback" in line]
    assert [host.wait(timeout=600) for host in begin(cohorts, workdir, *more)] == [0, 0, 0]
    np.testing.assert_allclose(probabilities(workdir), alone, atol=1e-5)


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return int(children[0])


@pytest.mark.slow
def test_one_host_that_is_asked_to_stop_stops_all(cohorts, tmp_path):
    workdir = tmp_path / "run"
    started = begin(cohorts, workdir, "--config.train.max_epochs=1000", "--config.train.batch=6")
    until = time.monotonic() + 300
    while "epochs," not in said(workdir)[0]:
        assert time.monotonic() < until, said(workdir)
        time.sleep(0.2)
    started[1].send_signal(signal.SIGTERM)
    assert [host.wait(timeout=60) for host in started] == [CODE] * 3, said(workdir)
    assert "everything is saved" in said(workdir)[0]
