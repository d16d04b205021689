"""Trees of image downloads in the layouts that people have."""

from pathlib import Path

import pandas as pd
import pytest

from mri_jax.cohort import adni_people, aibl
from mri_jax.cohort.download import Strays, scan_tree
from mri_jax.problems import Problem

NAME = "ADNI_001_S_0901_MR_MP-RAGE__br_raw_S9000_I4000"
PLACE = "ADNI/001_S_0901/MP-RAGE/2006-03-01_08_00_00.0"


def scan(
    root: Path, files: list[str], subject_of=adni_people.subject_of
) -> tuple[pd.DataFrame, list[Problem], Strays]:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    problems: list[Problem] = []
    strays = Strays()
    return scan_tree(root, subject_of, problems, strays), problems, strays


@pytest.mark.parametrize(
    ("file", "description", "day"),
    [
        (f"{PLACE}/I4000/{NAME}.nii", "MP-RAGE", "2006-03-01"),
        (f"{PLACE}/S9000/{NAME}.nii", "MP-RAGE", "2006-03-01"),
        (f"ADNI/001s0901/MP-RAGE/2006-03-01/S9000/{NAME}.NII.GZ", "MP-RAGE", "2006-03-01"),
        (f"2025-01-09/{PLACE}/I4000/{NAME}.nii", "MP-RAGE", "2006-03-01"),
        (f"{NAME}.nii", "MP-RAGE", ""),
        ("001_S_0901/I4000.nii.gz", "", ""),
        ("001_S_0901/MP-RAGE/2006-03-01_08_00_00.0/I4000/brain.Nii", "MP-RAGE", "2006-03-01"),
    ],
)  # fmt: skip
def test_layouts_of_one_image(tmp_path, file, description, day):
    found, problems, strays = scan(tmp_path, [file])
    row = found.iloc[0]
    assert (len(found), problems, strays.notes()) == (1, [], [])
    assert (row["subject_id"], row["image_id"]) == ("sub-ADNI001S0901", "4000")
    assert (row["description"], row["path"]) == (description, str(tmp_path / file))
    assert ("" if row["date"] is pd.NaT else str(row["date"].date())) == day


def test_what_macs_leave_behind_is_no_scan(tmp_path):
    place = "001_S_0901/MP-RAGE/2006-03-01_08_00_00.0/I4000"
    found, problems, _ = scan(
        tmp_path,
        [f"{place}/{NAME}.nii", f"{place}/._{NAME}.nii", f"__MACOSX/{place}/{NAME}.nii",
         f".Trashes/{place}/{NAME}.nii", f"{place}/.DS_Store"],
    )  # fmt: skip
    assert problems == []
    assert found["path"].tolist() == [str(tmp_path / place / f"{NAME}.nii")]


def test_dicom_of_a_series_folder_is_one_image(tmp_path):
    stem = "ADNI_002_S_0413_MR_MPRAGE_br_raw_20061115094759517"
    place = "002_S_0413/MPRAGE/2006-11-15_09_47_59.0/S22684"
    found, problems, _ = scan(
        tmp_path, [f"{place}/{stem}_{n}_S22684_I30119.dcm" for n in range(1, 4)]
    )
    assert problems == []
    assert found[["image_id", "path", "dicom"]].values.tolist() == [
        ["30119", str(tmp_path / place), True]
    ]
    _, problems, _ = scan(tmp_path, [f"{place}/{stem}_9_S22685_I30120.dcm"])
    assert {p.rule for p in problems} == {"holds DICOM files of 2 images; give each a folder I<id>"}


def test_a_name_that_contradicts_its_folder_is_refused(tmp_path):
    place = "001_S_0902/MP-RAGE/2006-03-01_08_00_00.0/I4001"
    _, problems, _ = scan(tmp_path, [f"{place}/{NAME}.nii"])
    told = "lies in the folder of sub-ADNI001S0902 and is named as of sub-ADNI001S0901"
    assert sorted(p.rule for p in problems) == [
        "is named as image I4000; which is right?",
        f"{told}; which is right?",
    ]


def test_what_cannot_be_told_is_counted(tmp_path):
    found, _, strays = scan(
        tmp_path, ["001_S_0901/T1/a.nii", "001_S_0901/T1/b.nii.gz", "Phantom/T1/I7/c.nii"]
    )
    assert found.empty
    first, second = strays.notes()
    assert first.startswith("2 scan files are left out: neither folder nor name has an image id")
    assert first.endswith(f"first: {tmp_path / '001_S_0901/T1/a.nii'}")
    assert second.startswith("1 image is left out: neither folder nor name has a subject's id")


def test_a_folder_that_is_no_date_is_kept_with_its_name(tmp_path):
    place = "001_S_0901/MP-RAGE/2006-00-00_00_00_00.0/I4000"
    found, problems, _ = scan(tmp_path, [f"{place}/{NAME}.nii"])
    assert problems == []
    assert found["date"].isna().all()
    assert found["bad_date"].tolist() == ["001_S_0901/MP-RAGE/2006-00-00_00_00_00.0"]


@pytest.mark.parametrize(
    "file",
    ["AIBL-part/12/AIBL/11/MPRAGE/2007-11-15_10_00_00.0/I7000/AIBL_11_MR_MPRAGE_br_raw_S1_I7000.nii",
     "AIBL/11/MPRAGE/2007-11-15_10_00_00.0/I7000/AIBL_11_MR_MPRAGE_br_raw_S8000_I7000.nii",
     "AIBL/11/MPRAGE/2007-11-15_10_00_00.0/S8000/AIBL_11_MR_MPRAGE_br_raw_S8000_I7000.nii",
     "AIBL/0011/MPRAGE/2007-11-15_10_00_00.0/I7000/x.nii",
     "AIBL_11_MR_MPRAGE_br_raw_S8000_I7000.nii"],
)  # fmt: skip
def test_layouts_of_aibl(tmp_path, file):
    found, problems, strays = scan(tmp_path, [file], aibl.subject_of)
    assert (problems, strays.notes()) == ([], [])
    assert found[["subject_id", "image_id", "description"]].values.tolist() == [
        ["sub-AIBL11", "7000", "MPRAGE"]
    ]
