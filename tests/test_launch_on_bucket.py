"""Launchers that share a bucket, as processes."""

import re
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.bucket import served
from tests.conftest import ROOT
from tests.launching import command, environment, launch
from tests.tiny import make_cohorts

pytestmark = pytest.mark.slow

STAGES = "--stages=gs://bucket/stages"
# The launcher, with leases that end sooner.
IMPATIENT = """
import runpy, sys
from mri_jax import leases
leases.LEASE = 5.0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=10, cohorts=("ADNI1", "ADNI2"))


@pytest.fixture(scope="module")
def expected(cohorts, tmp_path_factory):
    """The predictions of a run on the disk."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    done = launch(cohorts, workdir)
    assert done.returncode == 0, done.stderr
    return (workdir / "predictions.csv").read_bytes()


@pytest.fixture
def bucket():
    with served() as bucket:
        yield bucket
        assert bucket.unknown == []


def started(bucket, arguments):
    return subprocess.Popen(
        arguments, cwd=ROOT, encoding="utf-8", env=environment(**bucket.environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def built(bucket):
    """How often each stage was marked as finished, and its result written."""
    kinds = Counter()
    for name in bucket.writes:
        if re.fullmatch(r"stages/[a-z]+-\w{16}/(stage.json|history.json|logits.csv)", name):
            kinds[name] += 1
    return kinds


def test_two_launchers_at_once_build_each_stage_once(cohorts, expected, bucket):
    both = [started(bucket, command(cohorts, f"gs://bucket/runs/{name}", STAGES)) for name in "ab"]
    for process in both:
        ended(process)
    found = built(bucket)
    # 3 networks, as many tuned, the evaluations of both, 3 classifiers: 21 notes.
    assert sum(name.endswith("stage.json") for name in found) == 21
    assert set(found.values()) == {1}
    for name in "ab":
        assert bucket.blobs[f"runs/{name}/predictions.csv"].data == expected
    locks = bucket.names("stages/locks/.*")
    assert len(locks) == 21
    assert all(bucket.json(name)["released"] for name in locks)
    # Each has built some, as who held the locks last tells.
    assert {bucket.json(name)["process"] for name in locks} == {process.pid for process in both}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_launcher_that_was_stopped_is_followed_by_another_one(
    cohorts, expected, bucket, number, code
):
    impatient = [sys.executable, "-c", IMPATIENT]
    arguments = impatient + command(cohorts, "gs://bucket/runs/one", STAGES)[1:]
    first = started(bucket, arguments)

    def stop(name):
        if name.endswith("/training/1/state.json"):
            first.send_signal(number)

    bucket.after_write = stop
    first.communicate(timeout=300)
    assert first.returncode == code
    bucket.after_write = lambda name: None
    (training,) = bucket.names("stages/source-.*/training/1/state.json")
    (lock,) = bucket.names(f"stages/locks/{training.split('/')[1]}.lock/.*")
    held = [lock, "runs/one/.lock/000001"]
    killed = number == signal.SIGKILL
    assert [bucket.json(name)["released"] for name in held] == [not killed] * 2
    said = ended(started(bucket, arguments))
    assert ("waiting 5 s for a sign of life" in said) == killed
    assert set(built(bucket).values()) == {1}
    assert bucket.blobs["runs/one/predictions.csv"].data == expected
    assert bucket.json(lock.replace("000001", "000002"))["released"]
