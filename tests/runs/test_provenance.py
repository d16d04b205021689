import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.runs import provenance
from mri_jax.runs.provenance import Preprocessing, Provenance

MADE = Provenance(
    simulated=True,
    mri_jax="0.1.0",
    versions={"jax": "0.10.2", "grain": None},
    devices=("cpu:cpu", "cpu:cpu"),
    forms="native",
    kernels="conv3-0123456789abcdef-01234567.so",
    near_duplicates={"scans": 4, "threshold": 0.99},
    store="/runs/data/store",
    store_from_run="../data/store",
    preprocessing=Preprocessing((4, 5, 6), 2.0, "float16", {"n4": True}, {"brain": {"mask": 3}}),
)


def test_what_was_written_is_read_back(tmp_path):
    provenance.write(tmp_path, MADE)
    assert provenance.read(tmp_path) == MADE
    values = files.read_json(tmp_path / "provenance.json")
    assert values["devices"] == ["cpu:cpu", "cpu:cpu"]
    assert values["git_commit"] is None
    assert values["forms"] == "native"
    assert values["preprocessing"] == {
        "shape": [4, 5, 6], "spacing": 2.0, "dtype": "float16", "settings": {"n4": True},
        "scans": {"brain": {"mask": 3}},
    }  # fmt: skip


def test_fields_of_other_versions_are_left_out_and_absent_ones_are_not_known(tmp_path):
    assert provenance.read(tmp_path) is None
    files.write_json(tmp_path / "provenance.json", {"simulated": False, "later": 1})
    assert provenance.read(tmp_path) == Provenance(simulated=False)


def test_a_store_in_a_bucket_is_not_seen_from_the_run():
    assert "store_from_run" not in Provenance(store="gs://b/s").to_json()
    assert MADE.to_json()["store_from_run"] == "../data/store"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"simulated": "yes"}, r"provenance.json.simulated: must be .*, not 'yes'"),
        ({"devices": "cpu"}, r"provenance.json.devices: must be a list, not 'cpu'"),
        ({"preprocessing": {"shape": [4]}}, r"provenance.json.preprocessing.spacing: is missing"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, values, words):
    files.write_json(tmp_path / "provenance.json", values)
    with pytest.raises(UserError, match=words):
        provenance.read(tmp_path)
