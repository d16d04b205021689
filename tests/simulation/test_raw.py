import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mri_jax.errors import UserError
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.simulation.check import check
from mri_jax.simulation.people import scan_named
from mri_jax.simulation.raw import native_grid, oriented, pose


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


@pytest.mark.slow
def test_raw_heads_are_a_bids_tree_whose_scanners_differ(tmp_path):
    settings = SimulationSettings(
        "demo", 1, tuple(CohortRequest(name, {"AD": 1}) for name in ("ADNI1", "AIBL")), raw=True
    )
    made = simulate(settings, tmp_path / "out", progress=False)
    table = pd.read_csv(made.table_path)
    codes, sizes = [], []
    for row in table.itertuples():
        path = tmp_path / "out" / row.image
        image = nib.load(path)
        codes.append("".join(nib.aff2axcodes(image.affine)))
        sizes.append(tuple(round(float(z), 2) for z in image.header.get_zooms()))
        sidecar = json.loads(path.with_suffix("").with_suffix(".json").read_text())
        assert sidecar["MagneticFieldStrength"] == row.field_strength
        values = np.asarray(image.dataobj)
        assert values.dtype == np.int16
        # Air at the edge is dark, the skull's fat is as bright as white matter.
        assert values[:3].mean() < 0.2 * np.percentile(values, 95)
        tree = tmp_path / "out" / "rawdata" / row.cohort
        people = pd.read_csv(tree / "participants.tsv", sep="\t")
        assert list(people["participant_id"]) == [f"sub-{row.subject_id}"]
        assert "SIMULATED" in (tree / "dataset_description.json").read_text()
    assert codes == ["PSR", "LPS"]
    assert sizes == [(0.94, 0.94, 1.2), (1.0, 1.0, 1.2)]
    with pytest.raises(UserError, match="holds raw heads"):
        check(tmp_path / "out")
