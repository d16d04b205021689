"""``python -m mri_jax cohort`` as a user runs it, on generated downloads."""

import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cohort.generated_adni import write_adni
from cohort.generated_aibl import write_aibl
from mri_jax.cli import main
from mri_jax.cohort import flow
from mri_jax.cohort.duplicates import COLUMNS, MIRRORED
from mri_jax.cohort.table import read_table
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import StoreInfo, StoreWriter


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("downloads")
    write_adni(folder / "adni", 100, seed=2)
    write_aibl(folder / "aibl", 20, seed=2)
    return folder


def make(source: str, folder: Path, out: Path, *more: str) -> int:
    return main(
        ["cohort", source, "--tables", str(folder / source / "tables"), "--images",
         str(folder / source / "images"), "--out", str(out), *more]
    )  # fmt: skip


def test_from_two_downloads_to_one_described_table(downloads, tmp_path, capsys):
    assert make("adni", downloads, tmp_path / "adni.csv") == 0
    assert "| ADNI1  | AD    |" in capsys.readouterr().out
    assert make("aibl", downloads, tmp_path / "aibl.csv") == 0
    both = [str(tmp_path / "adni.csv"), str(tmp_path / "aibl.csv")]
    assert main(["cohort", "join", *both, "--out", str(tmp_path / "cohort.csv")]) == 0
    table = read_table(tmp_path / "cohort.csv")
    capsys.readouterr()
    # The images are too small for heads, which check says of each before preprocess does.
    assert main(["cohort", "check", str(tmp_path / "cohort.csv")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 51
    assert f": {len(table) - 50} more rows of the same kind" in said[-1]
    assert all("preprocess will refuse it: is " in line and "a slab" in line for line in said)
    excluded = pd.read_csv(tmp_path / "excluded.csv", dtype=str)
    counted = flow.read(tmp_path / "flow.csv")
    assert counted.loc[counted["step"] == "found", "n"].sum() == len(table) + len(excluded)
    assert set(table["cohort"]) == {"ADNI1", "ADNIGO", "ADNI2", "ADNI3", "AIBL"}
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    assert main(["cohort", "describe", str(tmp_path / "cohort.csv")]) == 0
    assert "± " in (tmp_path / "demographics.md").read_text(encoding="utf-8")
    assert (
        (tmp_path / "demographics.tex").read_text(encoding="utf-8").startswith(r"\begin{tabular}")
    )
    figures = pd.read_csv(tmp_path / "demographics.csv")
    assert figures["n"].sum() == len(table)


def test_options_reach_the_result(downloads, tmp_path):
    out = tmp_path / "cohort.csv"
    options = "--horizon 24 --level scaled --field ADNI1=any --exclude-groups none"
    assert make("adni", downloads, out, *options.split(), "--continuing", "keep") == 0
    table = read_table(out)
    assert set(table["label_rules"]) == {"baseline-and-progression/1 horizon=24"}
    assert set(table["level"]) == {"scaled"}
    assert "SMC" in set(table["group"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--horizon", "0"], "rules.window: 0.0 must be at least 0 and below the horizon 0.0"),
        (["--code", "7"], "--code: '7' must have the form NAME=VALUE"),
        (["--field", "ADNI1=strong"], "--field: 'ADNI1=strong' must be COHORT=TESLA"),
        (["--days", "-1"], "--days: -1 must be a number from 0"),
        (["--visits", "dxsum"], "has no DXSUM.csv"),
        (
            ["--missing", "NA"],
            "--missing: 'NA' cannot replace what the archive itself calls missing",
        ),
    ],
)
def test_a_wrong_option_is_one_line(downloads, tmp_path, capsys, more, message):
    assert make("adni", downloads, tmp_path / "cohort.csv", *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "cohort.csv").exists()


def test_the_output_is_a_csv_and_the_folder_of_images_exists(downloads, tmp_path, capsys):
    assert make("adni", downloads, tmp_path / "cohort.txt") == 2
    assert "must end in .csv" in capsys.readouterr().err
    arguments = ["--tables", str(downloads / "adni" / "tables"), "--images", str(tmp_path / "no")]
    assert main(["cohort", "adni", *arguments, "--out", str(tmp_path / "c.csv")]) == 2
    assert "no such folder or table of images" in capsys.readouterr().err


def test_a_cohort_without_subjects_is_an_error_that_says_where_to_look(downloads, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    arguments = ["--tables", str(downloads / "adni" / "tables")]
    arguments += ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "cohort.csv")]
    assert main(["cohort", "adni", *arguments]) == 2
    said = capsys.readouterr().err
    excluded = pd.read_csv(tmp_path / "excluded.csv", dtype=str)
    lost = (excluded["detail"] == "image listed, but no file of it found").sum()
    assert f"no subject is kept: {lost} x no scan (image listed, but no file of it f" in said
    assert set(excluded["reason"]) == {"no scan", "no baseline"}


def dicom_of(downloads: Path, folder: Path) -> None:
    """The same download with the chosen images as DICOM series."""
    tables = folder / "aibl" / "tables"
    tables.mkdir(parents=True)
    for path in (downloads / "aibl" / "tables").glob("*.csv"):
        (tables / path.name).write_bytes(path.read_bytes())
    for path in (downloads / "aibl" / "images").rglob("*.nii"):
        place = folder / "aibl" / path.relative_to(downloads / "aibl").parent
        place.mkdir(parents=True)
        (place / "0001.dcm").touch()
    for path in (downloads / "aibl" / "images").glob("*.csv"):
        (folder / "aibl" / "images" / path.name).write_bytes(path.read_bytes())


def test_dicom_without_a_converter_says_what_to_run(downloads, tmp_path, capsys):
    dicom_of(downloads, tmp_path)
    out = tmp_path / "cohort.csv"
    assert make("aibl", tmp_path, out, "--dcm2niix", "not-installed-anywhere") == 0
    said = capsys.readouterr().out
    assert "not-installed-anywhere is not installed; run sh" in said
    script = (tmp_path / "convert.sh").read_text(encoding="utf-8")
    table = read_table(out)
    assert script.count("not-installed-anywhere -z y") == len(table)
    assert table["image"].str.startswith("nifti/I").all()
    assert main(["cohort", "check", str(out)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_dicom_is_converted_and_a_failure_is_an_exclusion(downloads, tmp_path):
    dicom_of(downloads, tmp_path)
    tool = tmp_path / "dcm2niix"
    # Stands in for the converter: writes the file it is asked for, and fails on one series.
    tool.write_text(
        '#!/bin/sh\ncase "$8" in *7) echo "no usable image" >&2; exit 1;; esac\n'
        'touch "$6/$8.nii.gz"\n',
        encoding="utf-8",
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "cohort.csv"
    assert make("aibl", tmp_path, out, "--dcm2niix", str(tool)) == 0
    table, excluded = read_table(out), pd.read_csv(tmp_path / "excluded.csv", dtype=str)
    failed = excluded[excluded["detail"].str.contains("dcm2niix failed: no usable", na=False)]
    assert len(failed) > 0
    assert set(failed["reason"]) == {"no scan"}
    assert [os.path.exists(tmp_path / image) for image in table["image"]] == [True] * len(table)
    counted = flow.read(tmp_path / "flow.csv")
    assert counted.loc[counted["step"] == "found", "n"].sum() == len(table) + len(excluded) == 20


def test_bids_and_caps(tmp_path):
    tree = tmp_path / "Tree"
    for name in ("sub-01", "sub-02"):
        (tree / name / "anat").mkdir(parents=True)
        (tree / name / "anat" / f"{name}_T1w.nii.gz").write_text(name, encoding="utf-8")
        caps = tmp_path / "caps" / "subjects" / name / "ses-M00" / "t1_linear"
        caps.mkdir(parents=True)
        (caps / f"{name}_ses-M00_desc-Crop_T1w.nii.gz").write_text(name, encoding="utf-8")
    people = tree / "participants.tsv"
    people.write_text(
        "participant_id\tgroup\tage\tsex\nsub-01\tPD\t61\tM\nsub-02\tHC\t60\tF\n", encoding="utf-8"
    )
    assert main(["cohort", "bids", str(tree), "--out", str(tmp_path / "cohort.csv")]) == 0
    table = read_table(tmp_path / "cohort.csv")
    assert table[["subject_id", "cohort", "diagnosis"]].values.tolist() == [
        ["sub-01", "Tree", "PD"], ["sub-02", "Tree", "HC"],
    ]  # fmt: skip
    assert table["image"].tolist()[0] == "Tree/sub-01/anat/sub-01_T1w.nii.gz"
    arguments = [
        "--participants",
        str(people),
        "--cohort",
        "X",
        "--out",
        str(tmp_path / "caps.csv"),
    ]
    assert main(["cohort", "caps", str(tmp_path / "caps"), *arguments]) == 0
    assert read_table(tmp_path / "caps.csv")["cohort"].tolist() == ["X", "X"]


def test_images_that_are_equal_and_too_small_are_told_as_both(tmp_path, capsys):
    rows = "subject_id,session_id,cohort,diagnosis,age,sex,image\n"
    for name in "ab":
        image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
        nib.save(image, tmp_path / f"{name}.nii")
        rows += f"p{name},s,X,AD,60,F,{name}.nii\n"
    (tmp_path / "t.csv").write_text(rows, encoding="utf-8")
    assert main(["cohort", "check", str(tmp_path / "t.csv")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.count("preprocess will refuse it: is ") for line in said] == [1, 0, 1]
    assert "row 3: column image: 'b.nii' has the same bytes as the image of pa" in said[1]


def test_tables_that_share_rows_are_refused_by_the_files_that_there_are(tmp_path, capsys):
    names = "subject_id,session_id,cohort,diagnosis,age,sex,image\n"
    a, b, out = (tmp_path / name for name in ("a.csv", "b.csv", "cohort.csv"))
    a.write_text(f"{names}p1,a,X,AD,60,F,\np2,a,X,AD,61,F,\n", encoding="utf-8")
    b.write_text(f"{names}p3,a,X,AD,60,M,\np2,a,X,AD,61,F,\np1,b,Y,CN,60,M,\n", encoding="utf-8")
    for door in (["join", "--out", str(out)], ["check"]):
        assert main(["cohort", *door[:1], str(a), str(b.parent / "." / "a.csv"), *door[1:]]) == 2
        assert capsys.readouterr().err == f"error: {a}: is given twice\n"
    assert main(["cohort", "join", str(a), str(b), "--out", str(out)]) == 2
    together = "(in all tables together)"
    assert capsys.readouterr().err.splitlines() == [
        f"error: {b}: row 3: column session_id: 'p2 a' occurs more than once {together}",
        f"{b}: row 4: column sex: 'M' differs from an earlier row of p1 {together}",
    ]
    assert not out.exists()


def test_join_renames_classes_before_it_asks_what_is_missing_and_goes_on(tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    names = "subject_id,session_id,cohort,diagnosis,age,sex,image\n"
    for name, rows in (("a", f"p1,a,X,None,60,F,{scans}/one.nii\n"),
                       ("b", f"p2,a,Y,AD,-9,M,{scans}/two.nii\n")):  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(names + rows, encoding="utf-8")
    tables = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    out = tmp_path / "sub" / "cohort.csv"
    assert main(["cohort", "join", *tables, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "'None' counts as missing" in said
    assert "'-9' " in said or "'-9.0' " in said
    how = ["--code", "None=HC", "--missing=+-9", "--out", str(out)]
    assert main(["cohort", "join", *tables, *how]) == 0
    *_, written, said = capsys.readouterr().out.splitlines()
    beside = [str(out.parent / name) for name in ("excluded.csv", "flow.csv", "flow.png")]
    assert written == "written: {}, {} (0 left out), {} and {}".format(out, *beside)
    assert said.startswith("next: python -m mri_jax preprocess --input ")
    assert f"--root {scans} --out STORE" in said
    joined = read_table(out)
    assert joined["diagnosis"].tolist() == ["HC", "AD"]
    assert joined["age"].isna().tolist() == [False, True]
    assert set(flow.read(tmp_path / "sub" / "flow.csv")["class"]) >= {"HC", "AD"}
    # A class is renamed in the flow that stands beside a table, too.
    assert main(["cohort", "join", str(out), "--code", "HC=CN", "--out", str(out)]) == 0
    assert "HC" not in set(flow.read(tmp_path / "sub" / "flow.csv")["class"])


def test_a_bids_tree_says_what_became_of_its_images(tmp_path, capsys):
    tree = tmp_path / "Tree"
    for name in ("sub-1_run-1", "sub-1_run-2", "sub-2", "sub-3"):
        anat = tree / name.split("_")[0] / "anat"
        anat.mkdir(parents=True, exist_ok=True)
        (anat / f"{name}_T1w.nii").write_text(name, encoding="utf-8")
    (tree / "participants.tsv").write_text(
        "participant_id\tsex\nsub-1\tF\nsub-2\tM\n", encoding="utf-8"
    )
    command = ["cohort", "bids", str(tree), "--out", str(tmp_path / "out" / "c.csv")]
    assert main(command) == 2
    assert "choose one with --diagnosis-column NAME" in capsys.readouterr().err
    assert main([*command, "--diagnosis-column", "sex"]) == 0
    said = capsys.readouterr().out
    assert (
        "4 images with a file: 2 chosen, 1 other of the same subjects, 1 of subjects left" in said
    )
    assert "note: 1 subject of the tree is in no table: sub-3" in said
    assert f"--root {tree} --out STORE" in said
    with pytest.raises(SystemExit):
        main(["cohort", "bids", "--help"])
    assert "The list: the empty cell, #div/0!" in " ".join(capsys.readouterr().out.split())


def test_near_identical_volumes_need_a_decision(tmp_path, rng, capsys):
    shape = (16, 20, 18)
    info = StoreInfo(Grid("t", shape, 1.0, (0.0, 0.0, 0.0)), "float32", True, {}, {})
    writer = StoreWriter(tmp_path / "store", info)
    people = [rng.normal(0, 1, shape) for _ in range(6)]
    scans = [(f"p{i}", "a", v) for i, v in enumerate(people)]
    scans += [("p0", "b", people[0]), ("hidden", "a", people[3])]
    rows, lines = [], []
    for subject, session, volume in scans:
        noisy = volume + rng.normal(0, 0.2, shape)
        rows.append(writer.add(subject, session, "X", noisy, np.ones(shape, bool)))
        lines.append((subject, session, "X", "AD" if subject == "p0" else "CN", 60, "F", ""))
    writer.write_index(pd.DataFrame(rows))
    names = ["subject_id", "session_id", "cohort", "diagnosis", "age", "sex", "image"]
    table = tmp_path / "cohort.csv"
    pd.DataFrame(lines, columns=names).to_csv(table, index=False)
    command = ["cohort", "check", str(table), "--store", str(tmp_path / "store")]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "1 pair of different ids with a correlation" in captured.out
    assert f"holds {len(lines)} of {len(lines)} scans of the table, and 0 that are" in captured.out
    assert "at least 0.500 (which finds 100% of 1 pair of known rescans)" in captured.out
    assert "hidden a ~ p3 a" in captured.err
    listed = pd.read_csv(tmp_path / "duplicates.csv", dtype=str, keep_default_na=False)
    assert listed.columns.tolist() == [*COLUMNS, MIRRORED]
    decided = listed.assign(decision="keep second", reason="one person, two ids")
    decided.to_csv(tmp_path / "duplicates.csv", index=False)
    assert main(command) == 2
    assert "1 subject is to be left out (hidden)" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "clean.csv")]) == 0
    assert "hidden" not in set(read_table(tmp_path / "clean.csv")["subject_id"])
    counted = flow.read(tmp_path / "clean_flow.csv")
    lost = counted[(counted["step"] == "excluded") & (counted["n"] > 0)]
    assert lost[["stage", "reason", "n"]].values.tolist() == [
        ["duplicates", "one person, two ids", 1]
    ]


def test_the_flow_goes_on_to_the_n_analysed(tmp_path, rng, capsys):
    shape = (4, 6, 5)
    info = StoreInfo(Grid("t", shape, 1.0, (0.0, 0.0, 0.0)), "float32", True, {}, {})
    writer = StoreWriter(tmp_path / "store", info)
    table = pd.DataFrame(
        [(f"p{i}", "a", "X", name, 60.0, "F", "") for i, name in enumerate("ABABAC")],
        columns=["subject_id", "session_id", "cohort", "diagnosis", "age", "sex", "image"],
    )
    table.to_csv(tmp_path / "cohort.csv", index=False)
    stored = table[1:]
    rows = [
        writer.add(s, "a", "X", rng.normal(0, 1, shape), np.ones(shape, bool))
        for s in stored["subject_id"]
    ]
    writer.write_index(pd.DataFrame(rows))
    table[:1].assign(reason="truncated").to_csv(tmp_path / "store" / "failed.csv", index=False)
    table[1:2].assign(reason="motion").to_csv(tmp_path / "store" / "exclusions.csv", index=False)
    (tmp_path / "run").mkdir()
    table[2:5].assign(label=1).to_csv(tmp_path / "run" / "cohort.csv", index=False)
    arguments = ["--store", str(tmp_path / "store"), "--run", str(tmp_path / "run")]
    assert main(["cohort", "flow", str(tmp_path / "cohort.csv"), *arguments]) == 0
    assert "| analysed" in capsys.readouterr().out
    made = flow.read(tmp_path / "flow_to_end.csv")
    lost = made[(made["step"] == "excluded") & (made["n"] > 0)]
    assert lost[["reason", "class", "n"]].values.tolist() == [
        ["failed preprocessing", "A", 1],
        ["excluded by quality control", "B", 1],
        ["class not asked for", "C", 1],
    ]
    assert made[made["stage"] == "analysed"]["n"].tolist() == [1, 2, 1, 0]
    assert (tmp_path / "flow_to_end.png").exists()
    # A run of the scan that was excluded, and one of a scan in another class than the table's.
    everyone = ["cohort", "flow", str(tmp_path / "cohort.csv"), *arguments]
    table[1:5].assign(label=1).to_csv(tmp_path / "run" / "cohort.csv", index=False)
    assert main(everyone) == 2
    said = capsys.readouterr().err
    assert "--run: 1 of its 4 scans is excluded by quality control" in said
    assert "p1 a; run the study again with the table of qc --cohort-out" in said
    table[2:5].assign(diagnosis="B").to_csv(tmp_path / "run" / "cohort.csv", index=False)
    assert main(everyone) == 2
    assert "2 of its 3 scans are not in" in capsys.readouterr().err


@pytest.mark.slow
def test_a_hundred_thousand_visits_take_under_ten_seconds(tmp_path, rng):
    import time

    people, codes = 14_286, np.array(["bl", "m06", "m12", "m18", "m24", "m36", "m48"])
    rid = np.repeat(np.arange(1, people + 1), 7)
    start = pd.Timestamp("2006-01-01") + pd.to_timedelta(
        np.repeat(rng.integers(0, 700, people), 7), "D"
    )
    months = np.tile([0, 6, 12, 18, 24, 36, 48], people)
    names = [f"{number % 140 + 1:03d}_S_{number:05d}" for number in rid]
    phase = np.array(["ADNI1", "ADNI2", "ADNI3"])[rid % 3]
    (tmp_path / "tables").mkdir()
    pd.DataFrame(
        {
            "RID": rid, "PTID": names, "COLPROT": phase, "ORIGPROT": phase,
            "VISCODE": np.tile(codes, people), "EXAMDATE_bl": start.strftime("%Y-%m-%d"),
            "EXAMDATE": (start + pd.to_timedelta(months * 30, "D")).strftime("%Y-%m-%d"),
            "DX_bl": np.array(["CN", "LMCI", "AD"])[rid % 3],
            "DX": rng.choice(["CN", "MCI", "Dementia"], len(rid)), "AGE": 70.1,
            "PTGENDER": np.array(["Male", "Female"])[rid % 2], "PTEDUCAT": 16,
            **{f"x{i}": "0.123" for i in range(90)},
        }
    ).to_csv(tmp_path / "tables" / "ADNIMERGE.csv", index=False)  # fmt: skip
    for name, day in zip(names[::7], start[::7], strict=True):
        folder = (
            tmp_path / "images" / name / "MPRAGE" / f"{day:%Y-%m-%d}_09_00_00.0" / f"I{name[6:]}"
        )
        folder.mkdir(parents=True)
        (folder / "a.nii").touch()
    begun = time.process_time()
    arguments = ["--tables", str(tmp_path / "tables"), "--images", str(tmp_path / "images")]
    assert main(["cohort", "adni", *arguments, "--out", str(tmp_path / "cohort.csv")]) == 0
    assert time.process_time() - begun < 10
    found = flow.read(tmp_path / "flow.csv")
    assert found.loc[found["step"] == "found", "n"].sum() == people
