from dataclasses import replace
from typing import Any

import jax
import pytest
from etils import epath

from mri_jax import files
from mri_jax.cluster.spread import DONE, FAILED
from mri_jax.errors import UserError
from mri_jax.planning.plan import TrainStage
from mri_jax.runs import results
from mri_jax.study.on_cluster import OnCluster, looked_at, refuse_early
from mri_jax.study.prepare import planned
from mri_jax.study.scans import with_sites
from mri_jax.study.stages import StageFolders
from mri_jax.study.worker import Assignment, Facts, Order, StudyWorker, seen_anywhere, software
from mri_jax.training import devices
from mri_jax.training.wave import Wave
from tests import studies
from tests.tiny import SMALL_MODEL, make_cohorts

GOOD = Facts(
    "worker 0", software(), ("cpu", "cpu"), devices=1, states=1, memory=8 << 30, said="computing"
)


class Worker:
    """A Dask worker that notes what it is told."""

    name, address = "a", "tcp://127.0.0.1:1"

    def __init__(self):
        self.events: list[dict[str, Any]] = []

    def log_event(self, topic: str, message: dict[str, Any]) -> None:
        self.events.append(message)


def test_a_worker_builds_stages_by_the_forms_that_all_have(tmp_path, monkeypatch):
    # JAX is in use already in a process of tests.
    device = jax.local_devices()[0]
    monkeypatch.setattr(devices, "start", lambda stages, forms: Wave((device,), forms=forms))
    table, store = make_cohorts(tmp_path, subjects=6)
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    study = studies.study(
        "baseline", data__cohort=str(table), data__store=str(store), train__folds=2,
        train__min_epochs=1, train__max_epochs=1, train__min_steps=0, targets=("ADNI2",), **small,
    )  # fmt: skip
    worker = Worker()
    plugin = StudyWorker(Order(str(tmp_path / "stages"), "xla", software()))
    plugin.setup(worker)
    asked = Assignment("forms", study, (), None, ("cpu", "cpu"), ())
    assert plugin.forms(asked) == "xla"
    folders = StageFolders(tmp_path / "stages")
    _, plan = planned(study, folders)
    first = next(stage for stage in plan.stages() if isinstance(stage, TrainStage))
    build = replace(asked, key="source", forms="reference", fingerprints=(first.fingerprint,))
    outcome = plugin.build(build)
    assert (outcome.state, outcome.worker, outcome.reason) == (DONE, "worker a", "")
    assert folders.finished(first)
    assert worker.events[-1] == {"task": "source", "done": len(first.train) + len(first.validation)}
    (state,) = (tmp_path / "stages").glob("source-*/training/*/state.json")
    assert files.read_json(state)["forms"] == "reference"
    unknown = plugin.build(replace(build, fingerprints=("0" * 64,)))
    assert unknown.state == FAILED
    assert "does this worker see another store" in unknown.reason
    other = plugin.build(replace(build, device=("gpu", "NVIDIA H100")))
    assert other.reason == "has cpu, and the others NVIDIA H100"


class Client:
    """A client whose workers answer with facts."""

    def __init__(self, *facts: Facts):
        self.facts = facts

    def run(self, function: Any, token: str) -> dict[int, Facts]:
        assert epath.Path(token).exists()
        return dict(enumerate(self.facts))


def test_workers_are_told_paths_that_hold_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"data__cohort": "a/cohort.csv", "data__store": "gs://b/store"}
    data = seen_anywhere(studies.study("baseline", **paths)).data
    assert (data.cohort, data.store) == (str(tmp_path / "a" / "cohort.csv"), "gs://b/store")
    made = studies.study("baseline")
    assert seen_anywhere(made) == made


def test_what_is_refused_early_is_what_would_be_refused_with_workers(tmp_path):
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    for name in ("baseline", "leave_one_site_out"):
        study, workdir = studies.study(name, "smoke", **small), epath.Path(tmp_path / name)
        refuse_early(study, None, workdir, epath.Path(tmp_path))
        workdir.mkdir()
        # What is on record has its sites, and the type of a GPU's activations.
        begun = with_sites(study, None, lambda line: None).with_dtype("bfloat16")
        begun.write(workdir / results.CONFIG)
        (workdir / results.PLAN).touch()
        refuse_early(study, None, workdir, epath.Path(tmp_path))
        other = studies.study(name, "smoke", seed=7, **small)
        with pytest.raises(UserError, match=r"another config: config\.seed is 2021, not 7"):
            refuse_early(other, None, workdir, epath.Path(tmp_path))
    wrong = studies.study("baseline", "smoke", task__positive="pMCI", source__cohorts=("ADNI9",))
    with pytest.raises(UserError, match="ADNI9"):
        refuse_early(wrong, None, epath.Path(tmp_path / "new"), epath.Path(tmp_path))


def test_workers_that_fit_together_are_told_and_leave_no_file(tmp_path):
    stages = epath.Path(tmp_path / "stages")
    other = replace(GOOD, worker="worker 1", memory=4 << 30)
    workers = looked_at(Client(GOOD, other), stages)
    assert list(stages.iterdir()) == []
    cluster = OnCluster(workers=workers)
    assert cluster.said == "on 2 workers, each computing"
    assert cluster.memory == 4 << 30
    assert cluster.on_host


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"software": {**GOOD.software, "jax": "0.1"}}, "has jax 0.1, not "),
        ({"software": {**GOOD.software, "mri_jax": "9 (source ab)"}}, r"has mri_jax 9 \(source ab"),
        ({"software": {**GOOD.software, "numpy": None}}, "has numpy None, not "),
        ({"problem": "data.store: /s: no such folder"}, "data.store: /s: no such folder"),
        ({"states": 0}, "states no Dask resource 'device'"),
        ({"states": 2}, "states 2 of resource 'device' and has 1"),
    ],
)
def test_a_worker_that_would_give_other_results_is_refused_by_name(tmp_path, changed, told):
    wrong = replace(GOOD, worker="worker 1", **changed)
    with pytest.raises(UserError, match=f"^--cluster: worker 1: {told}"):
        looked_at(Client(GOOD, wrong), epath.Path(tmp_path))


def test_devices_of_several_kinds_are_refused(tmp_path):
    card = replace(GOOD, worker="worker 1", device=("gpu", "NVIDIA H100"))
    with pytest.raises(
        UserError, match=r"worker 0 has cpu and worker 1 has NVIDIA H100|worker 0 has cpu, worker 1"
    ):
        looked_at(Client(GOOD, card), epath.Path(tmp_path))
