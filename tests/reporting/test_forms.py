import numpy as np
import pandas as pd

from mri_jax.reporting import forms, table


def test_a_long_latex_table_is_continued_on_the_next_page():
    rows = tuple((table.text("AIBL"), table.text(f"row {k}\n95%\nx")) for k in range(30))
    long = table.Table("k", "Scores", "A note.", ("Test cohort", "Network"), rows, pd.DataFrame())
    made = forms.latex(long, simulated=True)
    assert made.count(r"\begin{table}") == 3
    assert made.count("A note.") == 1
    assert made.count("Continued.") == 2
    assert made.count("SIMULATED") == 3
    assert [f"row {k} " in made for k in (0, 11, 12, 29)] == [True] * 4
    bodies = made.split(r"\begin{table}")[1:]
    assert [body.count("row ") for body in bodies] == [12, 12, 6]


def test_numbers_are_printed_as_the_paper_does():
    assert table.percent(0.85249) == "85.2"
    assert table.percent(np.nan) == "–"
    assert table.interval(-0.0003, 0.0434) == "[0.0, 4.3]"
    assert table.interval(-0.0212, np.nan) == ""
    assert table.interval(-0.0212, 0.5) == "[−2.1, 50.0]"
    assert [table.signed(v) for v in (0.012, -0.0003, -0.05)] == ["+1.2", "0.0", "−5.0"]
    assert (table.ratio(np.inf), table.ratio(0.5)) == ("∞", "0.50")
    assert (table.p_value(0.00049), table.p_value(0.0304)) == ("<0.001", "0.030")
    assert forms.latex_escape("a_b & 5% ± λ") == r"a\_b \& 5\% $\pm$ ?"
