"""ABIDE, PPMI, OASIS-3 and NACC: small generated downloads, through to a plan."""

import re
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from cohort import small_archives
from mri_jax.cli import main
from mri_jax.cohort import flow as flows
from mri_jax.cohort.archives import ARCHIVES
from mri_jax.cohort.sheets import Reading
from mri_jax.cohort.table import read_table
from mri_jax.errors import UserError
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.planner import make_plan
from mri_jax.volumes.grids import grid_named
from tests import studies

TODAY = date(2026, 11, 29)
# The two classes, and how many of each the generated download has in each cohort.
TASKS = {
    "abide": ("ASD", "TC", {("NYU", "ASD"): 6, ("NYU", "TC"): 6, ("UM_1", "ASD"): 6,
                            ("UM_1", "TC"): 6, ("SBL", "ASD"): 3}),
    "ppmi": ("PD", "HC", {("PPMI-10", "PD"): 3, ("PPMI-10", "HC"): 4, ("PPMI-290", "PD"): 4,
                          ("PPMI-290", "HC"): 4}),
    "oasis3": ("AD", "CN", {("OASIS3", "AD"): 3, ("OASIS3", "CN"): 3}),
    "nacc": ("AD", "CN", {("NACC-100", "AD"): 2, ("NACC-100", "CN"): 2, ("NACC-101", "AD"): 1,
                          ("NACC-101", "CN"): 1}),
}  # fmt: skip


def download(folder: Path, archive: str) -> small_archives.Tables:
    """Write a download; returns its tables."""
    tables = getattr(small_archives, archive)(folder)
    small_archives.write(folder, tables)
    return tables


def make(folder: Path, archive: str, *options: str) -> pd.DataFrame:
    out = folder / "cohort.csv"
    images, tables = folder / "images", folder / "tables"
    given = ["--tables", str(tables), "--images", str(images), "--out", str(out), *options]
    assert main(["cohort", archive, *given]) == 0
    return read_table(out)


def fault(folder: Path, archive: str, **options) -> str:
    """The message with which a download is refused."""
    reading = Reading(TODAY, days=ARCHIVES[archive].days, **options)
    with pytest.raises(UserError) as refused:
        ARCHIVES[archive].read(folder / "tables", folder / "images", reading)
    return str(refused.value)


@pytest.mark.parametrize("archive", ARCHIVES)
def test_a_download_becomes_a_table_and_a_plan(tmp_path, archive, capsys):
    download(tmp_path, archive)
    table = make(tmp_path, archive)
    positive, negative, counts = TASKS[archive]
    of_task = table[table["diagnosis"].isin([positive, negative])]
    assert of_task.groupby(["cohort", "diagnosis"]).size().to_dict() == counts
    assert table["age"].notna().all()
    assert set(table["sex"]) == {"F", "M"}
    flow = flows.read(tmp_path / "flow.csv")
    assert flow.loc[flow["step"] == "kept", "n"].sum() == len(table)
    assert "next: python -m mri_jax preprocess" in capsys.readouterr().out

    frame = table.sort_values(["subject_id", "session_id"], ignore_index=True)
    if archive == "oasis3":  # one cohort: its last person with each class is a target
        last = of_task.groupby("diagnosis")["subject_id"].max()
        frame.loc[frame["subject_id"].isin(last), "cohort"] = "LATER"
    source, target = sorted(frame["cohort"].unique(), reverse=archive == "oasis3")[:2]
    study = studies.study(
        "baseline", source__cohorts=(source,), targets=(target,), train__folds=2,
        data__cohort=str(tmp_path / "cohort.csv"), data__store=str(tmp_path),
        task__positive=positive, task__negative=negative, baselines__voxels=False,
    )  # fmt: skip
    identity = frame["subject_id"]
    catalogue = Catalogue(
        frame.assign(identity=identity), grid_named("demo"), False, False, pd.DataFrame()
    )
    used = frame.loc[make_plan(study, catalogue).rows()]
    assert set(used["cohort"]) == {source, target}
    assert set(used["diagnosis"]) == {positive, negative}


