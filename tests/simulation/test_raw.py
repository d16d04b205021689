import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from mri_jax.cli import main
from mri_jax.errors import UserError
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.simulation.check import check
from mri_jax.simulation.people import scan_named
from mri_jax.simulation.raw import native_grid, oriented, pose
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.store import VolumeStore


@pytest.mark.parametrize("codes", ["PSR", "PIR", "RAS", "LPS"])
def test_another_orientation_keeps_every_point_in_place(codes, rng):
    volume = rng.standard_normal((5, 7, 6))
    affine = np.diag([1.2, 0.9, 1.1, 1.0])
    affine[:3, 3] = (-3, 4, -5)
    turned, moved = oriented(volume, affine, codes)
    assert "".join(nib.aff2axcodes(moved)) == codes
    for index in ((0, 0, 0), (4, 2, 5), (1, 6, 3)):
        point = affine @ [*index, 1]
        there = np.rint(np.linalg.inv(moved) @ point)[:3].astype(int)
        assert turned[tuple(there)] == volume[index]


def test_the_head_is_as_large_as_its_person():
    settings = SimulationSettings("demo", 0, (CohortRequest("ADNI3", {"CN": 1}),), raw=True)
    scan = scan_named(settings, "ADNI3", "CN", 0)
    to_template = pose(scan)
    assert np.linalg.det(to_template[:3, :3]) == pytest.approx(
        1957 / scan.intracranial_ml, rel=0.005
    )
    shape, affine = native_grid(scan.site)
    centre = affine @ [*((np.array(shape) - 1) / 2), 1]
    assert np.allclose(centre[:3], 0)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    settings = SimulationSettings(
        "demo", 1, tuple(CohortRequest(name, {"AD": 1}) for name in ("ADNI1", "AIBL")), raw=True
    )
    return simulate(settings, tmp_path_factory.mktemp("raw") / "out", progress=False)


@pytest.mark.slow
def test_preprocessing_finds_the_true_masks(heads, tmp_path):
    folder = heads.table_path.parent
    command = ["preprocess", "--input", str(heads.table_path), "--out", str(tmp_path / "store")]
    assert main([*command, "--grid", "dev", "--workers", "1"]) == 0
    store = VolumeStore(tmp_path / "store")
    for row in pd.read_csv(heads.table_path).itertuples():
        name = row.image.replace("rawdata/", "truth/masks/").replace("T1w", "mask")
        truth = nib.load(folder / name)
        head = nib.load(folder / row.image)
        assert truth.shape == head.shape
        assert np.allclose(truth.affine, head.affine)
        to_scan = np.eye(4)
        text = store.index.loc[(row.subject_id, row.session_id), "to_scan"]
        to_scan[:3] = np.array(text.split(), float).reshape(3, 4)
        voxels = np.linalg.inv(truth.affine) @ to_scan @ store.info.grid.affine
        wanted = ndimage.affine_transform(
            np.asarray(truth.dataobj, np.float32), voxels, output_shape=store.info.grid.shape,
            order=1,
        ) > 0.5  # fmt: skip
        found = store.mask(row.subject_id, row.session_id)
        assert 2 * (wanted & found).sum() / (wanted.sum() + found.sum()) > 0.965


@pytest.mark.slow
def test_maps_of_truth_beside_raw_heads_are_in_template_space(heads):
    folder = heads.table_path.parent / "truth"
    labels = nib.load(folder / "labels.nii.gz")
    assert labels.shape == (181, 217, 181)
    assert np.array_equal(labels.affine, GRIDS["paper"].affine)
    hippocampus = np.asarray(labels.dataobj) == 1
    assert 6_000 < hippocampus.sum() < 11_000
    x, y, z = (labels.affine @ [*np.argwhere(hippocampus).mean(0), 1])[:3]
    assert abs(x) < 1
    assert -25 < y < -15
    assert -16 < z < -8


@pytest.mark.slow
def test_raw_heads_are_a_bids_tree_whose_scanners_differ(heads):
    folder = heads.table_path.parent
    table = pd.read_csv(heads.table_path)
    codes, sizes = [], []
    for row in table.itertuples():
        path = folder / row.image
        image = nib.load(path)
        codes.append("".join(nib.aff2axcodes(image.affine)))
        sizes.append(tuple(round(float(z), 2) for z in image.header.get_zooms()))
        sidecar = json.loads(path.with_suffix("").with_suffix(".json").read_text(encoding="utf-8"))
        assert sidecar["MagneticFieldStrength"] == row.field_strength
        values = np.asarray(image.dataobj)
        assert values.dtype == np.int16
        # Air at the edge is dark, the skull's fat is as bright as white matter.
        assert values[:3].mean() < 0.2 * np.percentile(values, 95)
        tree = folder / "rawdata" / row.cohort
        people = pd.read_csv(tree / "participants.tsv", sep="\t")
        assert list(people["participant_id"]) == [f"sub-{row.subject_id}"]
        assert "SIMULATED" in (tree / "dataset_description.json").read_text(encoding="utf-8")
    assert codes == ["PSR", "LPS"]
    assert sizes == [(0.94, 0.94, 1.2), (1.0, 1.0, 1.2)]
    with pytest.raises(UserError, match="holds raw heads"):
        check(folder)
