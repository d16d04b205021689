import shutil
from types import SimpleNamespace

import pytest
from etils import epath

from mri_jax.errors import UserError
from mri_jax.locks import folder_locked
from mri_jax.prediction.predict import PAGE_BYTES, Options, predict

NO_MODEL = SimpleNamespace(ensembles=())
TEN_SCANS = range(10)


def test_a_folder_is_written_by_one_process_and_free_again_afterwards(tmp_path):
    folder = epath.Path(tmp_path / "new")
    with (
        folder_locked(folder, "work directory"),
        pytest.raises(UserError, match="new: the work directory is in use by another"),
        folder_locked(folder, "work directory"),
    ):
        pass
    with folder_locked(folder, "work directory"):
        pass


def test_predictions_into_a_folder_in_use_are_refused_before_any_is_made(tmp_path):
    with (
        folder_locked(epath.Path(tmp_path), "folder of predictions"),
        pytest.raises(UserError, match="the folder of predictions is in use"),
    ):
        predict(NO_MODEL, TEN_SCANS, tmp_path, Options("argmax", pages=False))


def test_predictions_look_for_room_before_they_compute(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=5 * PAGE_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="5 MB are free, results of 10 scans need about 10 MB"):
        predict(NO_MODEL, TEN_SCANS, tmp_path, Options("argmax", pages=True))
    with pytest.raises(AttributeError):  # enough for a table: predicting begins
        predict(NO_MODEL, TEN_SCANS, tmp_path, Options("argmax", pages=False))


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with (
        pytest.raises(UserError, match="file: is a file; the work directory must be a folder"),
        folder_locked(epath.Path(tmp_path / "file"), "work directory"),
    ):
        pass


def test_refused_work_leaves_neither_a_lock_nor_a_new_folder(tmp_path):
    def refused(folder):
        with pytest.raises(UserError, match="no"), folder_locked(epath.Path(folder), "folder"):
            raise UserError("no")

    refused(tmp_path / "runs" / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty")  # which the user made
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "config.json").touch()
    refused(tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.rglob("[!.]*")) == ["config.json", "empty", "kept"]
    assert not list((tmp_path / "empty").iterdir())
