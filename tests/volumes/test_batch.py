"""Many scans to a store: resume, failures, shards, locks, identical bytes."""

import errno
import gzip
import json
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mri_jax import files
from mri_jax.cli import main
from mri_jax.cluster.address import Cluster, connected
from mri_jax.errors import DiskFull, UserError
from mri_jax.volumes import batch, inputs
from mri_jax.volumes.pipeline import PreprocessSettings, preprocess_scan
from mri_jax.volumes.resampling import Image
from mri_jax.volumes.store import VolumeStore, older

SETTINGS = PreprocessSettings(grid="demo", brain="none", n4=False)
ARGS = ["--grid", "demo", "--brain", "none", "--no-n4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, stripped):
    """A CAPS tree of three stripped heads, registered already (which saves the tests a second
    each), and of three files that are none."""
    import nibabel as nib

    folder = tmp_path_factory.mktemp("scans") / "siteA"
    for i, name in enumerate(("a1", "b2", "c3")):
        made = nib.Nifti1Image((stripped.data + i).astype(np.int16) * (stripped.data > 1), None)
        made.set_sform(stripped.affine, code=1)
        nib.save(made, place_of(folder, name))
    place_of(folder, "empty").touch()
    place_of(folder, "text").write_text("no image", encoding="utf-8")
    made = nib.Nifti1Image(np.zeros((40, 41, 42), np.int16), None)
    made.set_sform(np.diag([4, 4, 4, 1]), code=1)
    nib.save(made, place_of(folder, "zero"))
    return folder


def place_of(folder: Path, name: str) -> Path:
    """Where Clinica's t1-linear puts the scan of a subject."""
    place = folder / f"subjects/sub-{name}/ses-M00/t1_linear"
    place.mkdir(parents=True, exist_ok=True)
    return place / f"sub-{name}_ses-M00_space-MNI152NLin2009cSym_res-1x1x1_T1w.nii.gz"


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """A store made by the command, and its exit code."""
    store = tmp_path_factory.mktemp("out") / "store"
    return store, main(["preprocess", "--input", str(folder), "--out", str(store), *ARGS])


def contents(store: Path) -> dict[str, bytes]:
    skipped = {".locks"}
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).parts[0] not in skipped
    }


def test_one_bad_scan_never_stops_the_rest(done):
    store, code = done
    assert code == 1
    opened = VolumeStore(store)
    assert opened.index["subject_id"].tolist() == ["sub-a1", "sub-b2", "sub-c3"]
    assert opened.volume("sub-b2", "ses-M00").dtype == np.float16
    assert opened.volume("sub-b2", "ses-M00").shape == (48, 56, 48)
    failed = pd.read_csv(store / "failed.csv").set_index("subject_id")["reason"]
    assert failed.index.tolist() == ["sub-empty", "sub-text", "sub-zero"]
    assert "the file is empty" in failed["sub-empty"]
    assert "every voxel is 0" in failed["sub-zero"]
    assert not [path for path in store.rglob("*") if path.name.endswith(".tmp")]
    assert len(list((store / "masks").rglob("*.npy"))) == 3


def test_the_store_reads_as_it_was_computed(done, folder):
    store, _ = done
    result = preprocess_scan(place_of(folder, "c3"), SETTINGS, in_template_space=True)
    opened = VolumeStore(store)
    np.testing.assert_array_equal(opened.volume("sub-c3", "ses-M00"), result.volume)
    np.testing.assert_array_equal(opened.mask("sub-c3", "ses-M00"), result.mask)
    assert (result.volume[~result.mask] == 0).all()
    assert not opened.info.simulated
    assert np.median(result.volume[result.mask]) == pytest.approx(100, abs=0.1)
    assert opened.index["brain"].unique().tolist() == ["none"]
    assert PreprocessSettings.from_json(opened.info.settings) == SETTINGS


