import pandas as pd
import pytest

from mri_jax.cohort.archive import ImageReading, combine, image_tables, read_image_table
from mri_jax.cohort.download import scan_tree
from mri_jax.cohort.identity import adni_id
from mri_jax.cohort.images import ImageChoice, choose, describe, level_of
from mri_jax.errors import UserError
from mri_jax.problems import Problem


@pytest.mark.parametrize(
    ("description", "kind", "level"),
    [
        ("MP-RAGE", "Original", "raw"),
        ("MPR; GradWarp", "Processed", "gradwarp"),
        ("MPR; GradWarp; B1 Correction", "Processed", "b1"),
        ("MPR; GradWarp; B1 Correction; N3", "Processed", "n3"),
        ("MPR-R__GradWarp__B1_Correction__N3__Scaled_2", "", "scaled"),
        ("Hippocampal Mask", "Post-processed", "other"),
    ],
)
def test_levels(description, kind, level):
    assert level_of(description, kind) == level


@pytest.mark.parametrize(
    ("description", "t1", "accelerated", "repeat"),
    [
        ("MP-RAGE", True, False, False),
        ("MP RAGE REPEAT", True, False, True),
        ("MPR-R__GradWarp", True, False, True),
        ("MPRAGE_GRAPPA2", True, True, False),
        ("Accelerated SAG IR-SPGR", True, True, False),
        ("MPRAGE_SENSE2_repeat", True, True, True),
        ("Sag IR-FSPGR", True, False, False),
        ("MPRAGE_ADNI_confirmed_RPT", True, False, True),
        ("MPRAGE_ADNI_confirmed_REPEATX2", True, False, True),
        ("3 Plane Localizer", False, False, False),
        ("Axial FLAIR", False, False, False),
        ("B1-Calibration PA", False, False, False),
    ],
)
def test_what_a_description_says(description, t1, accelerated, repeat):
    row = describe(pd.DataFrame({"description": [description], "kind": [""]})).iloc[0]
    assert (row["t1"], row["accelerated"], row["repeat"]) == (t1, accelerated, repeat)


def image(number: int, **changes) -> dict:
    return {
        "subject_id": "s", "image_id": str(number), "date": pd.Timestamp("2010-05-01"),
        "visit": "", "description": "MPRAGE", "kind": "", "field": 3.0, "quality": float("nan"),
        "selected": False, "preference": 0.0, "path": f"I{number}.nii",
        "instead": "", **changes,
    }  # fmt: skip


def chosen(images: list[dict], how: ImageChoice | None = None) -> pd.Series:
    units = pd.DataFrame(
        {"subject_id": ["s"], "cohort": ["ADNI2"], "baseline": [pd.Timestamp("2010-05-03")],
         "visit": ["bl"]}
    )  # fmt: skip
    return choose(units, describe(pd.DataFrame(images)), how or ImageChoice()).iloc[0]


DAY = pd.Timedelta(days=1)
FIRST = pd.Timestamp("2010-05-01")


@pytest.mark.parametrize(
    ("images", "best", "lost_by"),
    [
        ([image(1, date=FIRST - 9 * DAY), image(2)], "2", "1: farther from baseline"),
        ([image(1, description="MPRAGE repeat"), image(2)], "2", "1: a repeat"),
        ([image(1, description="MPRAGE GRAPPA"), image(2)], "2", "1: accelerated"),
        ([image(1, description="MPRAGE repeat", selected=True), image(2)], "1",
         "2: not the one selected by the raters"),
        ([image(1, quality=3), image(2, quality=1)], "2", "1: rated poorer"),
        ([image(1, quality=4), image(2, description="MPRAGE repeat")], "2", ""),
        ([image(10), image(9)], "9", "10: later image id"),
        ([image(1, description="MPR; N3"), image(2)], "2", ""),
        ([image(1, date=pd.NaT, visit="sc"), image(2, date=FIRST + 120 * DAY)], "1", ""),
        ([image(1, date=pd.NaT, visit="sc"), image(2, date=pd.NaT, visit="bl")], "2",
         "1: of another visit of the same month"),
    ],
)  # fmt: skip
def test_the_best_scan_and_the_runner_up(images, best, lost_by):
    for order in (images, images[::-1]):
        result = chosen(order)
        assert (result["image_id"], result["runner_up"], result["why_not"]) == (best, lost_by, "")


@pytest.mark.parametrize(
    ("images", "how", "why"),
    [
        ([image(1, description="FLAIR")], ImageChoice(), "no T1w image"),
        ([image(1, date=FIRST + 120 * DAY), image(2, date=FIRST - 300 * DAY)], ImageChoice(),
         "90 days of baseline (nearest: 118 days after; --days 118 or more takes it)"),
        ([image(1, date=pd.NaT, visit="m12"), image(2, date=pd.NaT, visit="m24")], ImageChoice(),
         "no T1w image of visit bl (found: m12, m24)"),
        ([image(1, date=pd.NaT)], ImageChoice(), "the T1w images have neither date nor visit"),
        ([image(1, description="MPR; N3")], ImageChoice(), "raw (found: n3; choose with --level)"),
        ([image(1)], ImageChoice(field={"ADNI2": 1.5}), "field strength (--field COHORT=any takes"),
        ([image(1, quality=4.0)], ImageChoice(), "image quality (--quality ignore takes it)"),
        ([image(1, path="")], ImageChoice(), "image listed, but no file of it found"),
        ([image(1, path="", instead="only a link")], ImageChoice(), "the image is only a link"),
        ([image(1, description="MPRAGE SENSE")],
         ImageChoice(acceleration="require-unaccelerated"), "accelerated only"),
        ([image(1, description="MPRAGE repeat")], ImageChoice(repeats="require-first"),
         "repeats only"),
        ([image(1, subject_id="other")], ImageChoice(), "no image of the subject"),
    ],
)  # fmt: skip
def test_why_there_is_no_scan(images, how, why):
    result = chosen(images, how)
    assert why in result["why_not"]
    assert result["path"] == ""


