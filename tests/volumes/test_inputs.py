"""What is found in folders and tables, and what is refused before a file is opened."""

import nibabel as nib
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.trees import ONLY_A_LINK
from mri_jax.volumes import batch, inputs
from mri_jax.volumes.entries import WANTED
from mri_jax.volumes.pipeline import PreprocessSettings


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
    assert problems["s2", "a.nii.gz"] == (
        "duplicate subject/session: a.nii.gz, b.nii.gz; keep one, or give each a session of its own"
    )
    assert problems["s2", "b.nii.gz"] == problems["s2", "a.nii.gz"]
    assert problems["s6", "in"] == "image: the table names no file"
    allowed = {e.subject_id: e.problem for e in inputs.find(table, root=tmp_path).entries}
    assert allowed["s4"] == ""


def test_scans_that_all_lie_outside_are_refused_with_the_root_that_has_them(tmp_path):
    touch(tmp_path, "scans/A/a.nii.gz", "scans/B/b.nii.gz", "tables/c.nii.gz")
    table = tmp_path / "tables" / "cohort.csv"
    rows = [f"s{name},ses-1,{tmp_path}/scans/{name.upper()}/{name}.nii.gz" for name in "ab"]
    table.write_text("\n".join(["subject_id,session_id,image", *rows, ""]), encoding="utf-8")
    with pytest.raises(UserError) as error:
        inputs.find(table)
    said = f"none of its 2 scans lies in {tmp_path}/tables, e.g. {tmp_path}/scans/A/a.nii.gz; "
    assert str(error.value) == f"input: {table}: {said}give --root {tmp_path}/scans"
    table.write_text(f"{table.read_text()}sc,ses-1,c.nii.gz\n", encoding="utf-8")
    problems = [entry.problem for entry in inputs.find(table).entries]
    assert problems[1].endswith(
        f"leaves the input folder {tmp_path}/tables; give --root {tmp_path}"
    )
    assert problems[2] == ""


@pytest.mark.parametrize(
    ("images", "rule"),
    [
        (("x/a.nii", "b"), "2 images is there (looked for x/a.nii in ROOT and HERE); give --root"),
        (("", "/x/b.nii.gz"), "its image is not there (e.g. /x/b.nii.gz); correct the paths"),
        ((r"x\a.nii", r"x\b.nii"), r"ROOT and HERE); folders are separated by / here, not by \; "),
        (("", "n/a"), ""),
        (("lost.nii.gz", "x/b.nii.gz"), ""),
    ],
)  # fmt: skip
def test_a_table_of_which_no_image_is_there_is_refused_as_a_whole(tmp_path, images, rule):
    root = tmp_path / "root"
    root.mkdir()
    (root / "lost.nii.gz").symlink_to("nowhere")
    rows = "".join(f"s{i},{image}\n" for i, image in enumerate(images))
    table = tmp_path / "t.csv"
    table.write_text(f"subject_id,image\n{rows}", encoding="utf-8")
    if not rule:
        assert len(inputs.find(table, root=root).entries) == 2
        return
    with pytest.raises(UserError) as error:
        inputs.find(table, root=root)
    said = str(error.value).replace(str(root), "ROOT").replace(str(tmp_path), "HERE")
    assert said.startswith("input: HERE/t.csv: ")
    assert rule in said


@pytest.mark.parametrize(
    ("name", "data", "end"),
    [
        ("t.csv", b"subject_id;image\n1;a\n", "save it as .csv with decimal points"),
        ("t.csv", b"subject_id,image\nJ\xf6,a\n", "(Excel: 'CSV UTF-8'; otherwise iconv -t UTF-8)"),
        ("t.tsv", "subject_id\timage\n".encode("utf-16"), "otherwise iconv -t UTF-8)"),
        ("t.dat", b"", f"is empty; a table begins with the names of its columns ({WANTED})"),
    ],
)  # fmt: skip
def test_what_is_called_a_table_is_told_how_to_mend_it_and_no_more(tmp_path, name, data, end):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as error:
        inputs.find(tmp_path / name)
    assert str(error.value).startswith(f"input: {tmp_path / name}: ")
    assert str(error.value).endswith(end)


def test_one_scan_and_a_folder_of_trees_are_named_as_what_they_are(tmp_path):
    scans = [f"{site}/sub-1{site}/anat/sub-1{site}_T1w.nii.gz" for site in "AB"]
    touch(tmp_path, *scans)
    with pytest.raises(UserError, match=r"T1w.nii.gz: is one scan; give a folder of sc"):
        inputs.find(tmp_path / scans[0])
    (note,) = inputs.find(tmp_path).notes
    assert note.startswith("2 folders in it are BIDS trees of their own (A, B): read here as loose")


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
        ("a", "columns 'subject_id', 'image' are missing; found a"),
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


def test_files_that_are_no_scans_are_left_out_and_lost_links_are_said(tmp_path):
    anat = "sub-1/anat"
    touch(tmp_path, f"{anat}/sub-1_run-2_T1w.nii.gz", f"{anat}/._sub-1_run-2_T1w.nii.gz")
    touch(tmp_path, f"{anat}/sub-1_T1w.nii.gz.part", f"{anat}/sub-1_T1w.json")
    (tmp_path / anat / "sub-1_run-1_T1w.nii.gz").symlink_to("../../.git/annex/objects/x")
    result = inputs.find(tmp_path)
    (entry,) = result.entries
    assert entry.path.name == "sub-1_run-2_T1w.nii.gz"
    assert result.notes == (f"left out, {ONLY_A_LINK}: sub-1_run-1_T1w.nii.gz",)


