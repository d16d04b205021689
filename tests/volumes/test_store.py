"""A store hands out what its index lists, and nothing else."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from mri_jax import files
from mri_jax.cli import main
from mri_jax.errors import UserError
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.store import StoreWriter, VolumeStore
from mri_jax.volumes.stream import Reader
from tests.tiny import GRID, make_cohorts

KEY, OTHER = ("ADNI1-001", "bl"), ("ADNI1-002", "bl")


@pytest.fixture
def store(tmp_path):
    return make_cohorts(tmp_path, subjects=2, cohorts=("ADNI1",))[1]


def volume_of(store, key=KEY, what="volumes"):
    return store / what / key[0].split("-")[0] / f"{key[0]}_{key[1]}.npy"


def listed(store, **changes):
    """Change the index's row of `KEY`."""
    frame = pd.read_csv(store / "index.csv", dtype=str, keep_default_na=False)
    for column, value in changes.items():
        frame.loc[frame["subject_id"] == KEY[0], column] = value
    files.write_csv(store / "index.csv", frame)


def relist(store):
    """Write into the index what now lies there, as who forges a store would."""
    digests = {
        name: files.sha256_of_file(volume_of(store, what=what))
        for name, what in (("sha256", "volumes"), ("mask_sha256", "masks"))
    }
    listed(store, **digests)


def mirrored(path):
    np.save(path, np.load(path)[::-1])


def one_voxel(path):
    array = np.load(path)
    array[3, 3, 3] += 1
    np.save(path, array)


def swapped(path):
    shutil.copy(path.with_name(f"{OTHER[0]}_{OTHER[1]}.npy"), path)


def test_a_store_takes_no_volumes_of_other_settings(store):
    info = VolumeStore(store).info
    other = dataclasses.replace(info, grid=dataclasses.replace(info.grid, name="x", spacing=3.0))
    with pytest.raises(UserError) as error:
        StoreWriter(store, other)
    old = f"{info.grid.spacing:g} mm ({info.grid.name})"
    said = f"is a store of volumes at {old}, not 3 mm (x); give another --out"
    assert str(error.value) == f"{store}: {said}"
    with pytest.raises(
        UserError, match=r"other settings: dtype is '\w+', not 'x'; give another --out"
    ):
        StoreWriter(store, dataclasses.replace(info, dtype="x"))


@pytest.mark.parametrize("what", ["volumes", "masks"])
def test_a_file_larger_than_any_volume_of_the_grid_is_refused_unread(store, monkeypatch, what):
    monkeypatch.setattr(files, "sha256_of_file", None)
    path = volume_of(store, what=what)
    with open(path, "r+b") as file:
        file.truncate(6 << 30)  # a hole: it takes no room on the disk
    read = getattr(VolumeStore(store), what[:-1])
    with pytest.raises(UserError, match="6,442,450,944 bytes; at most") as error:
        read(*KEY)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("what", ["volumes", "masks"])
@pytest.mark.parametrize("change", [mirrored, one_voxel, swapped])
def test_bytes_that_are_not_the_indexs_are_refused_by_name(store, what, change):
    path = volume_of(store, what=what)
    if what == "masks":  # all masks of this store are alike but this one
        array = np.load(path)
        array[2] = False
        np.save(path, array)
        relist(store)
    if (what, change) == ("masks", one_voxel):
        array[3, 3, 3] = ~array[3, 3, 3]
        np.save(path, array)
    else:
        change(path)
    reader = Reader(VolumeStore(store), (OTHER, KEY), Normalisation())
    reader.read(0)
    problems = reader.problems(range(2), threads=2)
    assert len(problems) == 1
    assert f"{path}: is not the {what[:-1]} of subject ADNI1-001, session bl" in problems[0]


def test_cohort_check_refuses_an_altered_volume(store, tmp_path, capsys):
    mirrored(volume_of(store))
    assert main(["cohort", "check", str(tmp_path / "cohort.csv"), "--store", str(store)]) == 2
    assert "ADNI1-001_bl.npy: is not the volume of subject ADNI1-001" in capsys.readouterr().err


