"""A download as DICOM series, converted by dcm2niix itself."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from cohort.generated_aibl import write_aibl
from mri_jax.cli import main
from mri_jax.cohort.table import read_table

pytestmark = pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs dcm2niix")

SHAPE = (22, 26, 24)
SPACING = (4.0, 4.5, 5.0)


def write_series(folder: Path, voxels: np.ndarray) -> None:
    """An axial MR series, one file a slice; voxels (X, Y, Z) run along LPS."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    study = f"1.2.826.0.1.3680043.2.1125.{int(voxels[0, 0, 0]) + 1}"
    for z in range(voxels.shape[2]):
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[:, :, z].T)[None])
        image.SetSpacing(SPACING)
        tags = {
            "0008|0060": "MR", "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{study}.3.{z + 1}", "0020|000d": f"{study}.1", "0020|000e": f"{study}.2",
            "0020|0010": "1", "0020|0011": "2", "0020|0013": str(z + 1), "0008|103e": "MPRAGE",
            "0020|0032": rf"0\0\{z * SPACING[2]}", "0020|0037": r"1\0\0\0\1\0",
            "0018|0050": str(SPACING[2]),
            "0008|0020": "20080301", "0008|0030": "101500", "0010|0020": "made-up",
        }  # fmt: skip
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z + 1:04d}.dcm"))
        writer.Execute(image)


@pytest.fixture
def download(tmp_path, rng):
    """The generated AIBL download, as series instead of NIfTI: its folder, voxels by image."""
    made = tmp_path / "aibl"
    write_aibl(made, 12, seed=4)
    volumes = {}
    for path in sorted((made / "images").rglob("*.nii")):
        folder, image_id = path.parent, path.parent.name.removeprefix("I")
        path.unlink()
        volumes[image_id] = rng.integers(0, 900, SHAPE).astype(np.int16)
        write_series(folder, volumes[image_id])
    return made, volumes


def test_series_become_the_images_of_the_table(download, tmp_path):
    made, volumes = download
    out = tmp_path / "cohort.csv"
    arguments = ["cohort", "aibl", "--tables", str(made / "tables")]
    assert main([*arguments, "--images", str(made / "images"), "--out", str(out)]) == 0
    table = read_table(out).astype({"image_id": str})
    truth = pd.read_csv(made / "truth.csv", dtype=str, keep_default_na=False)
    wanted = truth.loc[truth["label"] != "", "image_id"]
    assert sorted(table["image_id"]) == sorted(wanted)
    for row in table.itertuples():
        image = nib.load(tmp_path / row.image)
        np.testing.assert_allclose(image.header.get_zooms(), SPACING, rtol=1e-4)
        there = nib.as_closest_canonical(image).get_fdata()
        np.testing.assert_array_equal(there, volumes[row.image_id][::-1, ::-1])
    assert main(["cohort", "check", str(out)]) == 0
    # Run again, nothing is converted anew.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "nifti").iterdir()}
    assert main([*arguments, "--images", str(made / "images"), "--out", str(out)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "nifti").iterdir()}


def test_a_damaged_series_is_an_exclusion_with_the_reason(download, tmp_path):
    made, _ = download
    truth = pd.read_csv(made / "truth.csv", dtype=str, keep_default_na=False)
    spoilt = truth.loc[truth["label"] != "", "image_id"].iloc[0]
    for path in next((made / "images").rglob(f"I{spoilt}")).iterdir():
        path.write_bytes(path.read_bytes()[:200])
    out = tmp_path / "cohort.csv"
    arguments = ["cohort", "aibl", "--tables", str(made / "tables")]
    assert main([*arguments, "--images", str(made / "images"), "--out", str(out)]) == 0
    assert int(spoilt) not in set(read_table(out)["image_id"])
    excluded = pd.read_csv(tmp_path / "excluded.csv", dtype=str, keep_default_na=False)
    lost = excluded[excluded["detail"].str.startswith("dcm2niix failed: ")]
    subject = truth.loc[truth["image_id"] == spoilt, "subject_id"]
    assert lost["subject_id"].tolist() == subject.tolist()
    assert "Unable to find any DICOM" in lost["detail"].iloc[0]
