"""ADNI's tables as people have them: names, ids, dates, codes, labels; one small download each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_jax.cohort import adni
from mri_jax.cohort.assemble import REASONS
from mri_jax.errors import UserError
from mri_jax.problems import TableError
from tests.cohort.small_adni import (
    RIGHT,
    TODAY,
    adnimerge,
    download,
    dxsum,
    labels,
    made,
    ptdemog,
    scan,
    write,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    return download(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["DXSUM.csv", "DXSUM_PDXCONV.csv", "DXSUM_PDXCONV_23Jul2024.csv", "dxsum.csv",
     "DXSUM_PDXCONV_ADNIALL.csv", "DXSUM_1Jan2025 (1).csv"],
)  # fmt: skip
def test_every_name_of_dxsum(folder, name):
    write(folder, name, dxsum())
    write(folder, "PTDEMOG_01Jan2025.csv", ptdemog())
    result = made(folder)
    assert labels(result) == RIGHT
    assert set(result.table["sex"]) == {"F"}


@pytest.mark.parametrize(
    ("table", "form"),
    [("PTDEMOG", "{}.0"), ("DXSUM", "{}.0"), ("PTDEMOG", "{:06d}"), ("DXSUM", " {} "),
     ("PTDEMOG", "'{}'")],
)  # fmt: skip
def test_tables_are_joined_by_the_number_of_a_rid(folder, table, form):
    frames = {"DXSUM": dxsum(), "PTDEMOG": ptdemog()}
    frames[table]["RID"] = [form.format(int(rid)) for rid in frames[table]["RID"]]
    for name, frame in frames.items():
        write(folder, f"{name}.csv", frame)
    rows = made(folder).table
    assert rows["sex"].tolist() == ["F"] * 3
    assert rows["education"].tolist() == [16.0] * 3
    assert rows["age"].round(1).tolist() == [75.7] * 3


def test_a_table_of_other_people_is_refused_with_examples_of_both_sides(folder):
    write(folder, "DXSUM.csv", dxsum())
    write(folder, "PTDEMOG.csv", ptdemog().assign(RID=["17", "18", "19"]))
    with pytest.raises(UserError) as error:
        made(folder)
    (line,) = str(error.value).splitlines()
    assert "PTDEMOG.csv: column RID: has nobody of" in line
    assert "DXSUM.csv: here 17, 18, 19, there 901, 902, 903" in line


def test_who_has_no_row_of_demographics_is_counted(folder):
    write(folder, "DXSUM.csv", dxsum())
    write(folder, "PTDEMOG.csv", ptdemog().iloc[:2])
    result = made(folder)
    assert result.table["sex"].tolist() == ["F", "F", ""]
    assert any("missing for 1 subject without a row in PTDEMOG.csv" in n for n in result.notes)


def test_images_of_other_people_are_refused(folder):
    write(folder, "ADNIMERGE.csv", adnimerge().assign(
        RID=lambda t: "7" + t["RID"], PTID=lambda t: "001_S_7" + t["RID"].str[1:]))  # fmt: skip
    with pytest.raises(
        UserError, match=r"has nobody of .*ADNIMERGE.csv: here 901, 902, 903, there 7"
    ):
        made(folder)


def test_the_export_of_r(folder):
    frame = adnimerge().rename(columns=lambda name: name.replace("_bl", ".bl")).replace("", "NA")
    frame.insert(0, "", range(1, len(frame) + 1))
    write(folder, "ADNIMERGE.csv", frame, quoting=1)
    assert labels(made(folder)) == RIGHT


@pytest.mark.parametrize(
    "spelling",
    ["001-S-0{}", "001S0{}", " 001_S_0{} ", "'001_S_0{}'", "sub-ADNI001S0{}", "001_s_0{}"],
)
def test_spellings_of_ptid(folder, spelling):
    write(folder, "ADNIMERGE.csv", adnimerge().assign(
        PTID=lambda t: [spelling.format(rid) for rid in t["RID"]]))  # fmt: skip
    assert labels(made(folder)) == RIGHT


def test_without_ptid_the_images_name_the_subjects(folder):
    scan(folder, "001_S_0904", "2006-03-14", 4009)
    extra = dxsum().iloc[:1].assign(RID="905", PTID="")
    write(folder, "DXSUM.csv", pd.concat([dxsum(), extra]).drop(columns="PTID"))
    write(folder, "PTDEMOG.csv", ptdemog())
    result = made(folder)
    assert labels(result) == RIGHT
    assert result.excluded[["subject_id", "reason"]].values.tolist() == [
        ["sub-ADNI0905", "no scan"]
    ]
    assert any("images of 1 subject are left out, not in DXSUM.csv" in note
               and "sub-ADNI001S0904" in note for note in result.notes)  # fmt: skip


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("DIAGNOSIS", ("CN", "MCI", "Dementia")),
        ("DIAGNOSIS", ("CN", "MCI", "DEM")),
        ("DIAGNOSIS", ("1.0", "2.0", "3.0")),
        ("DXCURREN", ("NL", "MCI", "AD")),
        ("DXCHANGE", ("Stable: NL to NL", "Stable: MCI to MCI", "Conversion: MCI to Dementia")),
        ("DXCHANGE", ("Stable: NL", "Conversion: NL to MCI", "Stable: Dementia")),
        ("DXCHANGE", ("7", "8", "5")),
        ("DXCHANGE", ("9", "4", "6")),
    ],
)
def test_diagnoses_of_every_phase_as_numbers_and_labels(folder, column, names):
    said = dict(zip("123", names, strict=True))
    frame = dxsum().rename(columns={"DIAGNOSIS": column}).replace({column: said})
    write(folder, "DXSUM.csv", frame)
    write(folder, "PTDEMOG.csv", ptdemog().assign(PTGENDER="Female"))
    result = made(folder)
    assert labels(result) == RIGHT
    assert set(result.table["sex"]) == {"F"}


def test_a_label_that_is_none_is_refused_as_it_stands(folder):
    write(folder, "DXSUM.csv", dxsum().replace({"DIAGNOSIS": {"3": "Stable: Happy"}}))
    with pytest.raises(TableError, match="'Stable: Happy' is unknown; known: 1, 2, 3, CN"):
        made(folder)
    assert "AD" in labels(made(folder, codes=(("Stable: Happy", "AD"),))).values()


def test_a_table_of_images_whose_days_are_turned_is_found_by_the_folders(folder):
    write(folder, "ADNIMERGE.csv", adnimerge())
    scan(folder, "001_S_0902", "2006-04-03", 4010)
    (folder / "images" / "search.csv").write_text(
        "Image Data ID,Subject,Description,Acq Date\nI4010,001_S_0902,MP-RAGE,03/04/2006\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match="I4010' is dated 2006-03-04 by the table and 2006-04-03"):
        made(folder)
    assert labels(made(folder, dates="day-first")) == RIGHT


def test_a_folder_named_by_no_date_is_named_unless_a_table_dates_the_image(folder):
    write(folder, "ADNIMERGE.csv", adnimerge())
    scan(folder, "001_S_0902", "2006-00-00", 4010)
    with pytest.raises(UserError, match=r"2006-00-00_08_00_00.0' is no date .folder of I4010"):
        made(folder)
    (folder / "images" / "search.csv").write_text(
        "Image Data ID,Subject,Description,Acq Date\nI4010,001_S_0902,MP-RAGE,3/14/2006\n",
        encoding="utf-8",
    )
    assert labels(made(folder)) == RIGHT


def test_an_image_of_two_people_is_refused(folder):
    write(folder, "ADNIMERGE.csv", adnimerge())
    (folder / "images" / "search.csv").write_text(
        "Image Data ID,Subject,Description,Acq Date\nI4000,001_S_0902,MP-RAGE,3/11/2006\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"I4000' is of several subjects: sub-ADNI001S0902 .search"):
        made(folder)


def test_what_is_not_read_is_said(folder):
    write(folder, "ADNIMERGE_01Jan2025.csv", adnimerge())
    write(folder, "ADNIMERGE_05Mar2024.csv", adnimerge().assign(DX="CN"))
    (folder / "tables" / "notes.csv").write_bytes(b"who,what\rme,x\r")
    (folder / "tables" / "._ADNIMERGE_02Jan2025.csv").write_bytes(b"\0\5\26\7")
    (folder / "tables" / "list.csv").write_text(
        "Image Data ID,Subject,Description,Acq Date\nI77,Phantom,MP-RAGE,3/11/2006\n",
        encoding="utf-8",
    )
    result = made(folder)
    assert labels(result) == RIGHT
    assert "tables not used: ADNIMERGE_05Mar2024.csv, notes.csv" in result.notes
    assert "1 row of list.csv is left out, of no subject of this study: 'Phantom'" in result.notes


def test_no_image_at_all_is_said_with_what_was_looked_for(folder):
    write(folder, "ADNIMERGE.csv", adnimerge())
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"has no image of a subject .*: looked for SUBJECT/"):
        adni.read(folder / "tables", empty, adni.AdniOptions(), TODAY)
    (empty / "t1.nii.gz").touch()
    with pytest.raises(UserError, match=r"1 scan file is left out: .* has an image id .*t1.nii.gz"):
        adni.read(folder / "tables", empty, adni.AdniOptions(), TODAY)


@pytest.mark.parametrize(("name", "table"), [("DXSUM", dxsum), ("ADNIMERGE", adnimerge)])
def test_a_table_without_rows(folder, name, table):
    write(folder, f"{name}.csv", table().iloc[:0])
    with pytest.raises(UserError, match="has no rows below the names of its columns"):
        made(folder)


def test_facts_of_a_person_that_disagree_in_ptdemog(folder):
    write(folder, "DXSUM.csv", dxsum())
    again = ptdemog().iloc[:1]
    write(folder, "PTDEMOG.csv", pd.concat([ptdemog(), again.assign(PTDOBYY="1931")]))
    result = made(folder)
    assert result.table["age"].round(1).tolist() == [75.7] * 3
    assert any("rows of 1 subject disagree on born (RID 901)" in note for note in result.notes)
    write(folder, "PTDEMOG.csv", pd.concat([ptdemog(), again.assign(PTGENDER="1")]))
    with pytest.raises(UserError, match="column PTGENDER: is both M and F for RID 901"):
        made(folder)


codes = st.sampled_from(
    ["bl", "sc", "scmri", "m06", "m36", "nv", "uns1", "f", "init", "y1", "v03", "4_bl", "4_sc"]
)
phases = st.sampled_from(adni.PHASES)
rows = st.lists(
    st.tuples(st.integers(901, 908), phases, codes, st.sampled_from(["", "1", "2", "3"])),
    min_size=1,
    max_size=25,
    unique_by=lambda row: row[:3],
)


@given(rows)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_everybody_in_the_table_is_kept_or_has_a_reason(folder, rows):
    frame = pd.DataFrame(rows, columns=["RID", "PHASE", "VISCODE", "DIAGNOSIS"])
    place = frame["PHASE"].map(adni.PHASES.index)
    years = 2006 + 4 * place + np.arange(len(frame)) % 3
    frame = frame.assign(VISCODE2="", PTID="", EXAMDATE=years.astype(str) + "-03-12")
    write(folder, "DXSUM.csv", pd.concat([dxsum().iloc[5:6].assign(VISCODE="m48"), frame]))
    try:
        result = made(folder)
    except TableError:  # two spellings of one visit that disagree
        return
    listed = {f"{rid}" for rid in frame["RID"]} | {"902"}
    both = [*result.table["subject_id"], *result.excluded["subject_id"]]
    assert {subject[-3:] for subject in both} == listed
    assert set(result.excluded["reason"]) <= set(REASONS)
    counts = result.flow.groupby("step")["n"].sum().to_dict()
    assert counts["found"] == len(both) == counts["excluded"] + counts.get("kept", 0)


@pytest.mark.parametrize("table", ["ADNIMERGE", "DXSUM"])
def test_further_words_for_missing_hold_in_every_table(folder, table):
    frames = {"ADNIMERGE": adnimerge()} if table == "ADNIMERGE" else {"DXSUM": dxsum()}
    frames |= {} if table == "ADNIMERGE" else {"PTDEMOG": ptdemog()}
    for name, frame in frames.items():
        if "PTEDUCAT" in frame:
            frame.loc[frame["RID"] == "902", "PTEDUCAT"] = "Unknown"
        write(folder, f"{name}.csv", frame)
    with pytest.raises(TableError, match="column PTEDUCAT: 'Unknown' is not a number"):
        made(folder)
    rows = made(folder, missing=frozenset({"unknown"})).table.set_index("subject_id")
    assert rows["education"].isna().to_dict() == {name: name.endswith("2") for name in RIGHT}
