import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.cohort.adni_visits import image_visit, months, plain_code, plain_codes


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