def test_abide_reads_every_layout_the_age_at_the_scan_and_the_group(tmp_path):
    download(tmp_path, "abide")
    table = make(tmp_path, "abide").set_index("subject_id")
    endings = table.groupby("cohort")["image"].agg(lambda paths: {Path(p).name for p in paths})
    assert endings["UM_1"] == {"mprage.nii.gz"}
    assert endings["SBL"] == {"orig.mgz"}
    assert table.loc["sub-ABIDE50002", "age"] == 10.5
    assert table.loc["sub-ABIDE50003", "age"] == 10.25
    assert table.loc["sub-ABIDE50002", "group"] == "autism"
    assert table["fiq"].between(100, 104).all()


def test_a_code_of_the_user_is_one_of_the_classes(tmp_path):
    frame = download(tmp_path, "abide")[PHENOTYPES]
    small_archives.write(tmp_path, {PHENOTYPES: frame.assign(DX_GROUP=frame["DX_GROUP"] + 1)})
    told = fault(tmp_path, "abide", codes={"3": "FOO"})
    assert told == "--code: 3=FOO: 'FOO' must be one of ASD, TC, missing"
    make(tmp_path, "abide", "--code=3=missing")


def test_sites_get_other_names_and_a_site_of_one_class_is_named(tmp_path, capsys):
    download(tmp_path, "abide")
    table = make(tmp_path, "abide", "--site", "UM_1=UM", "--site", "SBL=UM")
    assert table["cohort"].value_counts().to_dict() == {"UM": 15, "NYU": 12}
    make(tmp_path, "abide")
    assert "note: SBL has ASD alone: it can be trained on, not tested" in capsys.readouterr().out


def test_both_releases_of_abide_are_read_beside_each_other(tmp_path):
    first = download(tmp_path, "abide")["Phenotypic_V1_0b_preprocessed1.csv"]
    second = first.head(4).assign(
        SUB_ID=[29006, 29007, 29008, 28675], SITE_ID="ABIDEII-BNI_1",
        **{"AGE_AT_SCAN ": first["AGE_AT_SCAN"], "PDD_DSM_IV_TR": 0},
    ).drop(columns=["AGE_AT_SCAN", "DSM_IV_TR"])  # fmt: skip
    small_archives.write(tmp_path, {"ABIDEII_Composite_Phenotypic.csv": second})
    small_archives.touch(tmp_path, "ABIDEII-BNI_1/29006/session_1/anat_1/anat.nii.gz")
    table = make(tmp_path, "abide")
    assert table["cohort"].value_counts()["ABIDEII-BNI_1"] == 1
    assert len(table) == 28


def test_ppmi_keeps_prodromal_and_swedd_apart_and_leaves_out_who_was_not_enrolled(tmp_path):
    download(tmp_path, "ppmi")
    table = make(tmp_path, "ppmi")
    assert table["diagnosis"].value_counts().to_dict() == {
        "HC": 8, "PD": 7, "Prodromal": 4, "SWEDD": 3
    }  # fmt: skip
    excluded = pd.read_csv(tmp_path / "excluded.csv", index_col="subject_id")
    left_out = excluded["detail"]
    assert excluded.loc["sub-PPMI3000", ["reason", "group"]].tolist() == ["not enrolled", "PD"]
    assert left_out["sub-PPMI3000"] == "enrolment status declined"
    assert left_out["sub-PPMI3161"] == "enrolment status screened"
    row = table.set_index("subject_id").loc["sub-PPMI3007"]
    assert (row["manufacturer"], row["model"], row["field_strength"]) == ("SIEMENS", "TrioTim", 3)
    # Enrolled in February at 55.5, scanned five days after the middle of the month.
    assert row["age"] == pytest.approx(55.5 + 5 / 365.25, abs=0.01)


