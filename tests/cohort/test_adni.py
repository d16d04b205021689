"""ADNI's tables as people have them: names, ids, dates, codes, labels; one small download each."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_jax.cohort import adni
from mri_jax.cohort.assemble import REASONS, Assembled, SubjectSelection, assemble
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.problems import TableError
from mri_jax.errors import UserError

TODAY = date(2026, 1, 1)
PEOPLE = {"901": ("AD", "3 3 3"), "902": ("CN", "1 1 1"), "903": ("LMCI", "2 3 3")}
STATE = {"1": "CN", "2": "MCI", "3": "Dementia"}
WHEN = {"bl": "2006-03-1{}", "m12": "2007-03-15", "m36": "2009-03-16"}


def visits() -> list[tuple[str, str, str, str, str]]:
    """RID, group, code, date, number of the diagnosis of every visit."""
    return [
        (rid, group, code, WHEN[code].format(rid[-1]), dx)
        for rid, (group, states) in PEOPLE.items()
        for code, dx in zip(WHEN, states.split(), strict=True)
    ]


def adnimerge() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "RID": rid, "COLPROT": "ADNI1", "ORIGPROT": "ADNI1", "PTID": f"001_S_0{rid}",
                "VISCODE": code, "EXAMDATE": day, "DX_bl": group, "AGE": "71.1",
                "PTGENDER": "Female", "PTEDUCAT": "16", "APOE4": "0", "CDRSB": "1", "MMSE": "28",
                "DX": STATE[dx], "EXAMDATE_bl": WHEN["bl"].format(rid[-1]),
            }
            for rid, group, code, day, dx in visits()
        ]
    )  # fmt: skip


def dxsum() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "PHASE": "ADNI1", "PTID": f"001_S_0{rid}", "RID": rid, "VISCODE": code,
                "VISCODE2": code, "EXAMDATE": day, "DIAGNOSIS": dx,
            }
            for rid, _, code, day, dx in visits()
        ]
    )  # fmt: skip


def ptdemog() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"PHASE": "ADNI1", "RID": rid, "PTGENDER": "2", "PTDOBYY": "1930", "PTEDUCAT": "16"}
            for rid in PEOPLE
        ]
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "tables").mkdir()
    for number, rid in enumerate(PEOPLE):
        scan(tmp_path, f"001_S_0{rid}", WHEN["bl"].format(rid[-1]), 4000 + number)
    return tmp_path


def scan(folder: Path, ptid: str, day: str, number: int) -> None:
    place = folder / "images" / ptid / "MP-RAGE" / f"{day}_08_00_00.0" / f"I{number}"
    place.mkdir(parents=True)
    (place / f"ADNI_{ptid}_MR_MP-RAGE__br_raw_S9_I{number}.nii").touch()


def write(folder: Path, name: str, frame: pd.DataFrame, **options) -> None:
    frame.to_csv(folder / "tables" / name, **{"index": False, **options})


def made(folder: Path, **options) -> Assembled:
    source = adni.read(folder / "tables", folder / "images", adni.AdniOptions(**options), TODAY)
    return assemble(source, LabelRules(), ImageChoice(), SubjectSelection())


def labels(result: Assembled) -> dict[str, str]:
    return dict(result.table[["subject_id", "diagnosis"]].values)


RIGHT = {"sub-ADNI001S0901": "AD", "sub-ADNI001S0902": "CN", "sub-ADNI001S0903": "pMCI"}


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
    assert any("missing for 1 subjects who have no row in PTDEMOG.csv" in n for n in result.notes)


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
    assert any("images of 1 subjects are left out, who are not in DXSUM.csv" in note
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


def test_visits_that_never_were_do_not_disagree_and_do_not_count(folder):
    never = dxsum().iloc[:2].assign(VISCODE="nv", VISCODE2="nv", DIAGNOSIS="")
    never["EXAMDATE"] = ["2010-01-05", "2011-01-05"]
    alone = never.assign(RID="905", PTID="001_S_0905")
    write(folder, "DXSUM.csv", pd.concat([dxsum(), never, alone]))
    result = made(folder)
    assert labels(result) == RIGHT
    # Nobody of the table is lost without a word.
    assert result.excluded[["subject_id", "reason"]].values.tolist() == [
        ["sub-ADNI001S0905", "no baseline"]
    ]


def test_two_unscheduled_visits_are_two_and_one_that_disagrees_is_refused(folder):
    two = dxsum().iloc[:2].assign(VISCODE="uns1", VISCODE2="uns1")
    two["EXAMDATE"], two["DIAGNOSIS"] = ["2010-01-05", "2011-01-05"], ["3", "2"]
    write(folder, "DXSUM.csv", pd.concat([dxsum(), two]))
    assert labels(made(folder)) == RIGHT
    write(folder, "DXSUM.csv", pd.concat([dxsum(), two.assign(EXAMDATE="2010-01-05")]))
    with pytest.raises(TableError, match="column DIAGNOSIS: '2' disagrees with row 11 of the same"):
        made(folder)


def test_one_visit_in_two_spellings_must_agree(folder):
    again = adnimerge().iloc[:1].assign(VISCODE="M00", RID="901.0")
    write(folder, "ADNIMERGE.csv", pd.concat([adnimerge(), again]))
    assert labels(made(folder)) == RIGHT
    write(folder, "ADNIMERGE.csv", pd.concat([adnimerge(), again.assign(DX="CN")]))
    with pytest.raises(TableError, match="column DX: 'CN' disagrees with row 2"):
        made(folder)


@pytest.mark.parametrize(
    "codes",
    [("m00", "M12 ", "M36"), ("v03", "v11", "v31"), ("bl", "y1", "y3"),
     ("4_bl", "4_m12", "4_m36"), ("Baseline", "Month 12", "Month 36")],
)  # fmt: skip
def test_codes_of_every_phase_with_an_empty_viscode2(folder, codes):
    said = dict(zip(WHEN, codes, strict=True))
    frame = dxsum().replace({"VISCODE": said})
    frame["VISCODE2"] = ["", "NA", "-4"] * 3
    write(folder, "DXSUM.csv", frame)
    result = made(folder)
    assert labels(result) == RIGHT
    assert result.table["session_id"].tolist() == ["ses-M000"] * 3
    assert result.table.loc[2, "deciding_visits"] == "bl=MCI m12=AD"


def test_adni4_with_screening_before_baseline(folder):
    frame = dxsum().assign(PHASE="ADNI4", VISCODE2="")
    frame["VISCODE"] = "4_" + frame["VISCODE"]
    screened = frame[frame["VISCODE"] == "4_bl"].assign(
        VISCODE="4_sc", EXAMDATE="2006-01-20", DIAGNOSIS="1"
    )
    write(folder, "DXSUM.csv", pd.concat([screened, frame]))
    result = made(folder)
    # The baseline's own diagnosis, not that of the screening in the same month.
    assert labels(result) == RIGHT
    assert set(result.table["cohort"]) == {"ADNI4"}
    assert set(result.table["baseline_visit"]) == {"bl"}


def test_months_of_a_phase_are_not_those_of_a_person_who_continues(folder):
    """In ADNI-3 y1 of a person of ADNI-1 is some twelve years after the baseline, not one."""
    person = dxsum().iloc[6:8].assign(DIAGNOSIS="2")
    later = dxsum().iloc[6:8].assign(
        PHASE="ADNI3", VISCODE=["init", "y1"], VISCODE2="", DIAGNOSIS="3",
        EXAMDATE=["2017-04-01", "2018-04-01"],
    )  # fmt: skip
    write(folder, "DXSUM.csv", pd.concat([dxsum().iloc[:6], person, later]))
    result = made(folder)
    assert "sub-ADNI001S0903" not in labels(result)
    lost = result.excluded.set_index(["subject_id", "cohort"])
    assert lost.loc[("sub-ADNI001S0903", "ADNI1"), "reason"] == "follow-up too short"
    assert "AD first seen after the horizon" in lost.loc[("sub-ADNI001S0903", "ADNI1"), "detail"]


def test_a_table_of_one_phase_that_names_the_first_one(folder):
    """As ADNIMERGE2 writes it: COLPROT and ORIGPROT in place of PHASE."""
    frame = dxsum().rename(columns={"PHASE": "COLPROT"}).assign(COLPROT="ADNI3", VISCODE2="")
    frame["ORIGPROT"] = ["ADNI3"] * 6 + ["ADNI1"] * 3
    frame.loc[6:, "VISCODE"] = ["init", "y1", "y3"]
    write(folder, "DXSUM.csv", frame)
    result = made(folder)
    assert labels(result) == {k: v for k, v in RIGHT.items() if k != "sub-ADNI001S0903"}
    assert result.excluded[["subject_id", "cohort", "reason"]].values.tolist() == [
        ["sub-ADNI001S0903", "ADNI3", "duplicate"]
    ]


def test_a_phase_in_every_spelling(folder):
    for text in ("ADNI 1", "adni-1", "ADNI_1"):
        write(folder, "ADNIMERGE.csv", adnimerge().assign(COLPROT=text))
        assert labels(made(folder)) == RIGHT


@pytest.mark.parametrize(
    "form", ["%d-%b-%y", "%d-%b-%Y", "%m/%d/%Y", "%m/%d/%y", "%d/%m/%Y", "%Y-%m-%d 00:00:00"]
)
def test_dates_after_a_round_trip_through_a_spreadsheet(folder, form):
    frame = adnimerge()
    for name in ("EXAMDATE", "EXAMDATE_bl"):
        frame[name] = pd.to_datetime(frame[name]).dt.strftime(form)
    write(folder, "ADNIMERGE.csv", frame)
    days = made(folder).table["days_from_baseline"].tolist()
    # The column has days after the twelfth, which tell the order; the scans are of the same day.
    assert days == [0.0, 0.0, 0.0]


def test_dates_that_tell_no_order_need_the_option(folder):
    frame = adnimerge().assign(EXAMDATE="01/03/2006", EXAMDATE_bl="01/03/2006")
    write(folder, "ADNIMERGE.csv", frame.drop_duplicates("RID"))
    with pytest.raises(UserError, match="give --dates month-first or --dates day-first"):
        made(folder)
    assert made(folder, dates="day-first").table["days_from_baseline"].tolist() == [10.0, 11.0]


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
    assert "1 rows of list.csv are left out, of no subject of this study: 'Phantom'" in result.notes


def test_no_image_at_all_is_said_with_what_was_looked_for(folder):
    write(folder, "ADNIMERGE.csv", adnimerge())
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"has no image of a subject .*: looked for SUBJECT/"):
        adni.read(folder / "tables", empty, adni.AdniOptions(), TODAY)
    (empty / "t1.nii.gz").touch()
    with pytest.raises(UserError, match=r"1 scan files are left out, no image id .*t1.nii.gz"):
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
    assert any("rows of 1 subjects disagree on born (RID 901)" in note for note in result.notes)
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
