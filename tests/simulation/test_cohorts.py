import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from etils import epath
from filelock import FileLock

from mri_jax import files
from mri_jax.cli import main
from mri_jax.cohort.table import read_table
from mri_jax.errors import UserError
from mri_jax.simulation import SimulationSettings, simulate
from mri_jax.simulation.regions import REGIONS
from mri_jax.simulation.sheets import write_sheets
from mri_jax.simulation.truth import COLUMNS
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.store import VolumeStore

ROOT = Path(__file__).resolve().parents[2]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_store_and_table_agree_and_say_simulated(made):
    table, store = read_table(made.table_path), VolumeStore(made.store_path)
    assert store.info.simulated
    assert store.info.dtype == "float16"
    assert len(table) == 17
    assert set(zip(table.subject_id, table.session_id, strict=True)) == set(store.index.index)
    for subject, session in list(store.index.index)[:4]:
        volume, mask = store.volume(subject, session), store.mask(subject, session)
        assert volume.dtype == np.float16
        assert (volume[~mask] == 0).all()
        assert 1_500 < mask.sum() * 4**3 / 1000 < 2_300


def test_a_person_in_two_cohorts_is_marked_in_both(made):
    table = read_table(made.table_path)
    shared = table[table["shared_with"].fillna("") != ""]
    assert list(shared["subject_id"]) == ["SIMADNI1AD0007"] * 2
    assert list(shared["cohort"]) == ["ADNI1", "ADNI2"]
    assert list(shared["shared_with"]) == ["ADNI2", "ADNI1"]
    assert list(shared["session_id"]) == ["m000", "m048"]


def test_the_truth_is_complete_and_close_to_what_the_study_is_told(made):
    truth, table = pd.read_csv(made.truth_path), read_table(made.table_path)
    assert tuple(truth.columns) == COLUMNS
    assert not truth.drop(columns=[]).isna().any().any()
    assert (truth["minimum_jacobian"] > 0).all()
    error = np.log(table["intracranial_ml"] / truth["intracranial_ml"])
    assert 0.003 < error.std() < 0.04
    assert set(table["field_strength"]) == {1.5, 3.0}
    native = truth["hippocampus_ml"] * truth["intracranial_ml"] / 1957
    assert np.abs(np.log(table["hippocampus_ml"] / native)).max() < 0.2


def test_the_maps_show_where_disease_acts_on_the_grid_of_the_store(made):
    folder = made.truth_path.parent / "truth"
    labels = nib.load(folder / "labels.nii.gz")
    assert np.array_equal(labels.affine, GRIDS["demo"].affine)
    assert labels.header["descrip"].item() == b"SIMULATED"
    table = pd.read_csv(folder / "labels.csv")
    assert list(table["region"]) == list(REGIONS)
    values = np.asarray(labels.dataobj)
    for label, region in zip(table["label"], table["region"], strict=True):
        effect = np.asarray(nib.load(folder / f"effect_{region}.nii.gz").dataobj)
        assert (values == label).sum() >= 20
        assert effect[values == label].min() > 0.1
    union = np.asarray(nib.load(folder / "effect_union.nii.gz").dataobj)
    assert ((union > 0.5) == (values > 0)).all()


def test_a_finished_folder_is_returned_at_once_and_other_settings_are_refused(few, made):
    before = made.table_path.stat().mtime
    assert simulate(few, made.table_path.parent, progress=False) == made
    assert made.table_path.stat().mtime == before
    other = SimulationSettings("demo", 4, few.cohorts)
    with pytest.raises(UserError, match="seed is 3, not 4"):
        simulate(other, made.table_path.parent, progress=False)