def test_options_change_the_choice():
    images = [image(1, description="MPR; N3"), image(2, description="MPRAGE SENSE"), image(3)]
    assert chosen(images, ImageChoice(level="n3"))["image_id"] == "1"
    assert chosen(images, ImageChoice(acceleration="any"))["image_id"] == "2"
    assert chosen([image(1, quality=4.0)], ImageChoice(quality="ignore"))["image_id"] == "1"
    assert chosen([image(1, field=float("nan"))], ImageChoice(field={"ADNI2": 1.5}))["days"] == -2
    with pytest.raises(UserError, match=r"images.level: 'rough' is not one of"):
        ImageChoice(level="rough")


def subject_of(text: str) -> str | None:
    try:
        return adni_id(text)
    except UserError:
        return None


def test_a_download_tree(tmp_path):
    folder = tmp_path / "ADNI" / "002_S_0295" / "MP-RAGE" / "2006-04-18_08_20_30.0" / "I45117"
    folder.mkdir(parents=True)
    (folder / "a.nii").touch()
    dicom = tmp_path / "ADNI" / "002_S_0413" / "MPRAGE" / "2006-05-02_12_31_52.0" / "I45118"
    dicom.mkdir(parents=True)
    (dicom / "b.dcm").touch()
    (tmp_path / "ADNI" / "notes").mkdir()
    problems: list[Problem] = []
    found = scan_tree(tmp_path, subject_of, problems).set_index("image_id")
    assert problems == []
    assert found.loc["45117", "path"] == str(folder / "a.nii")
    assert found.loc["45117", "date"] == pd.Timestamp("2006-04-18")
    assert bool(found.loc["45118", "dicom"])
    assert found.loc["45118", "path"] == str(dicom)
    whole = combine(found.reset_index(), [])
    assert whole["subject_id"].tolist() == ["sub-ADNI002S0295", "sub-ADNI002S0413"]
    assert whole["t1"].all()


def test_faults_of_a_tree_are_named(tmp_path):
    root = tmp_path / "images"
    first = root / "002_S_0295" / "MPRAGE" / "2006-04-18_08_20_30.0" / "I1"
    first.mkdir(parents=True)
    (tmp_path / "secret.nii").touch()
    (first / "a.nii").symlink_to(tmp_path / "secret.nii")
    (first / "b.nii").touch()
    other = root / "002_S_0413" / "MPRAGE" / "2006-04-18_08_20_30.0" / "I1"
    other.mkdir(parents=True)
    problems: list[Problem] = []
    scan_tree(root, subject_of, problems)
    said = sorted(p.rule for p in problems)
    assert said == [
        "holds 2 NIfTI files; keep one",
        "leaves the folder of images",
        "stands under several subjects: sub-ADNI002S0295, sub-ADNI002S0413",
    ]


def test_image_tables_of_every_dialect(tmp_path):
    from datetime import date

    (tmp_path / "search.csv").write_text(
        "Image Data ID,Subject,Visit,Description,Type,Acq Date,Imaging Protocol\n"
        "I45117,002_S_0295,sc,MP-RAGE,Original,4/18/2006,"
        "Slice Thickness=1.2;Acquisition Type=3D;Field Strength=1.5\n",
        encoding="utf-8",
    )
    (tmp_path / "All_Images_01Jan2025.csv").write_text(
        "image_id,image_date,image_type,image_description,subject_id,VISCODE2\n"
        "45117,2006-04-18,Original,MP-RAGE,002_S_0295,sc\n",
        encoding="utf-8",
    )
    (tmp_path / "MPRAGEMETA.csv").write_text(
        "Orig/Proc,SubjectID,Visit,MagStrength,Sequence,ScanDate,StudyID,SeriesID,ImageUID\n"
        "Processed,002_S_0295,ADNI Screening,1.5,MPR; N3,2006-04-18,1,13408,45118\n",
        encoding="utf-8",
    )
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    paths = image_tables(tmp_path)
    assert [p.name for p in paths] == ["All_Images_01Jan2025.csv", "MPRAGEMETA.csv", "search.csv"]
    problems: list[Problem] = []
    how = ImageReading(subject_of, date(2026, 1, 1))
    tables = [read_image_table(p, how, problems) for p in paths]
    assert problems == []
    whole = combine(scan_tree(tmp_path, subject_of, problems), tables).set_index("image_id")
    assert whole["field"].to_dict() == {"45117": 1.5, "45118": 1.5}
    assert whole["visit"].to_dict() == {"45117": "bl", "45118": ""}
    assert whole["level"].to_dict() == {"45117": "raw", "45118": "n3"}
    assert whole.loc["45118", "series"] == "13408"