def test_a_store_of_an_earlier_version_has_no_digests_of_masks(store):
    frame = pd.read_csv(store / "index.csv", dtype=str, keep_default_na=False)
    files.write_csv(store / "index.csv", frame.drop(columns="mask_sha256"))
    opened = VolumeStore(store)
    assert opened.mask(*KEY).dtype == bool
    assert opened.volume(*KEY).shape == GRID.shape


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda m: m.astype(np.uint8) * 2, "whole numbers 0 and 1"),
        (lambda m: m.astype(np.int64) * -1, "whole numbers 0 and 1"),
        (lambda m: m.astype(np.float32), "whole numbers 0 and 1"),
        (lambda m: m[1:], r"shape \(8, 12, 10\) differs"),
    ],
)
def test_a_mask_that_is_no_mask_is_refused(store, mask, message):
    path = volume_of(store, what="masks")
    np.save(path, mask(np.load(path)))
    relist(store)
    with pytest.raises(UserError, match=message):
        VolumeStore(store).mask(*KEY)


def test_a_mask_of_whole_numbers_is_a_mask_and_no_index(store):
    before = Reader(VolumeStore(store), (KEY,), Normalisation()).read(0)
    path = volume_of(store, what="masks")
    np.save(path, np.load(path).astype(np.int64))
    relist(store)
    after = Reader(VolumeStore(store), (KEY,), Normalisation()).read(0)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (lambda v: v.astype(np.float64), "is float64, the store's volumes are float16"),
        (lambda v: v.astype(np.int16), "is int16"),
        (lambda v: np.where(np.arange(v.size).reshape(v.shape) == 0, np.nan, v), "NaN or infinity"),
        (lambda v: v.T, "shape"),
    ],
)
def test_a_volume_of_another_kind_is_refused(store, volume, message):
    path = volume_of(store)
    changed = volume(np.load(path))
    np.save(path, changed.astype(np.float16) if message == "NaN or infinity" else changed)
    relist(store)
    with pytest.raises(UserError, match=message):
        VolumeStore(store).volume(*KEY)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../other.npy", "volumes/../../x.npy", "~/x.npy", "gs://x/y.npy", ""]
)
@pytest.mark.parametrize("column", ["volume", "mask"])
def test_a_path_out_of_the_store_is_refused(store, column, path):
    listed(store, **{column: path})
    with pytest.raises(UserError, match=r"index.csv: row \d: .* is no path inside the store"):
        VolumeStore(store)


def test_a_link_out_of_the_store_is_refused_and_one_to_the_store_is_not(store, tmp_path):
    path = volume_of(store)
    outside = tmp_path / "outside.npy"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(UserError, match=rf"{path}: leads out of the store, to {outside}"):
        VolumeStore(store).volume(*KEY)
    (tmp_path / "link").symlink_to(store)
    assert VolumeStore(tmp_path / "link").volume(*OTHER).shape == GRID.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "abc"}, "sha256: 'abc' is no SHA-256"),
        ({"subject_id": ""}, "subject_id is empty"),
        ({"subject_id": OTHER[0]}, "a scan occurs twice: ADNI1-002 bl"),
        ({"volume": "volumes/ADNI1/ADNI1-002_bl.npy"}, "a volume occurs twice"),
    ],
)
def test_an_index_that_does_not_say_what_is_what_is_refused(store, changes, message):
    listed(store, **changes)
    with pytest.raises(UserError, match=message):
        VolumeStore(store)


def test_an_index_without_a_column_is_refused(store):
    frame = pd.read_csv(store / "index.csv", dtype=str)
    files.write_csv(store / "index.csv", frame.drop(columns="sha256"))
    with pytest.raises(UserError, match=r"index.csv: column 'sha256' is missing"):
        VolumeStore(store)