def test_an_interrupted_run_goes_on_to_the_same_bytes_with_one_worker(few, made, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(made.table_path.parent, out)
    table = pd.read_csv(out / "cohort.csv")
    wanted = contents(out)
    # What a run leaves that was killed after the first scans: no tables, some scans, one torn file.
    for name in ("cohort.csv", "truth.csv", "store/index.csv"):
        (out / name).unlink()
    torn = out / "store" / "volumes" / "ADNI1" / ".x.npy.0123abcd.tmp"
    torn.write_bytes(b"half")
    os.utime(torn, (1, 1))
    for subject in table["subject_id"].iloc[1:4]:
        (out / "store" / "volumes" / "ADNI1" / f"{subject}_m000.npy").unlink()
    simulate(few, out, progress=False, workers=1)
    assert contents(out) == wanted


@pytest.mark.slow
def test_a_killed_run_leaves_only_whole_files_and_is_resumed(made, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "mri_jax", "simulate", "--out", str(out), "--seed", "3"]
    command += ["--cohort", "ADNI1:AD=8,CN=1", "--cohort", "ADNI2:AD=8"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while len(list(out.glob("parts/*/*.json"))) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = list(out.glob("parts/*/*.json"))
    assert 3 <= len(kept) < 17
    assert not (out / "cohort.csv").exists()
    for path in out.glob("store/volumes/*/*.npy"):
        assert np.load(path).shape == (48, 56, 48)
    times = {path: path.stat().st_mtime_ns for path in out.glob("store/volumes/*/*.npy")}
    finished = {path for path in times if any(part.stem == path.stem for part in kept)}
    assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert all(path.stat().st_mtime_ns == times[path] for path in finished)
    assert contents(out) == contents(made.table_path.parent)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--cohort", "ADNI9:AD=1"], "cohort: 'ADNI9' is unknown"),
        (["--cohort", "ADNI1:AD=-3"], "AD=-3 must be a whole number"),
        (["--cohort", "ADNI1:AD=1", "--paper-counts"], "cannot be combined"),
        (["--without", "hats"], "--without: 'hats' is unknown"),
        (["--without", "age", "--shift", "none"], "--shift: cannot be combined with --without"),
        (["--strength", "0"], "strength: 0.0 must be above 0, at most 10"),
        (["--raw", "--grid", "dev"], "--grid dev: raw heads"),
        (["--workers", "0"], "--workers: 0 must be at least 1"),
        (["--classes", "AD,XX"], "class 'XX' is unknown"),
        (["--cohort", "ADNI1:AD=1", "--classes", "AD"], "cannot be combined with --classes"),
        (["--grid", "huge"], "grid: 'huge' is unknown"),
        (["--effect", "nan"], "effect: nan must be from 0"),
        (["--check", "x"], "give one of them"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(arguments, rule, tmp_path, capsys):
    assert main(["simulate", "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert rule in said
    assert said.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--seed", "0"], ["--grid", "demo"], ["--paper-counts"]])
@pytest.mark.parametrize("job", ["--check", "--sheets"])
def test_options_that_say_what_to_make_do_not_go_with_a_finished_folder(option, job, made, capsys):
    assert main(["simulate", job, str(made.table_path.parent), *option]) == 2
    assert capsys.readouterr().err == (
        f"error: {option[0]}: says what to make and goes with --out only\n"
    )


def test_a_path_under_a_file_and_a_foreign_folder_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert main(["simulate", "--out", str(tmp_path / "file")]) == 2
    assert main(["simulate", "--out", str(tmp_path / "file" / "below")]) == 2
    assert main(["simulate", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 3
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_disk_too_small_is_said_before_anything_is_written(few, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    said = r"17 scans need 0\.00658 GB and the disk has 1e-06 GB free"
    with pytest.raises(UserError, match=said):
        simulate(few, tmp_path / "out", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_in_mid_run_is_one_line_and_the_run_goes_on_later(
    made, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    write, room = epath.Path.write_bytes, [7]

    def write_until_full(path, data):
        if ".npy." in path.name:
            room[0] -= 1
        if room[0] < 0:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    command = ["simulate", "--out", str(out), "--seed", "3", "--workers", "2"]
    command += ["--cohort", "ADNI1:AD=8,CN=1", "--cohort", "ADNI2:AD=8"]
    with monkeypatch.context() as patch:
        patch.setattr(type(epath.Path(out)), "write_bytes", write_until_full)
        assert main(command) == 2
    assert re.fullmatch(r"(simulate: .*\n)?error: .*: the disk is full\n", capsys.readouterr().err)
    kept = list(out.glob("parts/*/*.json"))
    assert 1 <= len(kept) <= 3
    assert not list(out.rglob("*.tmp"))
    assert not (out / "cohort.csv").exists()
    assert main(command) == 0
    assert contents(out) == contents(made.table_path.parent)


def test_a_folder_that_another_process_is_writing_is_refused(few, tmp_path):
    out = tmp_path / "out"
    files.write_json(out / "simulation.json", {"settings": few.to_json()})
    (out / "parts").mkdir()
    with FileLock(out / "parts" / ".lock"), pytest.raises(UserError, match="another process is"):
        simulate(few, out, progress=False)
    assert not (out / "store").exists()


def test_contact_sheets_are_drawn_for_every_site_and_class(made, tmp_path):
    out = tmp_path / "drawn"
    shutil.copytree(made.table_path.parent, out)
    names = {path.name for path in write_sheets(out)}
    assert names == {"ADNI1_AD.png", "ADNI1_CN.png", "ADNI2_AD.png", "ADNI1_AD_minus_CN.png"}
    assert all((out / "sheets" / name).stat().st_size > 20_000 for name in names)
