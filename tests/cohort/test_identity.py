import math

import pytest

from mri_jax.cohort.identity import aibl_id, canonical, month_of_visit, person, session_of_month


@pytest.mark.parametrize(
    "spelling", ["002_S_0295", "sub-ADNI002S0295", "ADNI002S0295", "sub-002S0295", " 002_s_0295 "]
)
def test_every_spelling_of_an_adni_id_is_one_subject(spelling):
    assert canonical(spelling) == "sub-ADNI002S0295"
    assert person(spelling) == ("ADNI", "295")


def test_a_person_is_family_and_number():
    assert person("099_S_0295") == person("002_S_0295")
    assert person("sub-AIBL295") == ("AIBL", "295") != person("002_S_0295")
    assert canonical("AIBL0295") == aibl_id("295") == "sub-AIBL295"
    assert canonical("sub-01") == "sub-01"
    assert person("sub-01") != person("sub-1")


@pytest.mark.parametrize(
    ("code", "month"),
    [("bl", 0), ("sc", 0), ("scmri", 0), ("m06", 6), ("M012", 12), ("ses-M00", 0),
     ("ses-M000", 0), ("ses-m120", 120), ("y2", 24), ("Base", 0), ("18 mo", 18)],
)  # fmt: skip
def test_months_of_visit_codes(code, month):
    assert month_of_visit(code) == month


@pytest.mark.parametrize("code", ["nv", "uns1", "f", "ses-1", "", "v11"])
def test_codes_that_say_no_month(code):
    assert math.isnan(month_of_visit(code))


def test_session_labels():
    assert session_of_month(6.0) == "ses-M006"
