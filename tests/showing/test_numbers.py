import numpy as np

from mri_jax.showing import numbers


def test_numbers_are_printed_as_the_paper_does():
    assert numbers.percent(0.85249) == "85.2"
    assert numbers.percent(np.nan) == "–"
    assert numbers.interval(-0.0003, 0.0434) == "[0.0, 4.3]"
    assert numbers.interval(-0.0212, np.nan) == ""
    assert numbers.interval(-0.0212, 0.5) == "[−2.1, 50.0]"
    assert [numbers.signed(v) for v in (0.012, -0.0003, -0.05)] == ["+1.2", "0.0", "−5.0"]
    assert [numbers.signed(v, 2) for v in (-0.00004, -0.0003)] == ["0.00", "−0.03"]
    assert (numbers.ratio(np.inf), numbers.ratio(0.5)) == ("∞", "0.50")
    assert (numbers.p_value(0.00049), numbers.p_value(0.0304)) == ("<0.001", "0.030")
    assert numbers.mean_sd(0.5, np.nan) == "50.0"
    assert numbers.mean_sd(0.5, 0.0123) == "50.0 ± 1.2"
    assert numbers.estimated(1.0, np.nan, np.nan) == "100.0"
