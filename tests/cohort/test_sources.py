"""ADNI and AIBL from generated downloads, against the truth that was written with them."""

import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from cohort.generated_adni import write_adni
from cohort.generated_aibl import write_aibl
from mri_jax.cohort import adni, aibl, flow
from mri_jax.cohort.assemble import Assembled, SubjectSelection, assemble
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.sheets import Reading
from mri_jax.cohort.table import validate
from mri_jax.errors import UserError
from mri_jax.problems import TableError

TODAY = date(2026, 1, 1)


def from_adni(
    folder: Path,
    rules: LabelRules | None = None,
    selection: SubjectSelection | None = None,
    **options: str,
) -> Assembled:
    source = adni.read(folder / "tables", folder / "images", adni.AdniOptions(**options), TODAY)
    choice = ImageChoice(field=adni.FIELD)
    return assemble(source, rules or LabelRules(), choice, selection or SubjectSelection())


def from_aibl(folder: Path) -> Assembled:
    source = aibl.read(folder / "tables", folder / "images", Reading(TODAY))
    return assemble(source, LabelRules(), ImageChoice(), SubjectSelection())


def disagreements(truth: pd.DataFrame, made: Assembled) -> list[list[str]]:
    kept = made.table.assign(label=made.table["diagnosis"], reason="")
    lost = made.excluded.assign(label="", image_id="")
    both = pd.concat([kept, lost])[["subject_id", "cohort", "label", "reason", "image_id"]]
    assert not both.duplicated(["subject_id", "cohort"]).any()
    merged = truth.fillna("").merge(
        both, on=["subject_id", "cohort"], how="outer", suffixes=("", "_made"), indicator=True
    )
    wrong = merged["_merge"] != "both"
    for name in ("label", "reason", "image_id"):
        wrong |= merged[name] != merged[f"{name}_made"]
    return merged.loc[wrong, ["subject_id", "cohort", "story"]].astype(str).values.tolist()