def test_a_plain_folder_knows_suffixes_in_any_case_pairs_and_label_maps(tmp_path):
    touch(tmp_path, "ONE_T1W.NII.GZ", "two.img", "two.hdr", "disk.img", "aseg.mgz", "._x.nii")
    assert set(found(tmp_path)) == {("ONE", "ses-1"), ("two", "ses-1")}


def test_freesurfer_subjects_give_one_image_each(tmp_path):
    touch(
        tmp_path, "sub-1_ses-2/mri/orig.mgz", "sub-1_ses-2/mri/T1.mgz", "sub-1_ses-2/mri/aseg.mgz"
    )
    touch(tmp_path, "P2/mri/T1.mgz", "P2/mri/aparc+aseg.mgz", "fsaverage/mri/orig.mgz")
    touch(tmp_path, "P3/mri/orig.mgz", "P3.long.base3/mri/orig.mgz", "P4.long.base4/mri/orig.mgz")
    touch(tmp_path, "base3/mri/orig.mgz", "base3/base-tps", "P5/mri/aseg.mgz")
    result = inputs.find(tmp_path)
    images = {entry.key: entry.path.relative_to(tmp_path).as_posix() for entry in result.entries}
    assert images == {
        ("sub-1", "ses-2"): "sub-1_ses-2/mri/orig.mgz",
        ("P2", "ses-1"): "P2/mri/T1.mgz",
        ("P3", "ses-1"): "P3/mri/orig.mgz",
        ("P4", "ses-1"): "P4.long.base4/mri/orig.mgz",
    }
    assert result.form.startswith("FreeSurfer")
    assert "P3.long.base3, base3, fsaverage" in result.notes[0]
    assert result.notes[1] == "left out, without mri/orig.mgz or mri/T1.mgz: P5"
    assert result.notes[2].startswith("1 subject without orig.mgz: T1.mgz, already corrected")
    # One subject's own folder is read in the same way.
    (alone,) = inputs.find(tmp_path / "P3").entries
    assert alone.key == ("P3", "ses-1")


def test_says_what_was_looked_for_and_what_is_there(tmp_path):
    touch(tmp_path, "a/1.dcm", "a/2.dcm", "a/3.IMA", "notes.txt", "x.tar.gz")
    with pytest.raises(UserError) as caught:
        inputs.find(tmp_path)
    said = str(caught.value)
    for part in ("BIDS tree", "CAPS tree", "SUBJECTS_DIR", "2 .dcm", "1 .tar.gz", "dcm2niix"):
        assert part in said


def test_orientation_and_scanner_come_from_the_table_or_the_command(tmp_path):
    touch(tmp_path, "a.nii", "b.nii")
    (tmp_path / "t.csv").write_text(
        "subject_id,image,orientation,Manufacturer,field_strength,site\n"
        "s1,a.nii,las,GE,3.0,7\ns2,b.nii,,n/a,,7\n",
        encoding="utf-8",
    )
    entries = found(tmp_path / "t.csv", orientation="ras")
    assert [e.orientation for e in entries.values()] == ["LAS", "RAS"]
    assert [e.scanner for e in entries.values()] == ["GE 3 T", "7"]
    with pytest.raises(UserError, match="orientation: 'up'"):
        inputs.find(tmp_path / "t.csv", orientation="up")


def test_one_file_says_who_and_when_and_takes_an_orientation(tmp_path):
    entry = inputs.one_file(tmp_path / "sub-01_ses-M06_T1W.NII.GZ", orientation="las")
    assert (*entry.key, entry.orientation) == ("sub-01", "ses-M06", "LAS")
    assert inputs.one_file(tmp_path / "P7-T1.img").subject_id == "P7"


def test_ids_that_differ_by_case_alone_in_one_cohort_share_no_file(tmp_path):
    touch(tmp_path, "1.nii", "2.nii", "3.nii")
    (tmp_path / "t.csv").write_text(
        "subject_id,session_id,cohort,image\nsub-a,s,X,1.nii\nsub-A,s,X,2.nii\nsub-A,t,X,3.nii\n",
        encoding="utf-8",
    )
    problems = {e.path.name: e.problem for e in inputs.find(tmp_path / "t.csv").entries}
    said = "subject/session: sub-a s and sub-A s differ by case alone, and would be one file on "
    assert problems["3.nii"] == ""
    assert problems["1.nii"] == problems["2.nii"]
    assert problems["1.nii"].startswith(said)


@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_name_too_long_for_a_file_fails_its_scan_alone(tmp_path, column):
    touch(tmp_path, "a.nii", "m.nii")
    nib.save(nib.Nifti1Image(np.ones((40, 41, 42), np.int16), np.eye(4) * 4), tmp_path / "b.nii")
    row = {"image": "b.nii", "mask": "m.nii", column: 5000 * "x"}
    text = f"subject_id,image,mask\na,a.nii,m.nii\nb,{row['image']},{row['mask']}\n"
    (tmp_path / "scans.csv").write_text(text, encoding="utf-8")
    settings = PreprocessSettings(grid="demo", brain="mask", n4=False)
    entries = inputs.find(tmp_path / "scans.csv").entries
    summary = batch.run(entries[1:], settings, tmp_path / "out")
    assert summary.failed == 1
    assert "cannot be read (File name too long)" in summary.reasons[0][0]
