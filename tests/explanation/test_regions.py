import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mri_jax.errors import UserError
from mri_jax.explanation.regions import Regions, nearest, read_regions, simulated_regions
from mri_jax.explanation.statistics import (
    false_discovery,
    region_rows,
    region_summary,
    subject_interval,
)
from mri_jax.volumes.grids import GRIDS, Grid
from mri_jax.volumes.resampling import Image
from tests.explanation.small import GRID, brain


def labels() -> np.ndarray:
    array = np.zeros(GRID.shape, np.int32)
    array[4:8, 4:9, 3:6], array[9:12, 3:6, 5:9] = 2, 7
    return array


def save(path, array, affine=GRID.affine):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def test_sums_of_regions(rng):
    values = rng.normal(size=GRID.shape).astype(np.float32)
    regions = Regions(labels(), {2: "b", 7: "g"}, "")
    found = region_rows(values, regions, brain()).set_index("region")
    for label, name in ((2, "b"), (7, "g")):
        inside = values[labels() == label]
        assert found.loc[name, "signed"] == pytest.approx(inside.sum(), rel=1e-4)
        assert found.loc[name, "absolute"] == pytest.approx(np.abs(inside).sum(), rel=1e-5)
        assert found.loc[name, "voxels"] == len(inside)
        share = np.abs(inside).sum() / np.abs(values).sum()
        assert found.loc[name, "share"] == pytest.approx(share, rel=1e-5)
        density = share / (len(inside) / brain().sum())
        assert found.loc[name, "density"] == pytest.approx(density, rel=1e-5)


def test_names_follow_their_labels_when_labels_are_permuted(rng):
    values = rng.normal(size=GRID.shape).astype(np.float32)
    one = region_rows(values, Regions(labels(), {2: "b", 7: "g"}, ""), brain())
    swapped = np.select([labels() == 2, labels() == 7], [7, 2], 0).astype(np.int32)
    other = region_rows(values, Regions(swapped, {2: "g", 7: "b"}, ""), brain())
    pd.testing.assert_frame_equal(
        one.sort_values("region", ignore_index=True), other.sort_values("region", ignore_index=True)
    )


def test_another_grid_of_the_space_is_resampled_by_nearest_neighbour(tmp_path):
    fine = Grid(
        "fine", tuple(3 * n for n in GRID.shape), 8 / 3, tuple(o - 8 / 3 for o in GRID.origin)
    )
    fine = Grid("fine", fine.shape, fine.spacing, tuple(o + 0.9 for o in fine.origin))
    finer = labels().repeat(3, 0).repeat(3, 1).repeat(3, 2)
    # Stored with X flipped, as many atlases are.
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = fine.shape[0] - 1
    path = save(tmp_path / "atlas.nii.gz", finer[::-1].copy(), fine.affine @ flip)
    found = read_regions(path, None, GRID, brain())
    np.testing.assert_array_equal(found.labels, labels())
    assert found.names == {2: "region 2", 7: "region 7"}


def test_nearest_is_empty_outside_the_image():
    small = Image(np.ones((2, 2, 2), np.int32), GRID.affine)
    found = nearest(small, GRID)
    assert found.sum() == 8
    assert found[:2, :2, :2].all()


@pytest.mark.parametrize(
    "text", ["label,name\n2,Hippocampus_L\n7,Amygdala_R\n",
             "2 Hippocampus_L 4101\n7 Amygdala_R 4202\n",
             "Hippocampus_L\t2\nAmygdala_R\t7\n"],
)  # fmt: skip
def test_names_of_labels(tmp_path, text):
    path = save(tmp_path / "atlas.nii", labels())
    names = tmp_path / "names.txt"
    names.write_text(text, encoding="utf-8")
    found = read_regions(path, names, GRID, brain())
    assert found.names == {2: "Hippocampus_L", 7: "Amygdala_R"}