def test_ppmi_without_centres_is_one_cohort_and_words_explain_a_code_of_their_own(tmp_path):
    tables = download(tmp_path, "ppmi")
    (tmp_path / "tables" / "Center-Subject_List.csv").unlink()
    name = "Participant_Status_28Nov2026.csv"
    status = tables[name].astype(object)
    status.loc[1, ["COHORT", "COHORT_DEFINITION"]] = [9, "Early Imaging"]
    small_archives.write(tmp_path, {name: status})
    table = make(tmp_path, "ppmi").set_index("subject_id")
    assert set(table["cohort"]) == {"PPMI"}
    assert table.loc["sub-PPMI3007", "diagnosis"] == "EarlyImaging"


@pytest.mark.parametrize("archive", ["oasis3", "nacc"])
def test_the_visit_nearest_to_the_scan_labels_and_later_ones_tell_progression(tmp_path, archive):
    download(tmp_path, archive)
    table = make(tmp_path, archive)
    name = {"oasis3": "sub-OAS3{:04d}", "nacc": "sub-NACC{}"}[archive]
    first = {"oasis3": 1, "nacc": 100000}[archive]
    truth = {name.format(first + i): label for i, _, _, label in small_archives.courses(24)}
    found = table.set_index("subject_id")["diagnosis"].to_dict()
    assert found == {subject: label for subject, label in truth.items() if label}
    rows = table.set_index("subject_id")
    nearer = rows.loc[name.format(first + 1)]
    assert nearer["days_from_baseline"] == -20
    assert nearer["age"] == pytest.approx({"oasis3": 71.10, "nacc": 71}[archive] - 0.05, abs=0.01)
    told = pd.read_csv(tmp_path / "excluded.csv", index_col="subject_id")["detail"]
    assert "nearest: 700 days after; --days 700" in told[name.format(first + 6)]


def test_oasis3_takes_the_first_run_of_the_first_scanned_day_with_its_scanner(tmp_path):
    download(tmp_path, "oasis3")
    table = make(tmp_path, "oasis3").set_index("subject_id")
    row = table.loc["sub-OAS30001"]
    assert row["session_id"] == "ses-d0100"
    assert row["image"].endswith("sub-OAS30001_ses-d0100_run-01_T1w.nii.gz")
    assert (row["manufacturer"], row["model"], row["field_strength"]) == ("Siemens", "TrioTim", 3)
    assert (row["mmse"], row["cdr"], row["education"]) == (29, 0.5, 16)
    assert table["apoe4"].loc[["sub-OAS30001", "sub-OAS30002", "sub-OAS30003"]].tolist() == [
        0,
        1,
        2,
    ]


def test_oasis3_has_no_diagnosis_where_two_states_are_marked(tmp_path):
    tables = download(tmp_path, "oasis3")
    forms = tables["UDSd1/csv/OASIS3_UDSd1_diagnoses.csv"]
    forms.loc[0, "DEMENTED"] = 1
    small_archives.write(tmp_path, {"UDSd1/csv/OASIS3_UDSd1_diagnoses.csv": forms})
    # The scan of day 390 then is the first with a diagnosed visit, of day 400.
    row = make(tmp_path, "oasis3", "--mci", "baseline").set_index("subject_id").loc["sub-OAS30001"]
    assert (row["session_id"], row["diagnosis"]) == ("ses-d0390", "MCI")


def test_nacc_takes_the_series_called_mprage_and_reads_its_missing_codes(tmp_path):
    download(tmp_path, "nacc")
    table = make(tmp_path, "nacc").set_index("subject_id")
    assert set(table["image"].map(lambda path: Path(path).name)) == {"s1.nii"}
    assert table["field_strength"].value_counts().to_dict() == {1.5: 9, 3.0: 9}
    assert set(table["manufacturer"]) == {"GE", "Siemens", "Philips"}
    rows = table.loc[["sub-NACC100001", "sub-NACC100002", "sub-NACC100003"]]
    assert rows["education"].isna().tolist() == [True, False, False]
    assert rows["mmse"].isna().tolist() == [False, True, False]
    assert rows["apoe4"].isna().tolist() == [False, False, True]


