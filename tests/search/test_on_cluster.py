"""What a worker of a cluster does for a search."""

import contextlib
from types import SimpleNamespace

import pytest

from mri_jax.cluster.spread import DONE, FAILED, STOPPED
from mri_jax.runs import search as results
from mri_jax.search import on_cluster
from mri_jax.search.on_cluster import Request, work
from mri_jax.study.worker import Assignment, Order, StudyWorker, software
from mri_jax.training import devices
from tests.search import quick
from tests.search.made import study_of


class Here(StudyWorker):
    """A worker that has a study open, whose networks train in no time."""

    called = "worker a"

    def __init__(self, bench, interrupted=lambda: False):
        super().__init__(Order("", None, software()))
        self._worker = SimpleNamespace(name="a", address="tcp://127.0.0.1:1")
        self.said: list[str] = []
        self._study = SimpleNamespace(
            study=bench.study,
            volumes=bench.volumes,
            folders=bench.folders,
            asked=None,
            interrupted=interrupted,
            device=lambda: contextlib.nullcontext(devices.one_fold_each()),
        )

    def tell(self, message):
        self.said.append(message["said"])

    def _require_alike(self, assignment):
        pass

    def _opened(self, assignment):
        return self._study


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(on_cluster, "Bench", quick.Quick)
    return quick.bench_of(study_of(tmp_path), tmp_path)


def request_of(bench, folder):
    asked = Assignment("search", bench.study, (), None, ("cpu", "cpu"), ())
    return Request(asked, str(folder / results.FOLDER))


def test_a_worker_takes_trials_until_none_is_left(bench, tmp_path):
    ledgers = quick.ledgers(bench, tmp_path)
    assert [ledger.left for ledger in ledgers] == [3, 3]
    worker = Here(bench)
    assert work(worker, request_of(bench, tmp_path)).state == DONE
    assert [ledger.left for ledger in ledgers] == [0, 0]
    assert len(worker.said) == 12  # what each trial is, and what came of it
    assert all(line.startswith("worker a: ") for line in worker.said)
    assert work(worker, request_of(bench, tmp_path)).state == DONE
    assert len(worker.said) == 12


def test_a_worker_that_is_told_to_end_leaves_its_trial_to_others(bench, tmp_path):
    ledgers = quick.ledgers(bench, tmp_path)
    ends = Here(bench, interrupted=lambda: True)
    assert work(ends, request_of(bench, tmp_path)).state == STOPPED
    assert [ledger.left for ledger in ledgers] == [3, 3]
    worker = Here(bench)
    assert work(worker, request_of(bench, tmp_path)).state == DONE
    assert "which was interrupted, goes on" in worker.said[0]
    assert [ledger.left for ledger in ledgers] == [0, 0]


def test_a_worker_that_sees_another_folder_says_so(bench, tmp_path):
    outcome = work(Here(bench), request_of(bench, tmp_path))
    assert outcome.state == FAILED
    assert outcome.reason.endswith("journal.jsonl is not there: it sees another --workdir")
