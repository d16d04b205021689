import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.cohort.adni_visits import image_visit, months, plain_code, plain_codes
from mri_jax.errors import UserError
from mri_jax.problems import TableError
from tests.cohort.small_adni import (
    RIGHT,
    WHEN,
    adnimerge,
    download,
    dxsum,
    labels,
    made,
    write,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    return download(tmp_path)


@pytest.mark.parametrize(
    ("code", "enrolled", "continuing"),
    [
        ("bl", "bl", "bl"), ("m00", "bl", "bl"), ("m0", "bl", "bl"), (" M12 ", "m12", "m12"),
        ("'sc'", "sc", "sc"), ("scmri", "scmri", "scmri"), ("Baseline", "bl", "bl"),
        ("m6", "m06", "m06"), ("m120", "m120", "m120"), ("nv", "nv", "nv"),
        ("uns1", "uns1", "uns1"),
        ("v01", "sc", "v01"), ("v02", "scmri", "v02"), ("v03", "bl", "v03"), ("v04", "m03", "v04"),
        ("v05", "m06", "v05"), ("v06", "v06", "v06"), ("v11", "m12", "v11"), ("v12", "v12", "v12"),
        ("v51", "m60", "v51"), ("y1", "m12", "y1"), ("y4", "m48", "y4"), ("init", "init", "init"),
        ("4_sc", "sc", "4_sc"), ("4_bl", "bl", "4_bl"), ("4_init", "4_init", "4_init"),
        ("4_m12", "m12", "4_m12"), ("4_m36", "m36", "4_m36"), ("4_disp", "4_disp", "4_disp"),
        ("f", "f", "f"), ("tau", "tau", "tau"), ("", "", ""),
    ],
)  # fmt: skip
def test_the_codes_of_every_phase(code, enrolled, continuing):
    assert plain_code(code, True) == enrolled
    assert plain_code(code, False) == continuing


@given(
    st.integers(0, 200), st.booleans(), st.sampled_from(["m{}", "M{:02d}", "m{:03d}", "Month {}"])
)
def test_a_month_is_a_month_in_every_spelling(month, enrolled, form):
    plain = plain_code(form.format(month), enrolled)
    assert months(pd.Series([plain])).tolist() == [float(month)]
    assert plain_code(plain, enrolled) == plain


@given(st.text(max_size=8), st.booleans())
def test_any_text_is_plain_after_one_step(text, enrolled):
    plain = plain_code(text, enrolled)
    assert plain_code(plain, enrolled) == plain
    series = pd.Series([text, text])
    assert plain_codes(series, pd.Series([enrolled, enrolled])).tolist() == [plain, plain]


def test_only_plain_codes_have_months():
    codes = ["bl", "sc", "scmri", "m03", "m120", "y1", "v11", "4_m12", "init", "uns1", "nv", ""]
    said = months(pd.Series(codes)).tolist()
    assert said[:5] == [0.0, 0.0, 0.0, 3.0, 120.0]
    assert all(math.isnan(month) for month in said[5:])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sc", "sc"), ("m12", "m12"), ("4_bl", "bl"), ("v02", "scmri"), ("ADNI Screening", "sc"),
        ("ADNI1/GO Month 12", "m12"), ("ADNI2 Screening MRI-New Pt", "scmri"),
        ("ADNI2 Month 3 MRI-New Pt", "m03"), ("ADNI2 Baseline-New Pt", "bl"),
        ("ADNI Baseline", "bl"), ("ADNI4 Baseline - New Pt", "bl"), ("ADNIGO Month 60", "m60"),
        ("ADNI2 Initial Visit-Cont Pt", ""), ("ADNI2 Year 1 Visit", ""), ("y1", ""), ("v11", ""),
        ("No Visit Defined", ""), ("Unscheduled", ""), ("nv", ""), ("", ""),
    ],
)  # fmt: skip
def test_what_tables_of_images_call_visits(text, code):
    assert image_visit(text) == code


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