def test_running_again_skips_and_changes_no_byte(done, folder):
    store, _ = done
    before = contents(store)
    summary = batch.run(inputs.find(folder).entries, SETTINGS, store)
    assert (summary.done, summary.skipped, summary.failed) == (0, 3, 3)
    assert contents(store) == before


def test_two_workers_and_shards_give_identical_bytes(done, folder, tmp_path):
    store, _ = done
    whole = contents(store)
    entries = inputs.find(folder).entries
    batch.run(entries, SETTINGS, tmp_path / "processes", workers=2)
    assert contents(tmp_path / "processes") == whole
    for part in ("2/2", "1/2"):
        arguments = ["preprocess", "--input", str(folder), "--out", str(tmp_path / "shards")]
        assert main([*arguments, *ARGS, "--shard", part]) == 1
        if part == "2/2":
            with pytest.raises(UserError, match="shard 1 of 2 has not finished"):
                batch.merge(tmp_path / "shards")
    assert main(["merge", str(tmp_path / "shards")]) == 1
    merged = contents(tmp_path / "shards")
    assert {name: merged[name] for name in whole} == whole


def test_a_changed_scan_is_done_again_and_only_it(folder, stripped, tmp_path, write):
    import shutil

    copy = tmp_path / "siteA"
    for name in ("a1", "b2"):
        shutil.copy(place_of(folder, name), place_of(copy, name))
    batch.run(inputs.find(copy).entries, SETTINGS, tmp_path / "s")
    first = VolumeStore(tmp_path / "s").index["sha256"].tolist()
    write(place_of(copy, "b2"), Image(stripped.data * (1 + stripped.data / 300), stripped.affine))
    summary = batch.run(inputs.find(copy).entries, SETTINGS, tmp_path / "s")
    assert (summary.done, summary.skipped) == (1, 1)
    second = VolumeStore(tmp_path / "s").index["sha256"].tolist()
    assert second[0] == first[0]
    assert second[1] != first[1]


def test_other_settings_are_refused_with_the_fields(done, folder, capsys):
    store, _ = done
    arguments = ["preprocess", "--input", str(folder), "--out", str(store), "--grid", "demo"]
    assert main(arguments) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "settings.brain is 'none', not 'template'" in said
    assert "settings.n4 is False, not True" in said


def test_two_runs_in_one_store_are_refused(done, folder):
    store, _ = done
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with batch.locked(store, None):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    try:
        with pytest.raises(UserError, match="another run is writing"):
            batch.run(inputs.find(folder).entries, SETTINGS, store)
    finally:
        leave.set()
        thread.join()
    with batch.locked(store, (1, 3)), batch.locked(store, (2, 3)):
        with pytest.raises(UserError, match="another run"), batch.locked(store, (2, 3)):
            pass
        with pytest.raises(UserError, match="another run"), batch.locked(store, None):
            pass


def test_a_full_disk_leaves_nothing_partial(folder, tmp_path, monkeypatch):
    entries = [e for e in inputs.find(folder).entries if e.subject_id == "sub-a1"]
    write_npy = files.write_npy

    def full(path, array):
        if "volumes" in str(path):
            with files.replacing(path) as temporary:
                temporary.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
        write_npy(path, array)

    monkeypatch.setattr(files, "write_npy", full)
    with pytest.raises(DiskFull, match=r"\.npy: the disk is full$"):
        batch.run(entries, SETTINGS, tmp_path / "s")
    assert not (tmp_path / "s" / "failed.csv").exists()
    assert not list((tmp_path / "s").rglob("*.npy"))
    assert not list((tmp_path / "s" / "records").rglob("*"))
    monkeypatch.undo()
    assert batch.run(entries, SETTINGS, tmp_path / "s").done == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_dask_gives_identical_bytes(done, folder, tmp_path):
    store, _ = done
    entries = inputs.find(folder).entries
    with connected(Cluster("local", workers=2), print) as client:
        summary = batch.run(entries, SETTINGS, tmp_path / "dask", client=client)
    assert (summary.done, summary.failed) == (3, 3)
    assert contents(tmp_path / "dask") == contents(store)


