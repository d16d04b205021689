"""Whose a T1w scan is: folders, names of files, links."""

from pathlib import Path

import pytest

from mri_jax.trees import (
    BIDS,
    ONLY_A_LINK,
    bids_scans,
    caps_scans,
    no_tree,
    session_key,
    why_absent,
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_scans_are_known_by_folder_and_name(tmp_path):
    touch(
        tmp_path,
        "sub-01/ses-01/anat/sub-01_ses-1_run-2_T1w.nii.gz",
        "sub-01/ses-01/anat/SUB-01_ses-01_rec-n_T1W.NII",
        "sub-02/anat/sub-02_ses-bl_T1w.nii",
        "sub-AB_03/anat/sub-AB_03_T1w.nii.gz",
        "sub-04/anat/any_T1w.nii.gz",
        # none of these is a scan
        "sub-04/anat/._any_T1w.nii.gz",
        "sub-04/anat/sub-04_T1w.nii.gz.part",
        "sub-04/anat/sub-04_T1w.json",
        "sub-04/anat/sub-04_T2w.nii.gz",
        "derivatives/sub-04/anat/sub-04_T1w.nii.gz",
    )
    found = {(s.subject, s.session, s.run, s.altered, s.fault) for s in bids_scans(tmp_path)}
    assert found == {
        ("sub-01", "ses-01", 2, False, ""),
        ("sub-01", "ses-01", 0, True, ""),
        ("sub-02", "ses-bl", 0, False, ""),
        ("sub-AB_03", "", 0, False, ""),
        ("sub-04", "", 0, False, ""),
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sub-02/anat/sub-03_T1w.nii.gz", "its name says sub-03, its folder sub-02"),
        ("sub-1/anat/sub-10_T1w.nii.gz", "its name says sub-10, its folder sub-1"),
        ("sub-1/ses-1/anat/sub-1_ses-2_T1w.nii", "its name says ses-2, its folder ses-1"),
    ],
)
def test_a_name_that_contradicts_its_folder_is_nobody_s(tmp_path, name, said):
    touch(tmp_path, name)
    assert [scan.fault for scan in bids_scans(tmp_path)] == [said]


def test_a_scan_without_a_session_beside_some_with_one(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii")
    faults = {scan.session: scan.fault for scan in bids_scans(tmp_path)}
    assert faults["ses-2"] == ""
    assert faults[""].startswith("neither its folder nor its name tells a session")


def test_caps(tmp_path):
    stem = "subjects/sub-1/ses-M00/t1_linear/sub-1_ses-M00"
    touch(tmp_path, f"{stem}_desc-Crop_T1w.nii.gz", f"{stem}_T1w.nii.gz", f"{stem}_affine.mat")
    assert [s.wanted(("desc-Crop",)) for s in caps_scans(tmp_path)] == [1, 0]


def test_what_is_not_there(tmp_path):
    (tmp_path / "lost").symlink_to("../../.git/annex/objects/x")
    assert why_absent(tmp_path / "lost") == ONLY_A_LINK
    assert ONLY_A_LINK.startswith("only a link, its content was not fetched (datalad get")
    texts = ("../../.git/annex/objects/aa/KEY", "/annex/objects/KEY\n", "version https://git-lfs x")
    for text in texts:
        (tmp_path / "text").write_text(text, encoding="utf-8")
        assert why_absent(tmp_path / "text") == ONLY_A_LINK
    # A copy without links, beside which the content is.
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "KEY").write_bytes(b"\x1f\x8b\x08 scan")
    (tmp_path / "text").write_text(f"../{tmp_path.name}/objects/KEY", encoding="utf-8")
    told = why_absent(tmp_path / "text")
    assert told.startswith("only the text of a link to a file that is there: copy the dataset with")
    assert told.endswith("allow it with --root, a folder that holds both")
    (tmp_path / "scan").write_bytes(b"\x1f\x8b\x08 scan")
    (tmp_path / "here").symlink_to(tmp_path / "scan")
    assert why_absent(tmp_path / "here") == ""


def test_spellings_of_one_session():
    assert {session_key(s) for s in ("1", "01", "ses-1", "SES-001")} == {"1"}
    assert session_key("ses-M000") == session_key("m0") != session_key("ses-M10")
    assert session_key("ses-100") == "100"


def test_what_is_no_tree_says_what_was_looked_for_what_is_there_and_what_to_do(tmp_path):
    touch(tmp_path, *(f"{site}/sub-1/anat/sub-1_T1w.nii.gz" for site in ("A", "B")))
    touch(tmp_path, "C/subjects/sub-1/ses-1/t1_linear/x_T1w.nii.gz", "D/x.txt", "D/rest/y.txt")

    def why(name: str, caps: bool = False) -> str:
        return no_tree(tmp_path / name, caps).replace(str(tmp_path), "")

    wanted = f"give the folder of a BIDS tree ({BIDS})"
    assert why("") == (
        ": is no BIDS tree but holds 2: A, B; read each by itself, then put them together with "
        "cohort join"
    )
    assert why("A/sub-1/anat/sub-1_T1w.nii.gz").endswith(f".nii.gz: is a file; {wanted}, here /A")
    assert why("none") == f"/none: no such folder; {wanted}"
    there = "found the folders anat; the tree that it lies in is /A"
    assert why("A/sub-1") == f"/A/sub-1: has no T1w image ({BIDS}); {there}"
    assert why("D") == f"/D: has no T1w image ({BIDS}); found the folders rest"
    assert why("C") == f"/C: is a CAPS tree, not BIDS ({BIDS}); use cohort caps"
    assert why("A", caps=True).endswith("use cohort bids")
    assert why("", caps=True).startswith(": is no CAPS tree but holds 1: C;")
