"""What is found in folders and tables, and what is refused before a file is opened."""

import pytest

from mri_jax.errors import UserError
from mri_jax.volumes import inputs


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(source, **kwargs):
    return {entry.key: entry for entry in inputs.find(source, **kwargs).entries}


def test_bids_takes_the_lowest_run_and_says_so(tmp_path):
    touch(
        tmp_path,
        "sub-A1/ses-M00/anat/sub-A1_ses-M00_run-02_T1w.nii.gz",
        "sub-A1/ses-M00/anat/sub-A1_ses-M00_run-01_T1w.nii.gz",
        "sub-A1/ses-M06/anat/sub-A1_ses-M06_T1w.nii.gz",
        "sub-B2/anat/sub-B2_T1w.nii",
        "sub-B2/anat/sub-B2_T2w.nii",
        "derivatives/x/sub-B2/anat/sub-B2_T1w.nii.gz",
    )
    entries = found(tmp_path, cohort="ADNI1")
    assert set(entries) == {("sub-A1", "ses-M00"), ("sub-A1", "ses-M06"), ("sub-B2", "ses-1")}
    assert entries["sub-A1", "ses-M00"].path.name == "sub-A1_ses-M00_run-01_T1w.nii.gz"
    assert {entry.cohort for entry in entries.values()} == {"ADNI1"}
    assert inputs.find(tmp_path).notes[0].startswith("1 further T1w image")


def test_caps_takes_the_cropped_output_and_knows_what_is_done(tmp_path):
    stem = "subjects/sub-A1/ses-M00/t1_linear/sub-A1_ses-M00_space-MNI152NLin2009cSym"
    touch(tmp_path, f"{stem}_res-1x1x1_T1w.nii.gz", f"{stem}_desc-Crop_res-1x1x1_T1w.nii.gz")
    (entry,) = inputs.find(tmp_path).entries
    assert "desc-Crop" in entry.path.name
    assert entry.in_template_space


def test_plain_folder_takes_ids_from_participants(tmp_path):
    touch(tmp_path, "t1/P7-HH-12_T1.nii.gz", "t1/other-T1w.nii", "t1/P7.txt")
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsex\nP7\tF\nP7-HH\tF\n", encoding="utf-8"
    )
    assert set(found(tmp_path)) == {("P7-HH", "ses-1"), ("other", "ses-1")}


def test_table_marks_what_cannot_be_used(tmp_path):
    touch(tmp_path, "in/a.nii.gz", "in/b.nii.gz", "outside.nii.gz")
    (tmp_path / "in/link.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    table = tmp_path / "in" / "cohort.csv"
    table.write_text(
        "subject_id,session_id,cohort,image\n"
        "s1,ses-1,X,a.nii.gz\ns2,ses-1,X,a.nii.gz\ns2,ses-1,X,b.nii.gz\n"
        f"s3,ses-1,X,../outside.nii.gz\ns4,ses-1,X,{tmp_path}/outside.nii.gz\n"
        "s5,ses-1,X,link.nii.gz\ns6,ses-1,X,\n",
        encoding="utf-8",
    )
    problems = {(e.subject_id, e.path.name): e.problem for e in inputs.find(table).entries}
    assert problems.pop(("s1", "a.nii.gz")) == ""
    assert [p for p in problems.values() if "leaves the input folder" in p].__len__() == 3
    assert problems["s2", "a.nii.gz"] == "duplicate subject/session: a.nii.gz, b.nii.gz"
    assert problems["s2", "b.nii.gz"] == problems["s2", "a.nii.gz"]
    assert problems["s6", "in"] == "image: the table names no file"
    allowed = {e.subject_id: e.problem for e in inputs.find(table, root=tmp_path).entries}
    assert allowed["s4"] == ""


def test_masks_stand_under_the_same_path_or_the_scan_s_name(tmp_path):
    touch(tmp_path, "in/x/a.nii.gz", "in/b.nii.gz", "in/c.nii.gz")
    touch(tmp_path, "masks/x/a.nii.gz", "masks/b_ses-1.nii.gz")
    entries = found(tmp_path / "in", masks=tmp_path / "masks")
    assert entries["a", "ses-1"].mask_path == tmp_path / "masks/x/a.nii.gz"
    assert entries["b", "ses-1"].mask_path == tmp_path / "masks/b_ses-1.nii.gz"
    assert entries["c", "ses-1"].problem.startswith("mask: ")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("image\na.nii\n", "'subject_id' is missing"),
        ("", "is empty; a table begins"),
        ("a", "is missing"),
    ],
)
def test_refuses_a_table_without_its_columns(tmp_path, text, rule):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rule):
        inputs.find(tmp_path / "t.csv")


def test_refuses_nothing(tmp_path):
    with pytest.raises(UserError, match="holds no scan"):
        inputs.find(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        inputs.find(tmp_path / "absent")
