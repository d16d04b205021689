import numpy as np
import pandas as pd
import pytest

from mri_jax.errors import UserError
from mri_jax.volumes import described, descriptors
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import StoreInfo, StoreWriter, VolumeStore
from tests.leak_attempts import IMAGES, head, turned


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    both = np.stack([other, descriptors.mirrored(other)]).astype(float)
    a = one.astype(float)
    return float((both @ a).max() / np.linalg.norm(a) / np.linalg.norm(other.astype(float)))


@pytest.fixture(scope="module")
def mean():
    """Of forty other people and their mirror images, as a study takes it off."""
    all_ = np.stack([descriptors.describe(*head(100 + i)) for i in range(40)]).astype(float)
    return (all_ + descriptors.mirrored(all_)).sum(axis=0) / 2 / 50


@pytest.mark.parametrize("change", IMAGES)
def test_a_copy_is_recognised_whatever_was_done_to_it(change, mean):
    own = descriptors.describe(*head(1)) - mean
    for seed in range(2, 8):
        assert likeness(own, descriptors.describe(*head(seed)) - mean) < 0.35
    assert likeness(own, descriptors.describe(*IMAGES[change](head(1))) - mean) > 0.55


def test_how_far_a_copy_may_be_turned(mean):
    own = descriptors.describe(*head(1)) - mean
    found = [
        likeness(own, descriptors.describe(*turned(head(1), angle)) - mean) for angle in (2, 5, 30)
    ]
    assert found[0] > found[1] > 0.5 > found[2]


def test_the_grid_does_not_matter():
    coarse = descriptors.describe(*head(1, (24, 28, 24)))
    volume, mask = head(1, (24, 28, 24))
    fine = [np.repeat(np.repeat(np.repeat(a, 4, 0), 4, 1), 4, 2) for a in (volume, mask)]
    assert max(fine[0].shape) == 112
    assert likeness(coarse, descriptors.describe(*fine)) > 0.8


def test_a_mirrored_volume_is_its_description_in_another_order():
    volume, mask = head(3)
    own = descriptors.describe(volume, mask)
    other = descriptors.describe(volume[::-1], mask[::-1])
    assert own.shape == (descriptors.cells(),)
    assert own.dtype == np.int8
    assert np.corrcoef(descriptors.mirrored(own).astype(float), other)[0, 1] > 0.99
    np.testing.assert_array_equal(descriptors.mirrored(descriptors.mirrored(own)), own)


def test_the_template_says_nothing_of_its_own():
    from mri_jax.volumes.templates import load_template

    template = load_template()
    values, weights = descriptors._reduced(template.head, template.mask)
    common = descriptors._common()
    np.testing.assert_allclose(common.T @ common, np.eye(3), atol=1e-5)
    own = descriptors._sampled(values * weights, weights)
    assert np.linalg.norm(own - common @ (common.T @ own)) < 1e-3 * np.linalg.norm(own)


@pytest.mark.parametrize(
    "volume",
    [np.zeros((9, 9, 9)), np.full((9, 9, 9), 5.0), np.full((9, 9, 9), np.nan), np.ones((1, 1, 1))],
)
def test_a_volume_without_contrast_has_no_description(volume):
    for mask in (np.ones(volume.shape, bool), np.zeros(volume.shape, bool)):
        assert not descriptors.describe(volume, mask).any()


def test_a_few_broken_voxels_do_not_hide_a_scan():
    volume, mask = head(2)
    broken = volume.copy()
    broken[8:10, 10, 9] = np.inf, np.nan
    assert likeness(descriptors.describe(volume, mask), descriptors.describe(broken, mask)) > 0.9


@pytest.fixture
def store(tmp_path):
    shape = (12, 14, 12)
    grid = Grid("tiny", shape, 8.0, (0.0, 0.0, 0.0))
    info = StoreInfo(grid, "float16", simulated=True, settings={}, provenance={})
    writer = StoreWriter(tmp_path / "store", info)
    rows = [writer.add(f"p{i}", "a", "A", *head(i, shape)) for i in range(3)]
    writer.write_index(pd.DataFrame(rows))
    return VolumeStore(tmp_path / "store")


def test_a_store_keeps_a_description_with_each_volume_and_an_old_one_gets_it_once(store, tmp_path):
    keys = list(store.index.index)
    names = [descriptors.file_name(sha) for sha in store.index["sha256"]]
    written = [np.load(store.path / name) for name in names]
    own = described.of_scans(store, keys)
    np.testing.assert_array_equal(own, written)
    np.testing.assert_array_equal(
        own[1], descriptors.describe(store.volume(*keys[1]), store.mask(*keys[1]))
    )
    (store.path / names[0]).unlink()
    (store.path / names[1]).write_bytes(b"not an array")
    np.save(store.path / names[2], np.zeros(descriptors.cells(), np.int8))
    np.testing.assert_array_equal(described.of_scans(store, keys), own)
    np.testing.assert_array_equal(np.load(store.path / names[1]), own[1])


def test_a_checksum_names_no_other_folder():
    name = descriptors.file_name("../../../x")
    assert name == "descriptions/v1/%2e.%2f..%2f..%2fx.npy"


def test_a_store_that_cannot_be_written_has_them_elsewhere(store, tmp_path, monkeypatch):
    keys = list(store.index.index)
    own = described.of_scans(store, keys)
    for name in map(descriptors.file_name, store.index["sha256"]):
        (store.path / name).unlink()

    write = described.files.write_npy

    def refuse(path, array):
        if str(path).startswith(str(store.path)):
            raise UserError(f"{path}: cannot be written (Read-only file system)")
        write(path, array)

    monkeypatch.setattr(described.files, "write_npy", refuse)
    np.testing.assert_array_equal(described.of_scans(store, keys, tmp_path / "stages"), own)
    assert len(list((tmp_path / "stages").rglob("*.npy"))) == 3
    monkeypatch.setattr(descriptors, "describe", None)
    np.testing.assert_array_equal(described.of_scans(store, keys, tmp_path / "stages"), own)


def test_a_volume_that_cannot_be_read_is_left_to_the_study(store):
    keys = list(store.index.index)
    (store.path / descriptors.file_name(store.index.at[keys[2], "sha256"])).unlink()
    (store.path / store.index.at[keys[2], "volume"]).write_bytes(b"nothing")
    own = described.of_scans(store, keys)
    assert own[:2].any(axis=1).all()
    assert not own[2].any()


def test_a_description_knows_no_scale_up_to_the_end_of_float32():
    rng = np.random.default_rng(4)
    mask = np.zeros((9, 12, 10), bool)
    mask[1:-1, 1:-2, 1:-1] = True
    volume = np.where(mask, rng.normal(10, 1, mask.shape), 0).astype(np.float32)
    found = [descriptors.describe(volume * np.float32(s), mask).astype(int) for s in (1, 2e37)]
    assert np.abs(found[0] - found[1]).max() <= 1