def test_20000_entries_open_within_a_second(done, tmp_path):
    import time

    store, _ = done
    header, row = (store / "index.csv").read_text(encoding="utf-8").splitlines()[:2]
    assert row.count("sub-a1") == 3
    rows = [row.replace("sub-a1", f"sub-{i:05d}") for i in range(20_000)]
    (tmp_path / "store.json").write_bytes((store / "store.json").read_bytes())
    (tmp_path / "index.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    start = time.process_time()
    opened = VolumeStore(tmp_path)
    assert time.process_time() - start < 1.0
    assert len(opened) == 20_000
    assert opened.index.at[("sub-19999", "ses-M00"), "volume"].endswith("sub-19999_ses-M00.npy")


def test_records_are_json_without_nan(done):
    store, _ = done
    for path in (store / "records").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_simulated_scans_make_a_simulated_store_and_never_mix(folder, tmp_path):
    import nibabel as nib

    copy = tmp_path / "siteA"
    for name, said in (("a1", b"SIMULATED"), ("b2", b"SIMULATED"), ("c3", b"")):
        image = nib.load(place_of(folder, name))
        image.header["descrip"] = said
        nib.save(image, place_of(copy, name))
    place_of(copy, "a0").write_text("no image", encoding="utf-8")
    summary = batch.run(inputs.find(copy).entries, SETTINGS, tmp_path / "s")
    assert (summary.done, summary.failed) == (2, 2)
    assert VolumeStore(tmp_path / "s").info.simulated
    assert ("is not SIMULATED, and the store is of SIMULATED scans", 1) in summary.reasons


def test_reasons_are_said_once_and_an_empty_store_is_not_judged(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "in" / f"{name}.nii").touch()
    (tmp_path / "in" / "d.nii").write_text("no image", encoding="utf-8")
    store = str(tmp_path / "s")
    assert main(["preprocess", "--input", str(tmp_path / "in"), "--out", store, *ARGS]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "  3 failed: the file is empty; copy or download it again"
    assert said[2].startswith("  1 failed: cannot be read")
    assert main(["qc", store]) == 2
    assert "holds no scan; failed.csv" in capsys.readouterr().err
    assert main(["merge", store]) == 2
    assert "no shard" in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1-3", "a/b"])
def test_refuses_a_wrong_shard(folder, tmp_path, shard):
    arguments = ["preprocess", "--input", str(folder), "--out", str(tmp_path / "s")]
    assert main([*arguments, *ARGS, "--shard", shard]) == 2


def test_a_refused_run_leaves_nothing(folder, tmp_path, monkeypatch):
    entries = inputs.find(folder).entries
    monkeypatch.setattr(batch, "StoreWriter", refuse)
    for shard in (None, (1, 2)):
        with pytest.raises(UserError, match="refused"):
            batch.run(entries, SETTINGS, tmp_path / "a" / "s", shard=shard)
    assert not list(tmp_path.iterdir())


def refuse(*_):
    raise UserError("refused")


def test_what_was_declared_mended_and_left_in_the_store_is_said(stripped, tmp_path, capsys):
    """Three scans: one without orientation, one whose background is 7, one with a bad qform."""
    import nibabel as nib

    tree = tmp_path / "in" / "t1_linear"
    tree.mkdir(parents=True)
    data = stripped.data.astype(np.int16) * (stripped.data > 30)
    for name, values, code in (("a", data, 0), ("b", data + np.int16(7), 1), ("c", data, 1)):
        made = nib.Nifti1Image(values, stripped.affine)
        made.set_qform(stripped.affine, code=code)
        made.set_sform(stripped.affine, code=code)
        written = bytearray(made.to_bytes())
        if name == "c":
            written[256:260] = np.float32(2).tobytes()  # quatern_b, which is 1 at most
        (tree / f"{name}_space-MNI152_T1w.nii.gz").write_bytes(gzip.compress(bytes(written)))
    rows = [
        f"{n},t1_linear/{n}_space-MNI152_T1w.nii.gz,{s}" for n, s in zip("abc", "GGH", strict=True)
    ]
    table, store = tmp_path / "in" / "t.csv", tmp_path / "store"
    table.write_text("\n".join(["subject_id,image,scanner", *rows, ""]), encoding="utf-8")
    arguments = ["preprocess", "--input", str(table), "--out", str(store), *ARGS]
    assert main([*arguments, "--orientation", "RAS"]) == 0
    said = capsys.readouterr()
    assert f"{table}: 3 scans of 3 subjects, read as a table" in said.err
    assert "\n  1 done; column reading: orientation RAS as declared\n" in said.out
    assert "\n  1 done; column reading: background set to 0" in said.out
    # What is said of one scan stands in one line.
    qform = "its qform is no rotation; its sform was taken"
    assert f"\n  1 done; column reading: {qform}\n" in said.out
    index = VolumeStore(store).index
    assert index["scanner"].tolist() == ["G", "G", "H"]
    assert index["declared_orientation"].tolist() == ["RAS"] * 3
    assert index["reading"].isna().tolist() == [False, False, False]
    # A background of 7 changes nothing.
    assert index["sha256"].iloc[1] == index["sha256"].iloc[2]
    quality = pd.read_csv(store / "quality.csv")
    assert set(quality["limits_from"]) == {"fixed limits only"}
    _as_an_earlier_version(store)
    assert older(VolumeStore(store).index).all()
    for done in ("1 done, 2 done before", "0 done, 3 done before"):
        assert main([*arguments, "--orientation", "RAS"]) == 0
        assert done in capsys.readouterr().out
        again = VolumeStore(store).index
        assert not older(again).any()
        assert again["sha256"].tolist() == index["sha256"].tolist()
        # What is as it was keeps its row: networks trained on it are found.
        assert again["mask_sha256"].eq("").tolist() == [True, False, True]
    # Another declaration is another input; scans that are no longer asked for are named.
    table.write_text(
        "\n".join(["subject_id,image", rows[0].rpartition(",")[0], ""]), encoding="utf-8"
    )
    assert main([*arguments, "--orientation", "RAS"]) == 0
    said = capsys.readouterr().out
    assert "0 done, 1 done before" in said
    assert "2 further scans lie in the store from earlier runs and are not in this input" in said
    assert "e.g. b ses-1" in said
    assert main([*arguments, "--orientation", "LAS"]) in (0, 1)
    assert "0 done before" in capsys.readouterr().out


def _as_an_earlier_version(store: Path) -> None:
    """Take out of a store what an earlier version did not write."""
    for path in (store / "records").rglob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        for name in ("mask_sha256", "reading"):
            record["row"].pop(name, None)
        path.write_text(json.dumps(record), encoding="utf-8")
    index = pd.read_csv(store / "index.csv").drop(columns=["mask_sha256", "reading"])
    index.to_csv(store / "index.csv", index=False)


def test_a_pipe_in_place_of_a_scan_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a_T1w.nii.gz")
    (entry,) = inputs.find(tmp_path).entries
    outcome = batch.run([entry], SETTINGS, tmp_path / "s")
    assert outcome.failed == 1
    assert "is a pipe" in outcome.reasons[0][0]


def test_a_changed_header_of_a_pair_is_another_input(stripped, tmp_path):
    import nibabel as nib

    made = nib.Nifti1Pair(stripped.data.astype(np.int16), stripped.affine)
    made.set_sform(stripped.affine, code=1)
    nib.save(made, tmp_path / "a.img")
    (entry,) = inputs.find(tmp_path).entries
    first = batch._checksums(entry)
    made.header["descrip"] = b"again"
    nib.save(made, tmp_path / "a.img")
    second = batch._checksums(entry)
    assert first["input_sha256"] == second["input_sha256"]
    assert first["hdr_sha256"] != second["hdr_sha256"]
