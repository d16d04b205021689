import os
import signal
import subprocess
import sys
import time

import pytest

from mri_jax.errors import DiskFull
from mri_jax.interruption import CODE, LINE
from mri_jax.volumes.workers import in_processes
from tests.conftest import ROOT

# A command whose tasks take a minute each, in two processes.
SLOW = """
import sys, time, types
from mri_jax import cli
from mri_jax.interruption import Interruption
from mri_jax.volumes.workers import in_processes

def run(args):
    print("begun", flush=True)
    list(in_processes(time.sleep, [60.0] * 4, 2, lambda task, reason: reason))

sys.modules["mri_jax.commands.slow"] = types.SimpleNamespace(add_arguments=id, run=run)
cli.COMMANDS["slow"] = ("slow", "")
cli.main(["slow"], Interruption().install())
"""


def test_a_killed_worker_loses_one_task():
    found = sorted(in_processes(die_on_1, [1, 2, 3], 2, lambda task, why: f"{task} lost: {why}"))
    assert found == ["1 lost: the worker process was killed (out of memory?)", "2", "3"]


def die_on_1(task: int) -> str:
    if task == 1:
        os._exit(9)
    return str(task)


def test_a_full_disk_ends_the_others_too():
    with pytest.raises(DiskFull, match=r"^here: the disk is full$"):
        list(in_processes(no_room, [1, 2, 3], 1, lambda task, why: why))


def no_room(task: int) -> None:
    raise DiskFull("here: the disk is full")


def test_an_interrupted_pool_says_one_line_and_leaves_no_semaphore():
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    # Python's tracker of semaphores complains after the process has ended, and then closes stderr.
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (CODE, f"{LINE}\n")
