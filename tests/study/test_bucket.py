"""Stages on the local bucket: nothing half written is ever taken for finished, nothing is lost."""

import socket
import time
from types import SimpleNamespace

import fsspec.config
import numpy as np
import pytest
from etils import epath
from etils.epath import backend

from mri_jax import files, leases
from mri_jax.errors import UserError
from mri_jax.locks import folder_locked
from mri_jax.models import CNNSpec
from mri_jax.study.stages import StageFolders
from mri_jax.training.checkpoints import (
    TrainingCheckpoints,
    load_params,
    network_path,
    save_network,
)
from tests.bucket import served

STAGE = SimpleNamespace(kind="source", fingerprint="0123456789abcdef" * 4)
NAME = "source-0123456789abcdef"
LOCK = f"stages/locks/{NAME}.lock"
KEYS = [("a", "1"), ("b", "1")]
LOGITS = np.array([[0.1, -0.1], [2.0, 3.0]])
VARIABLES = {
    "params": {"fc": {"kernel": np.arange(6.0, dtype=np.float32).reshape(3, 2)}},
    "batch_stats": {"bn1": {"mean": np.ones(3, np.float32)}},
}


@pytest.fixture(scope="module")
def bucket():
    with served() as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
        # Of the environment as it is now, and of no other test.
        backend.fsspec_backend._get_filesystem.cache_clear()
        yield bucket
        assert bucket.unknown == []
        backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.fixture(autouse=True)
def empty(bucket):
    bucket.blobs.clear()
    bucket.writes.clear()
    bucket.after_write = lambda name: None


@pytest.fixture
def folders():
    return StageFolders("gs://bucket/stages", say=lambda line: None)


def build(folders):
    """A network and its logits, written as studies write them."""
    with folders.locked([STAGE], wait=True):
        folder = folders.folder(STAGE)
        save_network(network_path(folder), VARIABLES, CNNSpec(), {"n": 1})
        files.write_json(folder / "history.json", [{"epoch": 1}])
        folders.write_logits(STAGE, KEYS, LOGITS)
        folders.finish(STAGE, {"seconds": 1.0})


def test_at_no_moment_is_a_stage_finished_that_is_not_whole(bucket, folders):
    moments = []
    bucket.after_write = lambda name: moments.append(dict(bucket.blobs))
    build(folders)
    bucket.after_write = lambda name: None
    mine = [name for name in bucket.writes if name.startswith(f"stages/{NAME}/")]
    assert len(mine) > 10
    assert mine[-1] == f"stages/{NAME}/stage.json"
    finished = []
    for moment in moments:
        bucket.blobs = dict(moment)
        finished.append(StageFolders(folders.root, say=lambda line: None).finished(STAGE))
        if finished[-1]:
            assert load_params(folders.folder(STAGE)).info["n"] == 1
            np.testing.assert_array_equal(folders.logits(STAGE), LOGITS)
    assert finished == [False] * (len(moments) - 2) + [True] * 2  # the last one releases the lock


@pytest.mark.parametrize("name", ["stage.json", "logits.csv", "network/state/manifest.ocdbt"])
def test_an_object_that_was_cut_is_noticed_and_its_stage_set_aside_and_built_again(
    bucket, folders, name
):
    build(folders)
    path = f"stages/{NAME}/{name}"
    data = bucket.blobs[path].data
    bucket.put(path, data[: len(data) // 2], {})
    said = []
    again = StageFolders(folders.root, say=said.append)
    assert not again.finished(STAGE)
    assert name in said[0]
    build(again)
    assert bucket.blobs[f"stages/damaged/{NAME}-1/{name}"].data == data[: len(data) // 2]
    assert bucket.names(f"stages/damaged/{NAME}-1/network/.*")
    assert StageFolders(folders.root).finished(STAGE)
    np.testing.assert_array_equal(folders.logits(STAGE), LOGITS)


def test_an_upload_that_breaks_off_leaves_nothing(bucket):
    host, port = bucket.address.removeprefix("http://").split(":")
    path = "/upload/storage/v1/b/bucket/o?uploadType=media&name=stages/x/stage.json"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""  # the bucket has seen the end of it
    path, part = "gs://bucket/stages/y", 2**18
    with files.bucket_of(path).open(path, "wb", block_size=part) as file:
        file.write(b"y" * 2 * part)
        assert file.offset == 2 * part  # was sent
        assert bucket.names("stages/.*") == []
    assert bucket.names("stages/.*") == ["stages/y"]


def test_who_has_lost_a_stage_writes_none_of_it(bucket, folders):
    checkpoints = TrainingCheckpoints(
        folders.folder(STAGE) / "training", require=lambda: folders.require(STAGE)
    )
    with folders.locked([STAGE], wait=True) as held:
        assert held == [STAGE]
        checkpoints.save({"a": np.arange(3)})
        bucket.put(f"{LOCK}/000002", b'{"host": "other", "process": 7, "released": false}', {})
        before = dict(bucket.blobs)
        for write in (
            lambda: folders.finish(STAGE, {}),
            lambda: folders.write_logits(STAGE, KEYS, LOGITS),
            lambda: checkpoints.save({"a": np.arange(3)}),
        ):
            with pytest.raises(UserError, match=rf"{NAME}.lock: process 7 on other holds it"):
                write()
        assert bucket.blobs == before
    with folders.locked([STAGE], wait=False) as held:
        assert held == []


def test_what_another_process_has_finished_is_seen_though_the_folder_was_listed_before(
    bucket, folders
):
    build(folders)
    note = bucket.blobs.pop(f"stages/{NAME}/stage.json")
    other = StageFolders(folders.root)
    with other.locked([STAGE], wait=True):
        assert len(list(other.folder(STAGE).iterdir())) == 3
        assert not other.finished(STAGE)
    bucket.put(f"stages/{NAME}/stage.json", note.data, {})
    assert other.finished(STAGE)


def test_states_of_a_training_are_kept_and_found(bucket):
    folder = "gs://bucket/stages/x/training"
    checkpoints = TrainingCheckpoints(folder)
    for value in range(3):
        checkpoints.save({"a": np.arange(4.0) + value})
    assert {name.split("/")[3] for name in bucket.names("stages/.*")} == {"1", "2"}
    bucket.blobs.pop("stages/x/training/2/state.json")  # a save that was killed
    found = TrainingCheckpoints(folder).load_last({"a": np.zeros(4)})
    np.testing.assert_array_equal(found["a"], np.arange(4.0) + 1)


def test_a_work_directory_in_use_is_refused_and_that_of_a_dead_process_is_not(bucket, monkeypatch):
    workdir, said = epath.Path("gs://bucket/runs/one"), []
    monkeypatch.setattr(leases, "LEASE", 2.0)
    with (
        folder_locked(workdir, "work directory", said.append),
        pytest.raises(UserError, match="one: the work directory is in use by another process"),
        folder_locked(workdir, "work directory", said.append),
    ):
        pass
    bucket.put("runs/one/.lock/000002", b"{}", {})
    begun = time.monotonic()
    with folder_locked(workdir, "work directory", said.append) as lock:
        lock.require()
        assert time.monotonic() - begun >= 2.0
    assert len(said) == 2
    assert bucket.names("runs/.*") == ["runs/one/.lock/000003"]