def test_what_is_no_label_image_of_the_space_is_refused(tmp_path):
    shift = GRID.affine.copy()
    shift[:3, 3] += 400
    turned = np.zeros(GRID.shape, np.int32)
    turned[:, -4:, :] = 3
    fractions = np.where(labels() > 0, 0.5, 0).astype(np.float32)
    (tmp_path / "text.nii").write_text("no image", encoding="utf-8")
    cases = {
        "lie outside the box": save(tmp_path / "far.nii", labels(), shift),
        "lie outside the brain": save(tmp_path / "air.nii", turned),
        "whole numbers": save(tmp_path / "soft.nii", fractions),
        "no label above 0": save(tmp_path / "empty.nii", np.zeros(GRID.shape, np.int16)),
        "no such file": tmp_path / "absent.nii",
        "no NIfTI image": tmp_path / "text.nii",
        "not that of one label image": save(
            tmp_path / "four.nii", np.ones((*GRID.shape, 2), np.int16)
        ),
    }
    for words, path in cases.items():
        with pytest.raises(UserError, match=words) as error:
            read_regions(path, None, GRID, brain())
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)


def test_a_label_without_name_is_told(tmp_path):
    path = save(tmp_path / "atlas.nii", labels())
    names = tmp_path / "names.csv"
    names.write_text("2,Hippocampus\n3,Other\n", encoding="utf-8")
    with pytest.raises(UserError, match="no name for label 7"):
        read_regions(path, names, GRID, brain())


def test_default_regions_lie_in_the_template():
    grid = GRIDS["demo"]
    found = simulated_regions(grid)
    assert found.names[1] == "hippocampus"
    x, y, z = (grid.affine[:3, :3] @ np.argwhere(found.labels == 1).T + grid.affine[:3, 3:]).mean(1)
    assert abs(x) < 3
    assert -35 < y < -10
    assert -25 < z < -5


def table(rng, effect: float) -> pd.DataFrame:
    rows = []
    for subject in range(24):
        for region in ("a", "b"):
            signed = rng.normal() + (effect if region == "a" and subject % 2 else 0)
            density = np.exp(0.1 * rng.normal() + (1.0 if region == "a" else 0.0))
            rows.append(
                {
                    "stage": "source", "method": "m", "region": region, "subject_id": f"s{subject}",
                    "diagnosis": ("CN", "AD")[subject % 2], "signed": signed,
                    "absolute": abs(signed),
                    "share": 0.1, "density": density,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_summary_tells_an_effect_from_none(rng):
    found = region_summary(table(rng, 4.0), ("CN", "AD"), seed=1).set_index("region")
    assert found.loc["a", "q_difference"] < 0.01
    assert found.loc["b", "q_difference"] > 0.05
    assert found.loc["a", "difference_low"] > 2
    assert found.loc["b", "difference_low"] < 0 < found.loc["b", "difference_high"]
    assert found.loc["a", "q_density"] < 0.001
    assert found.loc["b", "q_density"] > 0.01
    assert list(found["n_AD"]) == [12, 12]


def test_a_subject_counts_once_however_many_scans(rng):
    one = table(rng, 1.0)
    twice = pd.concat([one, one[one["subject_id"] == "s1"]])
    found = [region_summary(t, ("CN", "AD"), seed=1) for t in (one, twice)]
    pd.testing.assert_frame_equal(*found)


def test_false_discovery_leaves_unknown_ones_out():
    p = np.array([0.01, np.nan, 0.04, 0.5])
    found = false_discovery(p)
    np.testing.assert_allclose(found[[0, 2, 3]], [0.03, 0.06, 0.5])
    assert np.isnan(found[1])


def test_bootstrap_interval_is_near_student_s(rng):
    values = rng.normal(3.0, 1.0, 40)
    mean, low, high = subject_interval(values, seed=4)
    wanted = stats.t.interval(0.95, 39, values.mean(), values.std(ddof=1) / np.sqrt(40))
    np.testing.assert_allclose((low, high), wanted, atol=0.06)
    assert mean == values.mean()
