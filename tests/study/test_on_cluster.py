from dataclasses import replace
from typing import Any

import pytest
from etils import epath

from mri_jax.errors import UserError
from mri_jax.study.on_cluster import OnCluster, looked_at
from mri_jax.study.worker import Facts, software

GOOD = Facts(
    "worker 0", software(), ("cpu", "cpu"), devices=1, states=1, memory=8 << 30, said="computing"
)


class Client:
    """A client whose workers answer with facts."""

    def __init__(self, *facts: Facts):
        self.facts = facts

    def run(self, function: Any, token: str) -> dict[int, Facts]:
        assert epath.Path(token).exists()
        return dict(enumerate(self.facts))


def test_workers_that_fit_together_are_told_and_leave_no_file(tmp_path):
    stages = epath.Path(tmp_path / "stages")
    other = replace(GOOD, worker="worker 1", memory=4 << 30)
    workers = looked_at(Client(GOOD, other), stages)
    assert list(stages.iterdir()) == []
    cluster = OnCluster(workers=workers)
    assert cluster.said == "on 2 workers, each computing"
    assert cluster.memory == 4 << 30
    assert cluster.named == ("cpu:cpu", "cpu:cpu")
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
