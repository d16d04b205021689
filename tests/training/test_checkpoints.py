import contextlib
import errno
import gc
import logging
import os
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import mri_jax
from mri_jax import stage_note
from mri_jax.errors import DiskFull, UserError
from mri_jax.keys import random_key
from mri_jax.models.cnn import fresh_variables
from mri_jax.training.checkpoints import TrainingCheckpoints, network_path, save_network
from mri_jax.training.loop import begin
from tests.networks import apply
from tests.training.small import SHAPE, SPEC, job, settings


def test_a_network_comes_back_exactly_with_its_spec(tmp_path, rng):
    variables = fresh_variables(SPEC, SHAPE, random_key(3, "init"))
    save_network(network_path(tmp_path), variables, SPEC, {"best_epoch": 4})
    network = mri_jax.load_params(tmp_path)
    assert network.spec == SPEC
    assert network.info == {"best_epoch": 4}
    jax.tree.map(np.testing.assert_array_equal, network.variables, jax.device_get(variables))
    x = rng.normal(size=(2, *SHAPE, 1)).astype(np.float32)
    given = apply(SPEC, variables, x)
    np.testing.assert_array_equal(apply(SPEC, network.variables, x), given)


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    way = r"mri_jax.runs.results.load\(RUN\).network\('cnn5-w1', 'source', fold=0\)"
    with pytest.raises(UserError, match=rf"holds no checkpoint; .*{way}"):
        mri_jax.load_params(tmp_path)
    with pytest.raises(UserError, match=rf"source-\.\.\.: no such folder; .*{way}"):
        mri_jax.load_params(tmp_path / "source-...")


def saved(folder, positions=range(3)):
    """States that differ in their position alone, and the first state."""
    first = begin(settings(), job(0))
    checkpoints = TrainingCheckpoints(folder)
    for position in positions:
        checkpoints.save(first._replace(position=np.asarray(position, np.int32)))
    return first


def loaded(folder, like):
    """The position of the state that is gone on from, and what was said."""
    lines: list[str] = []
    found = TrainingCheckpoints(folder, lines.append).load_last(like)
    return None if found is None else int(found.position), lines


def test_the_last_two_states_are_kept_and_the_newest_comes_back(tmp_path):
    first = begin(settings(), job(0))
    assert TrainingCheckpoints(tmp_path).load_last(first) is None
    saved(tmp_path, range(4))
    (tmp_path / "9" / "arrays.orbax-checkpoint-tmp").mkdir(parents=True)  # left by a killed save
    lines: list[str] = []
    checkpoints = TrainingCheckpoints(tmp_path, lines.append)
    found = checkpoints.load_last(first)
    assert int(found.position) == 3
    assert lines == []
    jax.tree.map(np.testing.assert_array_equal, found.state, first.state)
    assert found.history.dtype == np.float64
    checkpoints.save(found)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "3"]


