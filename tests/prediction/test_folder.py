"""A folder comes back exactly, and one that was altered is refused before it is believed."""

import io
import pickle
import zipfile

import jax
import numpy as np
import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.prediction import folder
from tests.prediction.made import model


@pytest.fixture(scope="module")
def made():
    return model()


@pytest.fixture
def saved(made, tmp_path):
    folder.save(made, tmp_path / "model")
    return tmp_path / "model"


def relist(path):
    """Make the checksums right again, as whoever altered a folder would."""
    listed = files.read_json(path / "checksums.json")
    for name in listed["files"]:
        data = (path / name).read_bytes()
        listed["files"][name] = {"bytes": len(data), "sha256": files.sha256_of_bytes(data)}
    files.write_json(path / "checksums.json", listed)


def rewrite(path, arrays, compressed=False, pickled=None):
    """Replace the arrays of one network; the checksums are made right again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", 8 if compressed else 0) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, version=(1, 0))
        if pickled:
            archive.writestr(f"{pickled}.npy", pickle.dumps(print))
    (path / "networks" / "source-fold1.npz").write_bytes(buffer.getvalue())
    relist(path)


def arrays_of(path):
    with np.load(path / "networks" / "source-fold1.npz", allow_pickle=False) as found:
        return dict(found)


def test_a_model_comes_back_exactly_and_again_to_the_same_bytes(made, saved, tmp_path):
    back = folder.load(saved)
    for ours, theirs in zip(made.ensembles, back.ensembles, strict=True):
        for one, other in zip(ours.networks, theirs.networks, strict=True):
            jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
            for kind in ("penultimate", "layers"):
                mine, yours = one.features[kind], other.features[kind]
                np.testing.assert_array_equal(mine.mean, yours.mean)
                np.testing.assert_array_equal(mine.precision, yours.precision)
                assert mine.typical == yours.typical
        assert ours.points == theirs.points
        assert ours.groups == theirs.groups
        assert ours.temperature == theirs.temperature
        assert ours.distance_limits == theirs.distance_limits
    assert back.spec == made.spec
    assert back.settings == made.settings
    assert back.quality == made.quality
    assert back.quality["correlation"].high == np.inf
    folder.save(back, tmp_path / "again")
    assert (tmp_path / "again" / "checksums.json").read_text(encoding="utf-8") == (
        saved / "checksums.json"
    ).read_text(encoding="utf-8")


def test_the_folder_is_not_written_over_something_else(made, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...", encoding="utf-8")
    with pytest.raises(UserError, match="thesis: exists and is not a model folder"):
        folder.save(made, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_a_newer_format_and_an_altered_file_are_one_line_each(saved):
    array = saved / "networks" / "source-fold1.npz"
    original = array.read_bytes()
    altered = bytearray(original)
    altered[-400] ^= 1
    array.write_bytes(bytes(altered))
    with pytest.raises(UserError, match=r"source-fold1.npz: its checksum is not the one listed"):
        folder.load(saved)
    array.write_bytes(original + b"x")
    with pytest.raises(UserError, match=rf"holds {len(original) + 1} bytes, not the"):
        folder.load(saved)
    array.unlink()
    with pytest.raises(UserError, match=r"source-fold1.npz: is missing"):
        folder.load(saved)
    listed = files.read_json(saved / "checksums.json")
    for other, remedy in (
        (folder.FORMAT + 1, "install a newer one"),
        (1, "export the model again"),
    ):
        files.write_json(saved / "checksums.json", listed | {"format": other})
        message = rf"of format {other}; this version of mri_jax reads {folder.FORMAT}: {remedy}"
        with pytest.raises(UserError, match=message):
            folder.load(saved)


def test_arrays_other_than_the_specs_are_refused_though_the_checksums_agree(saved):
    good = arrays_of(saved)
    name = "params/fc1/kernel"
    cases = {
        r"the spec needs <f4 \(": {**good, name: np.zeros((3, 6), np.float32)},
        r"fc1/kernel is int64": {**good, name: np.zeros(good[name].shape, np.int64)},
        r"not those of the spec \(params/extra/kernel\)": {
            **good,
            "params/extra/kernel": good[name],
        },
        r"fc1/kernel is not finite": {**good, name: np.full_like(good[name], np.nan)},
    }
    for message, arrays in cases.items():
        rewrite(saved, arrays)
        with pytest.raises(UserError, match=message):
            folder.load(saved)
    rewrite(saved, {**good, "bomb": np.zeros(10**7)}, compressed=True)
    with pytest.raises(UserError, match=r"declares 80,\d+,\d+ bytes; at most"):
        folder.load(saved)
    rewrite(saved, {k: v for k, v in good.items() if k != name}, pickled=name)
    with pytest.raises(UserError, match="cannot be read"):
        folder.load(saved)
    rewrite(saved, good)
    folder.load(saved)


def test_a_file_larger_than_the_spec_allows_is_refused_before_it_is_read(saved):
    array = saved / "networks" / "source-fold1.npz"
    with open(array, "r+b") as file:
        file.truncate(1 << 36)  # sparse: 64 GiB that are not there
    listed = files.read_json(saved / "checksums.json")
    listed["files"]["networks/source-fold1.npz"]["bytes"] = 1 << 36
    files.write_json(saved / "checksums.json", listed)
    with pytest.raises(UserError, match=r"holds 68719476736 bytes; the spec allows"):
        folder.load(saved)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spec", {"repetitions": [10**12], "filters": [1]}, "more than 64 conv or FC layers"),
        ("ensembles", [], "there is none"),
        ("spec", {"repetitions": [1], "filters": [40000], "fc": [60000]}, "parameters"),
        ("grid", {"shape": [9, 9]}, "grid.shape"),
        ("ensembles", [{"stage": "../../etc"}], "is not a stage's name"),
        ("ensembles", [{"stage": "source"}], "malformed"),
        ("settings", {"pipeline": 99}, "pipeline 99"),
        ("quality", 3, "malformed"),
    ],
)
def test_a_malformed_description_is_one_line(saved, field, value, message):
    description = files.read_json(saved / "model.json")
    if isinstance(value, dict) and field in ("spec", "grid"):
        value = description[field] | value
        if field == "spec":
            value |= {"dropout": [0.0] * (len(value["fc"]) + 1), "attention_blocks": []}
    files.write_json(saved / "model.json", description | {field: value})
    relist(saved)
    with pytest.raises(UserError, match=message):
        folder.load(saved)


def test_a_model_of_an_earlier_version_is_read_where_its_spec_means_the_same(saved):
    description, now = files.read_json(saved / "model.json"), folder.load(saved)
    for channels, refused in ((1, False), (2, True)):
        spec = description["spec"] | {"in_channels": channels}
        files.write_json(saved / "model.json", description | {"spec": spec})
        relist(saved)
        if refused:
            with pytest.raises(UserError, match=r"spec: in_channels must be 1"):
                folder.load(saved)
        else:
            assert folder.load(saved).spec == now.spec


def test_the_card_states_what_the_model_is_and_names_nobody(saved):
    text = (saved / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "AD against CN (SIMULATED)" in text
    assert "not a medical device, and its output is not a diagnosis" in text
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert ["", "ADNI1", "AD", "20", "70 (60 to 80)", ""] in rows
    assert ["", "ADNI2", "10 + 10", "50.0 [23.7, 76.3]", ""] in rows
    assert "Temperature 1.7, fitted on the held-out source folds (40 scans)." in text