def test_a_wide_table_is_read_by_its_columns_alone(tmp_path, monkeypatch):
    tables = download(tmp_path, "nacc")
    before = make(tmp_path, "nacc")
    wide = tables["investigator_nacc63.csv"].assign(
        NOTE="a, b\nc", **{f"X{i}": i for i in range(9)}
    )
    small_archives.write(tmp_path, {"investigator_nacc63.csv": wide})
    monkeypatch.setattr("mri_jax.files.TABLE_BYTES", 3000)
    pd.testing.assert_frame_equal(make(tmp_path, "nacc"), before)
    path = tmp_path / "tables" / "investigator_nacc63.csv"
    path.write_text(path.read_text(encoding="utf-8") + "NACC1,2\n", encoding="utf-8")
    assert "has 2 cells, the header has" in fault(tmp_path, "nacc")


PHENOTYPES, STATUS = "Phenotypic_V1_0b_preprocessed1.csv", "Participant_Status_28Nov2026.csv"
FORMS, VISITS = "UDSd1/csv/OASIS3_UDSd1_diagnoses.csv", "investigator_nacc63.csv"


@pytest.mark.parametrize(
    ("archive", "table", "column", "value", "message"),
    [
        (
            "abide",
            PHENOTYPES,
            "SITE_ID",
            "nyu",
            "'nyu' is NYU but for its spelling; .*--site nyu=NYU",
        ),
        (
            "abide",
            PHENOTYPES,
            "DX_GROUP",
            3,
            "'3' is unknown; known: -9999, 1, 2; name others: --code",
        ),
        ("abide", PHENOTYPES, "SEX", 0, "'0' is unknown; known: -9999, 1, 2$"),
        ("abide", PHENOTYPES, "AGE_AT_SCAN", 640, "must lie between 0 and 120"),
        ("abide", PHENOTYPES, "SUB_ID", "x1", "'x1' is no id of a subject, such as 50002"),
        ("abide", PHENOTYPES, "SITE_ID", "", "is missing: every subject belongs to a site"),
        ("ppmi", STATUS, "COHORT", 5, "'5' is unknown; known: 1, 2, 3, 4"),
        ("ppmi", STATUS, "COHORT", 1, "'1' is not HC, as COHORT_DEFINITION says"),
        ("ppmi", STATUS, "ENROLL_STATUS", "lost", "'lost' is unknown; known: enrolled, withdrew"),
        ("ppmi", STATUS, "ENROLL_DATE", "13/2012", "'13/2012' is no month from 1990"),
        ("oasis3", FORMS, "DEMENTED", 2, "'2' is unknown; known: 0, 1; name others: --code"),
        ("oasis3", FORMS, "days_to_visit", "-5", "must lie between 0 and"),
        ("nacc", VISITS, "NACCUDSD", 5, "'5' is unknown; known: 1, 2, 3, 4"),
        ("nacc", VISITS, "VISITDAY", 31, "is no day of that month|^$"),
        ("nacc", VISITS, "NACCALZP", 4, "'4' is unknown; known: 1, 2, 3, 7, 8"),
    ],
)
def test_a_faulty_cell_is_one_line_with_file_row_column_and_rule(
    tmp_path, archive, table, column, value, message
):
    frame = download(tmp_path, archive)[table].astype(object)
    frame.loc[3, column] = value
    if column == "VISITDAY":
        frame.loc[3, "VISITMO"] = 2
    small_archives.write(tmp_path, {table: frame})
    told = fault(tmp_path, archive).splitlines()
    assert len(told) == 1
    assert f"{table}: row 5: column {column}: " in told[0]
    assert re.search(message, told[0])


@pytest.mark.parametrize(
    ("archive", "table", "site", "person", "value"),
    [
        ("abide", PHENOTYPES, "SITE_ID", "SUB_ID", "UM_1"),
        ("ppmi", "Center-Subject_List.csv", "CNO", "PATNO", 290),
        ("nacc", VISITS, "NACCADC", "NACCID", 101),
    ],
)
def test_a_subject_at_two_sites_is_refused(tmp_path, archive, table, site, person, value):
    frame = download(tmp_path, archive)[table].astype(object)
    again = frame.head(1).assign(**{site: value})
    small_archives.write(tmp_path, {table: pd.concat([frame, again])})
    told = fault(tmp_path, archive)
    assert f"column {site}: '{value}' is of sub-" in told
    assert "in another row: one site a subject" in told