def test_a_training_goes_on_only_with_the_forms_that_it_was_begun_with(tmp_path):
    first = begin(settings(), job(0))
    TrainingCheckpoints(tmp_path, forms="xla").save(first)
    lines: list[str] = []
    other = TrainingCheckpoints(tmp_path, lines.append, "reference")
    assert other.load_last(first) is None
    (line,) = lines
    assert "was begun with --forms=xla, and goes on only with these" in line
    assert line.endswith("with --forms=reference this network starts anew")
    other.save(first._replace(position=np.asarray(3, np.int32)))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert int(other.load_last(first).position) == 3
    assert len(lines) == 1


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "flipped": lambda folder: flip(largest(folder)),
    "truncated": truncate,
    "a file gone": lambda folder: largest(folder).unlink(),
    "the note flipped": lambda folder: flip(folder / "state.json"),
    "the note truncated": lambda folder: (folder / "state.json").write_bytes(b'{"format'),
    "the note gone": lambda folder: (folder / "state.json").unlink(),
    "emptied": lambda folder: [p.write_bytes(b"") for p in folder.rglob("*") if p.is_file()],
    "a file in its place": lambda folder: [shutil.rmtree(folder), folder.write_bytes(b"x")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_passed_over_and_the_earlier_one_gone_on_from(tmp_path, damage):
    first = saved(tmp_path)
    DAMAGES[damage](tmp_path / "2")
    position, lines = loaded(tmp_path, first)
    assert position == 1
    # Without its note a state looks as if its save had been killed.
    assert len(lines) == (damage != "the note gone")
    assert all("2" in line and "passed over" in line and "\n" not in line for line in lines)
    DAMAGES[damage](tmp_path / "1")
    position, lines = loaded(tmp_path, first)
    assert position is None
    assert len(lines) == (0 if damage == "the note gone" else 3)


def test_a_state_that_does_not_match_by_name_shape_and_dtype_is_passed_over(tmp_path):
    first = saved(tmp_path)
    other = first._replace(partial=np.zeros(2, np.float32))
    position, lines = loaded(tmp_path, other)
    assert position is None
    assert "its partial is float64 (2,), this training's is float32 (2,)" in lines[0]
    assert "starts anew" in lines[2]
    position, lines = loaded(tmp_path, {"state": first.state, "more": np.zeros(2)})
    assert "its best/batch_stats/bn1/count is int32 (), this training's is absent" in lines[0]


def test_a_training_of_an_earlier_version_starts_anew(tmp_path):
    first = begin(settings(), job(0))
    leaves = {f"leaf{i:05d}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(first))}
    ocp.save(tmp_path / "0", leaves)
    position, lines = loaded(tmp_path, first)
    assert position is None
    assert [("earlier version" in line, "starts anew" in line) for line in lines] == [
        (True, False),
        (False, True),
    ]


def test_a_file_where_states_should_be_is_no_traceback(tmp_path):
    (tmp_path / "training").write_text("x", encoding="utf-8")
    assert loaded(tmp_path / "training", begin(settings(), job(0))) == (None, [])


@pytest.mark.parametrize("damage", ["flipped", "truncated", "a file gone", "emptied"])
def test_a_damaged_network_of_a_finished_stage_is_refused(tmp_path, damage):
    variables = fresh_variables(SPEC, SHAPE, random_key(3, "init"))
    save_network(network_path(tmp_path), variables, SPEC, {})
    stage_note.write(tmp_path, {"fingerprint": "ab", "kind": "source"})
    mri_jax.load_params(tmp_path)
    DAMAGES[damage](tmp_path / "network")
    for asked in (tmp_path, network_path(tmp_path)):
        with pytest.raises(UserError, match=r"not as it was written|no such file"):
            mri_jax.load_params(asked)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "a file gone", "emptied"])
def test_a_damaged_checkpoint_without_digests_is_one_line(tmp_path, damage):
    variables = fresh_variables(SPEC, SHAPE, random_key(3, "init"))
    save_network(tmp_path / "network", variables, SPEC, {})
    DAMAGES[damage](tmp_path / "network")
    with contextlib.suppress(UserError):  # what Orbax does not need may be damaged
        mri_jax.load_params(tmp_path / "network")


def test_reads_after_the_first_that_found_no_file_print_nothing(tmp_path, monkeypatch, caplog):
    variables = fresh_variables(SPEC, SHAPE, random_key(3, "init"))
    save_network(tmp_path / "network", variables, SPEC, {})
    for path in (tmp_path / "network").rglob("d/*"):
        path.unlink()
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with pytest.raises(UserError, match=r"network: cannot be read"):
        mri_jax.load_params(tmp_path / "network")
    time.sleep(0.2)
    gc.collect()
    # What a read that nobody waited for has asyncio say; whether one does, depends on the load.
    asyncio, error = logging.getLogger("asyncio"), ValueError("NOT_FOUND [tensorstore_spec={}]")
    for kind in ("Task", "Future"):
        asyncio.error(f"{kind} exception was never retrieved", exc_info=error)
    assert printed == []
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    # What others do not wait for is told.
    asyncio.error("Task exception was never retrieved", exc_info=ValueError("of another"))
    assert [record.name for record in caplog.records].count("asyncio") == 1


@pytest.mark.skipif(os.name != "posix", reason="sizes of files are limited on POSIX alone")
def test_writes_after_the_first_that_found_no_room_print_nothing(tmp_path, monkeypatch):
    import resource

    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    arrays = {str(i): np.random.default_rng(i).random((300, 100)) for i in range(20)}
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"training: the disk is full$"):
            TrainingCheckpoints(tmp_path / "training").save(arrays)
        time.sleep(0.2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert printed == []


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
    with pytest.raises(UserError, match=r"training: the disk is full$"):
        TrainingCheckpoints(tmp_path / "training").save({"a": np.zeros(2)})
