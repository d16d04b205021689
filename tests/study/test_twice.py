"""The search for scans that stand twice is made once for the same scans."""

import dataclasses

import pandas as pd
import pytest

from mri_jax.cohort import duplicates, near_duplicates
from mri_jax.errors import UserError
from mri_jax.planning.catalogue import Catalogue
from mri_jax.study import twice
from mri_jax.volumes import descriptors
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import StoreInfo, StoreWriter, VolumeStore
from tests.leak_attempts import head

GRID = Grid("tiny", (12, 14, 12), 8.0, (0.0, 0.0, 0.0))


@pytest.fixture
def store(tmp_path):
    """Four people, the last of whom has the first one's head, one voxel apart."""
    info = StoreInfo(GRID, "float16", simulated=True, settings={}, provenance={})
    writer = StoreWriter(tmp_path / "store", info)
    heads = [head(i % 3, GRID.shape) for i in range(4)]
    heads[3][0][5, 5, 5] += 1
    rows = [writer.add(f"p{i}", "a", "A", *each) for i, each in enumerate(heads)]
    writer.write_index(pd.DataFrame(rows))
    return VolumeStore(tmp_path / "store")


@pytest.fixture
def searches(monkeypatch):
    """A list with an item for each search that was made."""
    made, alike = [], near_duplicates.alike
    monkeypatch.setattr(near_duplicates, "alike", lambda *a: made.append(0) or alike(*a))
    return made


def catalogue_of(store):
    frame = store.index.reset_index(drop=True)[["subject_id", "session_id", "cohort"]]
    return Catalogue(frame, GRID, simulated=True, generated=False, flow=pd.DataFrame())


def kept(folder):
    return sorted((folder / "near_identical").glob("*.json"))


def searched(store, tmp_path, people=4, elsewhere=None):
    """Returns what a study notes of its search; the pair is decided about already."""
    pair = {"subject_a": "p0", "session_a": "a", "subject_b": "p3", "session_b": "a"}
    said = {**pair, "correlation": "1", "decision": "keep both", "reason": "twins"}
    pd.DataFrame([said]).to_csv(tmp_path / duplicates.NAME, index=False)
    catalogue = catalogue_of(store)
    catalogue = dataclasses.replace(catalogue, frame=catalogue.frame[:people])
    found = twice.searched(catalogue, store, tmp_path / "cohort.csv", elsewhere).searched
    return found.scans, found.pairs, found.found, found.decided


def test_a_search_is_kept_and_decisions_are_read_anew(store, searches, tmp_path):
    with pytest.raises(UserError, match=r"1 pair of volumes under different ids.*'p0' a ~ 'p3' a "):
        twice.searched(catalogue_of(store), store, tmp_path / "cohort.csv")
    assert (len(searches), len(kept(store.path))) == (1, 1)
    assert searched(store, tmp_path) == (4, 6, 1, 1)
    (tmp_path / duplicates.NAME).unlink()
    with pytest.raises(UserError, match=r"1 pair of volumes under different ids.*'p0' a ~ 'p3' a "):
        twice.searched(catalogue_of(store), store, tmp_path / "cohort.csv")
    assert (len(searches), len(kept(store.path))) == (1, 1)


def test_other_scans_other_ids_and_damage_are_searched_again(store, searches, tmp_path):
    assert searched(store, tmp_path) == (4, 6, 1, 1)
    assert searched(store, tmp_path, people=3) == (3, 3, 0, 0)
    assert (len(searches), len(kept(store.path))) == (2, 2)
    for path in kept(store.path):
        path.write_text(path.read_text("utf-8").replace("0.", "0.1", 1), "utf-8")
    assert searched(store, tmp_path) == (4, 6, 1, 1)
    assert len(searches) == 3
    index = pd.read_csv(store.path / "index.csv", dtype=str, keep_default_na=False)
    index.assign(subject_id=["p0", "p1", "q2", "p3"]).to_csv(store.path / "index.csv", index=False)
    for _ in range(2):
        assert searched(VolumeStore(store.path), tmp_path) == (4, 6, 1, 1)
        assert len(searches) == 4


def test_a_search_without_all_descriptions_is_not_kept(store, searches, tmp_path):
    (store.path / descriptors.file_name(store.index["sha256"].iloc[2])).unlink()
    (store.path / store.index["volume"].iloc[2]).write_bytes(b"no array")
    assert searched(store, tmp_path) == (3, 3, 1, 1)
    assert searched(store, tmp_path) == (3, 3, 1, 1)
    assert (len(searches), kept(store.path)) == (2, [])


def test_a_search_is_kept_elsewhere_where_the_store_cannot_be_written(
    store, searches, tmp_path, monkeypatch
):
    write = twice.sealed.write

    def refuse(path, *rest):
        if str(path).startswith(str(store.path)):
            raise UserError(f"{path}: cannot be written (Read-only file system)")
        write(path, *rest)

    monkeypatch.setattr(twice.sealed, "write", refuse)
    elsewhere = tmp_path / "stages"
    assert searched(store, tmp_path, elsewhere=elsewhere) == (4, 6, 1, 1)
    assert searched(store, tmp_path, elsewhere=elsewhere) == (4, 6, 1, 1)
    assert (len(searches), kept(store.path), len(kept(elsewhere))) == (1, [], 1)