def test_a_table_that_is_missing_beside_others_of_its_archive_is_named_alone(tmp_path):
    download(tmp_path, "ppmi")
    (tmp_path / "tables" / "Demographics_28Nov2026.csv").unlink()
    told = fault(tmp_path, "ppmi")
    assert "has no Demographics.csv" in told
    assert "a table of" not in told


def test_a_phenotype_table_is_known_by_its_name_and_told_what_it_lacks(tmp_path):
    frame = download(tmp_path, "abide")[PHENOTYPES]
    small_archives.write(tmp_path, {PHENOTYPES: frame.drop(columns="DX_GROUP")})
    assert "column DX_GROUP is missing; found SITE_ID, SUB_ID" in fault(tmp_path, "abide")
    path = tmp_path / "tables" / PHENOTYPES
    frame.to_csv(path, index=False, sep=";")
    assert "row 1: separated by ';'; must be" in fault(tmp_path, "abide")
    path.unlink()
    small_archives.write(tmp_path, {"ABIDEII_Long_Composite_Phenotypic.csv": frame})
    assert "(the longitudinal sample is not read)" in fault(tmp_path, "abide")


def test_a_field_strength_is_asked_of_a_cohort_that_is_there(tmp_path, capsys):
    download(tmp_path, "nacc")
    given = [f"--{name}={tmp_path / name}" for name in ("tables", "images")]
    given += [f"--out={tmp_path / 'cohort.csv'}", "--field", "NACC-999=3"]
    assert main(["cohort", "nacc", *given]) == 2
    said = capsys.readouterr().err
    assert said == "error: --field: 'NACC-999' is no cohort of it: NACC-100, NACC-101\n"


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_tables_of_another_archive_are_named(tmp_path, archive):
    download(tmp_path, archive)
    other = next(name for name in ARCHIVES if name != archive)
    download(tmp_path / "other", other)
    for path in (tmp_path / "tables").rglob("*.csv"):
        path.unlink()
    for path in (tmp_path / "other" / "tables").rglob("*.csv"):
        path.rename(tmp_path / "tables" / path.name)
    assert f"a table of {other.upper()} is there: cohort {other}" in fault(tmp_path, archive)


def test_a_table_of_another_archive_under_the_right_name_is_refused(tmp_path):
    tables = download(tmp_path, "oasis3")
    ppmi = small_archives.ppmi(tmp_path / "other")
    small_archives.write(tmp_path, {FORMS: ppmi["Demographics_28Nov2026.csv"]})
    assert "UDSd1_diagnoses.csv: is a table of PPMI: cohort ppmi reads it" in fault(
        tmp_path, "oasis3"
    )
    forms = tables[FORMS].drop(columns=["NORMCOG", "DEMENTED"])
    small_archives.write(tmp_path, {FORMS: forms})
    assert "columns NORMCOG, DEMENTED are missing; found OASISID" in fault(tmp_path, "oasis3")


def test_scans_of_two_people_and_folders_without_scans_are_refused(tmp_path):
    download(tmp_path, "abide")
    small_archives.touch(tmp_path, "NYU/sub-0050002/anat/sub-0050099_T1w.nii.gz")
    assert "are of sub-ABIDE50002 and sub-ABIDE50099; which is right?" in fault(tmp_path, "abide")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"has no T1w scan \(looked for sub-\*/anat"):
        ARCHIVES["abide"].read(tmp_path / "tables", empty, Reading(TODAY))


def test_a_site_that_is_renamed_must_be_there(tmp_path):
    download(tmp_path, "abide")
    told = fault(tmp_path, "abide", sites={"NYC": "NYU"})
    assert "column SITE_ID: 'NYC' of --site is no site of it: NYU, UM_1, SBL" in told
