"""Signals to real processes, which are where the answer has to come from."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mri_jax.interruption import LINE
from tests.conftest import ROOT

# Computes for minutes outside the interpreter, as a compiler does: no handler of Python's can run.
OUTSIDE = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


def started(script: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys, time\nfrom mri_jax.interruption import *\n{script}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, encoding="utf-8",
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def answered(process: subprocess.Popen, *signals: signal.Signals) -> tuple[int, str, str, float]:
    asked = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    out, err = process.communicate(timeout=40)
    assert "Traceback" not in err
    return process.returncode, out, err, time.monotonic() - asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_there_is_nothing_to_lose_the_process_ends_at_once(number):
    process = started(f"Interruption().install(); print('ready', flush=True); {OUTSIDE}")
    code, _, told, seconds = answered(process, number)
    assert (code, told) == (75, f"{LINE}\n")
    assert seconds < 5


def test_a_compiler_that_holds_the_main_thread_is_not_waited_for():
    process = started(
        "i = Interruption(grace=1.0).install()\n"
        f"with i.polled():\n    print('ready', flush=True); {OUTSIDE}"
    )
    code, _, told, seconds = answered(process, signal.SIGTERM)
    assert (code, told) == (75, f"{LINE}\n")
    assert 1.0 < seconds < 8


def test_who_has_heard_may_save_for_longer_than_the_grace():
    process = started(
        "i = Interruption(grace=0.5).install()\n"
        "with i.polled():\n"
        "    print('ready', flush=True)\n"
        "    while not i.asked(): time.sleep(0.01)\n"
        "    time.sleep(2.0)\n"
        "    print('saved')\n"
        "sys.exit(CODE)"
    )
    code, out, told, _ = answered(process, signal.SIGTERM)
    assert (code, out, told) == (75, "saved\n", "")


def test_a_signal_is_raised_once_where_work_leaves_temporary_files():
    process = started(
        "i = Interruption(grace=20.0).install()\n"
        "try:\n"
        "    with i.raising():\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(30)\n"
        "        finally:\n"
        "            time.sleep(1.0)\n"  # a second SIGTERM comes here and changes nothing
        "            print('removed', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    i.end()"
    )
    code, out, told, _ = answered(process, signal.SIGTERM, signal.SIGTERM)
    assert (code, out, told) == (75, "removed\n", f"{LINE}\n")


def test_a_second_ctrl_c_ends_at_once():
    process = started(
        "i = Interruption(grace=60.0).install()\n"
        "with i.polled():\n    print('ready', flush=True)\n    while True: time.sleep(0.01)"
    )
    code, _, told, seconds = answered(process, signal.SIGINT, signal.SIGINT)
    assert (code, told) == (75, f"{LINE}\n")
    assert seconds < 5


def test_a_signal_that_comes_while_the_process_starts_itself_again_is_answered_after():
    again = (
        "import time; from mri_jax.interruption import Interruption; "
        "Interruption().install(); time.sleep(30)"
    )
    script = (
        "import os, sys, signal\n"
        "from mri_jax.interruption import hold_signals\n"
        "hold_signals()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        f"os.execve(sys.executable, [sys.executable, '-c', {again!r}], dict(os.environ))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (75, f"{LINE}\n")


def test_children_are_ended_too(tmp_path):
    process = started(
        "import multiprocessing\n"
        "i = Interruption(grace=0.2).install()\n"
        "child = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(60,))\n"
        "child.start()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "with i.polled():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)"
    )
    code, _, _, seconds = answered(process, signal.SIGTERM)
    assert code == 75
    assert seconds < 8
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may be gone altogether
        pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        assert stat.split(")")[1].split()[0] == "Z"
