"""AIBL's tables as people have them; one small download each."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from mri_jax.cohort import aibl
from mri_jax.cohort.assemble import Assembled, SubjectSelection, assemble
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.sheets import Reading
from mri_jax.errors import UserError
from mri_jax.problems import TableError

TODAY = date(2026, 1, 1)
PEOPLE = {"11": "3 3", "12": "1 1", "13": "2 3"}
RIGHT = {"sub-AIBL11": "AD", "sub-AIBL12": "CN", "sub-AIBL13": "pMCI"}
DAYS = {"bl": "11/{}/2007", "m18": "05/09/2009"}


def tables() -> dict[str, pd.DataFrame]:
    """Every table by its name, all cells text."""
    visits = pd.DataFrame(
        [
            {"RID": rid, "VISCODE": code, "DXCURREN": dx, "EXAMDATE": DAYS[code].format(rid)}
            for rid, states in PEOPLE.items()
            for code, dx in zip(DAYS, states.split(), strict=True)
        ]
    )
    first = visits[visits["VISCODE"] == "bl"]
    return {
        "pdxconv": visits[["RID", "VISCODE", "DXCURREN"]],
        "neurobat": visits[["RID", "VISCODE", "EXAMDATE"]],
        "mri3meta": first[["RID", "VISCODE", "EXAMDATE"]],
        "ptdemog": first[["RID", "VISCODE"]].assign(PTDOB="/1931", PTGENDER="2"),
        "mmse": first[["RID", "VISCODE"]].assign(MMSCORE="28"),
        "apoeres": first[["RID", "VISCODE"]].assign(APGEN1="3", APGEN2="4"),
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "tables").mkdir()
    for rid in PEOPLE:
        place = tmp_path / "images" / rid / "MPRAGE_ADNI_confirmed"
        place = place / f"2007-11-{rid}_10_00_00.0" / f"S80{rid}"
        place.mkdir(parents=True)
        (place / f"AIBL_{rid}_MR_MPRAGE_br_raw_S80{rid}_I70{rid}.nii").touch()
    write(tmp_path, tables())
    return tmp_path


def write(folder: Path, frames: dict[str, pd.DataFrame], form: str = "aibl_{}_01-Jun-2018") -> None:
    for name, frame in frames.items():
        frame.to_csv(folder / "tables" / f"{form.format(name)}.csv", index=False)


def made(folder: Path, **options) -> Assembled:
    source = aibl.read(folder / "tables", folder / "images", Reading(TODAY, **options))
    return assemble(source, LabelRules(), ImageChoice(), SubjectSelection())


def labels(result: Assembled) -> dict[str, str]:
    return dict(result.table[["subject_id", "diagnosis"]].values)


def right(result: Assembled) -> bool:
    rows = result.table
    facts = rows[["sex", "mmse", "apoe4", "field_strength", "days_from_baseline"]]
    return labels(result) == RIGHT and set(map(tuple, facts.values)) == {("F", 28, 1, 3, 0)}


def test_the_control(folder):
    assert right(made(folder))


@pytest.mark.parametrize("form", ["aibl_{}", "AIBL_{}_01Jun2018 (1)", "All_Subjects_aibl_{}_2018"])
def test_names_of_tables(folder, form):
    for path in (folder / "tables").iterdir():
        path.unlink()
    write(folder, tables(), form)
    assert right(made(folder))


def test_a_second_copy_counts_once_and_must_not_differ(folder):
    write(folder, {"mmse": tables()["mmse"]}, "aibl_{}_01-Jun-2018 (1)")
    assert right(made(folder))
    write(folder, {"mmse": tables()["mmse"].assign(MMSCORE="9")}, "aibl_{}_01-Jun-2018 (1)")
    with pytest.raises(UserError, match="are the same table and differ; keep one"):
        made(folder)


@pytest.mark.parametrize("form", ["{}.0", "{:05d}", "'{}'"])
def test_every_table_is_joined_by_the_number_of_a_rid(folder, form):
    for name, frame in tables().items():
        if name != "pdxconv":
            rid = [form.format(int(number)) for number in frame["RID"]]
            write(folder, {name: frame.assign(RID=rid)})
    assert right(made(folder))


@pytest.mark.parametrize("name", ["neurobat", "mri3meta", "ptdemog", "mmse", "apoeres"])
def test_a_table_of_other_people_is_refused(folder, name):
    write(folder, {name: tables()[name].assign(RID=lambda t: "9" + t["RID"])})
    with pytest.raises(UserError, match=r"RID: has nobody of .*: here 911, .*there 11, 12, 13"):
        made(folder)


@pytest.mark.parametrize("name", ["pdxconv", "neurobat", "mmse"])
def test_codes_of_visits_in_any_spelling(folder, name):
    frame = tables()[name].replace({"VISCODE": {"bl": "M00", "m18": "m018"}})
    write(folder, {name: frame})
    assert right(made(folder))


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%y", "%d-%b-%Y"])
def test_dates_in_any_form(folder, form):
    for name in ("neurobat", "mri3meta"):
        frame = tables()[name]
        days = pd.to_datetime(frame["EXAMDATE"], format="%m/%d/%Y").dt.strftime(form)
        write(folder, {name: frame.assign(EXAMDATE=days)})
    assert right(made(folder))


def test_dates_are_month_first_as_the_archive_writes_them_unless_the_option_says_so(folder):
    for name in ("neurobat", "mri3meta"):
        write(folder, {name: tables()[name].assign(EXAMDATE="03/04/2009")})
    assert set(aibl_dates(folder)) == {pd.Timestamp(2009, 3, 4)}
    assert set(aibl_dates(folder, order="day-first")) == {pd.Timestamp(2009, 4, 3)}


def aibl_dates(folder: Path, **options) -> pd.Series:
    return aibl.read(folder / "tables", folder / "images", Reading(TODAY, **options)).visits["date"]


def test_facts_that_pandas_or_r_rewrote(folder):
    write(folder, {
        "ptdemog": tables()["ptdemog"].assign(PTDOB="1931.0", PTGENDER="Female"),
        "pdxconv": tables()["pdxconv"].replace({"DXCURREN": {"1": "1.0", "2": "MCI", "3": "AD"}}),
        "apoeres": tables()["apoeres"].assign(APGEN1="3.0", APGEN2="4.0"),
    })  # fmt: skip
    assert right(made(folder))


def test_images_of_nobody_and_tables_not_used_are_said(folder):
    (folder / "tables" / "aibl_medhist_01-Jun-2018.csv").write_text("RID\n1\n", encoding="utf-8")
    assert "tables not used: aibl_medhist_01-Jun-2018.csv" in made(folder).notes
    for place in (folder / "images").iterdir():
        place.rename(place.with_name(f"77{place.name}"))
    with pytest.raises(UserError, match="lies in the folder of sub-AIBL7711 and is named as of"):
        made(folder)


@pytest.mark.parametrize(
    ("text", "code"),
    [("bl", "bl"), ("Baseline", "bl"), ("1", "bl"), ("2", "m18"), ("18 mo", "m18"),
     ("18 Month follow-up", "m18"), ("m36", "m36"), ("follow-up", "")],
)  # fmt: skip
def test_what_search_tables_call_visits(text, code):
    assert aibl.visit_of(text) == code


def test_further_words_for_missing_hold_in_every_table(folder):
    frames = tables()
    columns = {
        "mmse": "MMSCORE",
        "ptdemog": "PTGENDER",
        "neurobat": "EXAMDATE",
        "apoeres": "APGEN1",
    }
    for name, column in columns.items():
        frames[name].loc[frames[name]["RID"] == "12", column] = "-9"
    write(folder, frames)
    with pytest.raises(TableError) as error:
        made(folder)
    assert str(error.value).count("'-9'") == 5  # two rows of neurobat
    row = made(folder, missing=frozenset({"-9"})).table.set_index("subject_id").loc["sub-AIBL12"]
    assert (row["sex"], row["diagnosis"]) == ("", "CN")
    assert row[["mmse", "apoe4"]].isna().all()