@pytest.fixture(scope="module")
def adni_download(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("adni")
    return folder, write_adni(folder, 110, seed=5)


@pytest.fixture(scope="module")
def aibl_download(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("aibl")
    return folder, write_aibl(folder, 30, seed=5)


def test_adni_subjects_are_what_the_truth_says(adni_download):
    folder, truth = adni_download
    made = from_adni(folder)
    assert disagreements(truth, made) == []
    counts = made.flow[made.flow["step"] == "found"].set_index("cohort")["n"].to_dict()
    assert counts == truth.groupby("cohort").size().to_dict()
    reasons = made.flow[(made.flow["step"] == "excluded") & (made.flow["n"] > 0)]
    by_reason = reasons.groupby("reason")["n"].sum().to_dict()
    assert by_reason == truth[truth["reason"] != ""]["reason"].value_counts().to_dict()
    stated = truth[(truth["deciding"] != "") & (truth["label"] != "")]
    said = made.table.set_index(["subject_id", "cohort"])["deciding_visits"]
    assert [said[s, c] for s, c in stated[["subject_id", "cohort"]].values] == stated[
        "deciding"
    ].tolist()
    validate(made.table, "table")


def test_aibl_subjects_are_what_the_truth_says(aibl_download):
    folder, truth = aibl_download
    made = from_aibl(folder)
    assert disagreements(truth, made) == []
    table = made.table.set_index("subject_id")
    strength = {1.5: 1, 3.0: 3}
    plain = [s for s in table.index if int(s.removeprefix("sub-AIBL")) % 4 == 1]
    assert {strength[f] for f in table.loc[plain, "field_strength"].dropna()} == {3}
    assert table["age"].notna().all()
    assert table["age"].between(55, 90).all()


def test_the_order_of_rows_and_columns_does_not_matter(adni_download, tmp_path):
    folder, _ = adni_download
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in (folder / "tables").glob("*.csv"):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame = frame.sample(frac=1, random_state=3)[sorted(frame.columns, key=str.lower)]
        frame.to_csv(tables / path.name, index=False)
    first = from_adni(folder)
    source = adni.read(tables, folder / "images", adni.AdniOptions(), TODAY)
    again = assemble(source, LabelRules(), ImageChoice(field=adni.FIELD), SubjectSelection())
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.excluded, again.excluded)


def test_options_of_groups_phases_and_diagnosis(adni_download):
    folder, truth = adni_download
    story = truth.set_index(["subject_id", "cohort"])["story"]
    kept = from_adni(folder, selection=SubjectSelection(exclude_groups=())).table
    smc = [
        s for s, c in zip(kept["subject_id"], kept["cohort"], strict=True) if story[s, c] == "smc"
    ]
    assert len(smc) == (truth["story"] == "smc").sum() > 0
    kept = from_adni(folder, selection=SubjectSelection(continuing="keep")).table
    assert kept["subject_id"].duplicated().sum() > 0
    late = kept[(kept["cohort"] == "ADNI2") & kept["subject_id"].duplicated(keep=False)]
    assert set(late["session_id"]) == {"ses-M072"}
    as_adni2 = from_adni(folder, adnigo="ADNI2").table
    assert set(as_adni2["cohort"]) == {"ADNI1", "ADNI2", "ADNI3"}
    without = from_adni(folder, adnigo="exclude")
    assert "ADNIGO" not in set(without.flow["cohort"])
    screened = from_adni(folder, diagnosis="screening").table
    label = screened.set_index(["subject_id", "cohort"])["diagnosis"]
    named = truth[truth["story"] == "smci-screened-ad"][["subject_id", "cohort"]].values
    assert {label[s, c] for s, c in named} == {"AD"}


def test_dxsum_gives_the_same_labels_as_adnimerge(adni_download, tmp_path):
    folder, _ = adni_download
    merged = pd.read_csv(
        folder / "tables" / "ADNIMERGE_01Jan2025.csv", dtype=str, keep_default_na=False
    ).drop_duplicates()
    number = {"CN": "1", "MCI": "2", "Dementia": "3", "": "-4"}
    dx = merged["DX"].map(number)
    early, middle = merged["COLPROT"] == "ADNI1", merged["COLPROT"].isin(["ADNIGO", "ADNI2"])
    rows = pd.DataFrame(
        {
            "Phase": merged["COLPROT"], "RID": merged["RID"], "PTID": merged["PTID"],
            "VISCODE": merged["VISCODE"], "VISCODE2": merged["VISCODE"],
            "EXAMDATE": merged["EXAMDATE"], "DXCURREN": dx.where(early, ""),
            "DXCHANGE": dx.where(middle, ""), "DIAGNOSIS": dx.where(~early & ~middle, ""),
        }
    )  # fmt: skip
    rows.to_csv(tmp_path / "DXSUM_01Jan2025.csv", index=False)
    people = merged.drop_duplicates("RID")
    pd.DataFrame(
        {"RID": people["RID"], "PTGENDER": people["PTGENDER"].map({"Male": "1", "Female": "2"}),
         "PTDOBYY": "1940", "PTEDUCAT": people["PTEDUCAT"]}
    ).to_csv(tmp_path / "PTDEMOG.csv", index=False)  # fmt: skip
    for name in ("MPRAGEMETA.csv", "MRIQUALITY.csv", "MAYOADIRL_MRI_IMAGEQC_12_08_15.csv"):
        (tmp_path / name).write_bytes((folder / "tables" / name).read_bytes())
    source = adni.read(tmp_path, folder / "images", adni.AdniOptions(), TODAY)
    made = assemble(source, LabelRules(), ImageChoice(field=adni.FIELD), SubjectSelection())
    # SMC is unknown to DXSUM: these count as CN.
    reference = from_adni(folder, selection=SubjectSelection(exclude_groups=()))
    columns = ["subject_id", "cohort", "diagnosis", "image_id", "sex"]
    pd.testing.assert_frame_equal(made.table[columns], reference.table[columns])
    assert made.table["age"].between(60, 85).all()


def test_all_problems_of_all_files_are_reported_at_once(adni_download, tmp_path):
    folder, _ = adni_download
    for path in (folder / "tables").glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "ADNIMERGE_01Jan2025.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    first = frame.iloc[[0]].assign(DX="MCI", VISCODE="m240", EXAMDATE="2005-13-40")
    wrong = [
        first.assign(EXAMDATE="2091-01-01", VISCODE="m241"),
        first.assign(DX="Dementiaa", VISCODE="m242", EXAMDATE=""),
        first.assign(DX="=1+1", VISCODE="m243", EXAMDATE=""),
        first.assign(AGE="old", VISCODE="m244", EXAMDATE=""),
        first.assign(PTID="2S295", VISCODE="m245", EXAMDATE=""),
        first.assign(RID="9999", VISCODE="m246", EXAMDATE=""),
        first.assign(COLPROT="ADNI9", VISCODE="m247", EXAMDATE=""),
        frame.iloc[[0]].assign(PTEDUCAT="3"),
    ]
    pd.concat([frame, first, *wrong]).to_csv(path, index=False)
    search = tmp_path / "images.csv"
    search.write_text(
        "Image Data ID,Subject,Description,Acq Date\nIx7,002_S_0295,MPRAGE,3/1/2007\n"
        "I8,002_S_0295,MPRAGE,31/12/2007\nI9,002_S_0295,MPRAGE,3/31/2007\n",
        encoding="utf-8",
    )
    with pytest.raises(TableError) as error:
        adni.read(tmp_path, folder / "images", adni.AdniOptions(), TODAY)
    found = {(Path(p.file).name, p.column, p.value) for p in error.value.problems}
    assert found >= {
        ("ADNIMERGE_01Jan2025.csv", "EXAMDATE", "2005-13-40"),
        ("ADNIMERGE_01Jan2025.csv", "EXAMDATE", "2091-01-01"),
        ("ADNIMERGE_01Jan2025.csv", "DX", "Dementiaa"),
        ("ADNIMERGE_01Jan2025.csv", "DX", "=1+1"),
        ("ADNIMERGE_01Jan2025.csv", "AGE", "old"),
        ("ADNIMERGE_01Jan2025.csv", "PTID", "2S295"),
        ("ADNIMERGE_01Jan2025.csv", "RID", "9999"),
        ("ADNIMERGE_01Jan2025.csv", "COLPROT", "ADNI9"),
        ("ADNIMERGE_01Jan2025.csv", "PTEDUCAT", "3"),
        ("images.csv", "image id", "Ix7"),
        ("images.csv", "date", "31/12/2007"),
    }
    row = next(p.row for p in error.value.problems if p.value == "Dementiaa")
    assert row == len(frame) + 4
    assert f"row {row}: column DX: 'Dementiaa' is unknown; known: CN" in str(error.value)


def test_a_code_can_be_given_a_meaning(aibl_download, tmp_path):
    folder, _ = aibl_download
    for path in (folder / "tables").glob("*.csv"):
        text = path.read_text(encoding="utf-8")
        if "pdxconv" in path.name:
            text = text.replace("18,1\n", "18,7\n").replace("m18,1", "m18,7")
            assert ",7" in text
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    with pytest.raises(TableError, match="column DXCURREN: '7' is unknown; known: 1, 2, 3"):
        aibl.read(tmp_path, folder / "images", Reading(TODAY))
    aibl.read(tmp_path, folder / "images", Reading(TODAY, codes={"7": "missing"}))


def test_a_visit_without_date_has_that_of_another_table(aibl_download, tmp_path):
    folder, truth = aibl_download
    shutil.copytree(folder, tmp_path / "aibl")
    tables = tmp_path / "aibl" / "tables"
    subject = truth.loc[truth["story"] == "unscanned", "subject_id"].iloc[0]
    rid = int(subject.removeprefix("sub-AIBL"))
    for name, day in (("neurobat", "-4"), ("cdr", "03/21/2008")):
        path = next(tables.glob(f"aibl_{name}_*.csv"))
        rows = pd.read_csv(path, dtype=str)
        if "EXAMDATE" not in rows:
            rows["EXAMDATE"] = "-4"
        rows.loc[(rows["RID"] == str(rid)) & (rows["VISCODE"] == "bl"), "EXAMDATE"] = day
        rows.to_csv(path, index=False)
    visits = aibl.read(tables, tmp_path / "aibl" / "images", Reading(TODAY)).visits
    visit = visits[(visits["subject_id"] == subject) & (visits["code"] == "bl")].iloc[0]
    assert visit["date"] == pd.Timestamp(2008, 3, 21)
    assert visit["age"] == pytest.approx(2008 + 80 / 366 - visit["born"], abs=0.01)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder of tables"):
        adni.read(tmp_path / "none", tmp_path, adni.AdniOptions(), TODAY)
    with pytest.raises(UserError, match=r"has no ADNIMERGE.csv or DXSUM.csv"):
        adni.read(tmp_path, tmp_path, adni.AdniOptions(), TODAY)
    with pytest.raises(UserError, match="has neither aibl_mrimeta"):
        aibl.read(tmp_path, tmp_path, Reading(TODAY))


def test_the_flow_adds_up_and_counts_each_subject_once(adni_download):
    folder, truth = adni_download
    made = from_adni(folder)
    flow.check(made.flow, "flow")
    assert len(made.table) + len(made.excluded) == len(truth)


def test_images_of_a_bids_tree_are_matched_by_visit(adni_download, tmp_path):
    folder, _ = adni_download
    reference = from_adni(folder).table
    for spelling, subject in enumerate(reference["subject_id"]):
        session = ("ses-M00", "ses-m000")[spelling % 2]
        anat = tmp_path / subject / session / "anat"
        anat.mkdir(parents=True)
        (anat / f"{subject}_{session}_T1w.nii.gz").touch()
    source = adni.read(folder / "tables", tmp_path, adni.AdniOptions(), TODAY)
    made = assemble(source, LabelRules(), ImageChoice(level="bids"), SubjectSelection())
    columns = ["subject_id", "cohort", "diagnosis"]
    pd.testing.assert_frame_equal(made.table[columns], reference[columns])
