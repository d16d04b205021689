import errno

import jax
import numpy as np
import pytest

import mri_jax
from mri_jax.errors import UserError
from mri_jax.models import CNN
from mri_jax.training.checkpoints import TrainingCheckpoints, network_path, save_network
from mri_jax.training.loop import begin
from mri_jax.training.state import random_key
from mri_jax.training.step import init_variables
from tests.training.small import SHAPE, SPEC, job, settings


def test_a_network_comes_back_exactly_with_its_spec(tmp_path, rng):
    variables = init_variables(SPEC, SHAPE, random_key(3, "init"))
    save_network(network_path(tmp_path), variables, SPEC, {"best_epoch": 4})
    network = mri_jax.load_params(tmp_path)
    assert network.spec == SPEC
    assert network.info == {"best_epoch": 4}
    jax.tree.map(np.testing.assert_array_equal, network.variables, jax.device_get(variables))
    x = rng.normal(size=(2, *SHAPE, 1)).astype(np.float32)
    given = CNN(SPEC).apply(variables, x, train=False)
    np.testing.assert_array_equal(CNN(SPEC).apply(network.variables, x, train=False), given)


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no checkpoint"):
        mri_jax.load_params(tmp_path)


def test_the_last_two_states_are_kept_and_the_newest_comes_back(tmp_path):
    first = begin(settings(), job(0))
    with TrainingCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.load_last(first) is None
        for position in range(4):
            checkpoints.save(first._replace(position=np.asarray(position, np.int32)))
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()  # what a killed save leaves
    with TrainingCheckpoints(tmp_path) as checkpoints:
        found = checkpoints.load_last(first)
    assert int(found.position) == 3
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["2", "3"]
    jax.tree.map(np.testing.assert_array_equal, found.state, first.state)
    assert found.history.dtype == np.float64


def test_states_of_another_training_are_refused(tmp_path):
    first = begin(settings(), job(0))
    with TrainingCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(first)
        with pytest.raises(UserError, match="do not fit"):
            checkpoints.load_last({"other": np.zeros(2)})


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), ValueError("RESOURCE_EXHAUSTED: Error")],
)
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("mri_jax.training.checkpoints.ocp.save", fail)
    with pytest.raises(UserError, match=r"network: the disk is full$"):
        save_network(network_path(tmp_path), {}, SPEC, {})
    with TrainingCheckpoints(tmp_path / "training") as checkpoints:
        monkeypatch.setattr(type(checkpoints._checkpointer), "save", fail)
        with pytest.raises(UserError, match=r"training: the disk is full$"):
            checkpoints.save({"a": np.zeros(2)})
