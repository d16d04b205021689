import numpy as np
import pandas as pd

from mri_jax.showing import forms
from mri_jax.showing.table import Cell, Table, from_frame, from_rows, text


def test_a_long_latex_table_is_continued_on_the_next_page():
    rows = tuple((Cell(f"row {k}", k, "95%\nx"), text("AIBL")) for k in range(30))
    long = Table("k", "Scores", ("Method", "Test cohort"), rows, "A note.")
    made = forms.latex(long, simulated=True)
    assert made.count(r"\begin{table}") == 3
    assert made.count("A note.") == 1
    assert made.count("Continued.") == 2
    assert made.count("SIMULATED") == 3
    assert [f"row {k} " in made for k in (0, 11, 12, 29)] == [True] * 4
    bodies = made.split(r"\begin{table}")[1:]
    assert [body.count("row ") for body in bodies] == [12, 12, 6]


def test_latex_escapes_what_latex_would_read():
    assert forms.latex_escape("a_b & 5% ± λ") == r"a\_b \& 5\% $\pm$ ?"
    table = from_rows("k", "Tested on A_B", ["a_b"], [["50% & 1 ± 2"]])
    made = forms.latex(table, simulated=False)
    assert r"a\_b" in made
    assert r"50\% \& 1 $\pm$ 2" in made
    assert r"\caption{Tested on A\_B.}" in made
    assert made.count("{") == made.count("}")


def test_a_column_that_says_the_same_in_every_row_may_stand_in_the_caption():
    rows = [["source", "cnn5-w1", "1"], ["source", "cnn5-w1", "2"]]
    table = from_rows("k", "T", ["stage", "run", "n"], rows)
    condensed = forms.latex(table, simulated=False)
    assert r"\caption{T. run: cnn5-w1.}" in condensed
    assert r"stage & n \\" in condensed  # the first column names the rows
    whole = Table("k", "T", table.header, table.rows, condensed=False)
    assert r"stage & run & n \\" in forms.latex(whole, simulated=False)


def test_markdown_lines_up_and_keeps_its_columns():
    table = from_rows("k", "T", ["a|b", "c"], [["x\ny", "1\\2"], ["longer", ""]], "A note.")
    assert forms.grid(table).splitlines() == [
        "| a\\|b   | c    |",
        "|--------|------|",
        "| x y    | 1\\\\2 |",
        "| longer |      |",
    ]
    assert forms.markdown(table, simulated=True).splitlines()[0] == "**T (SIMULATED scans)**"
    assert forms.markdown(table, simulated=False).endswith("|\n\nA note.\n")


def test_three_files_hold_the_table_and_say_where_its_scans_are_from(tmp_path):
    frame = pd.DataFrame({"name": ["<b>", "c"], "value": [1 / 3, np.nan]})
    forms.write(tmp_path, from_frame("a/b", "T", frame), simulated=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a%2fb.csv", "a%2fb.md", "a%2fb.tex",
    ]  # fmt: skip
    written = pd.read_csv(tmp_path / "a%2fb.csv")
    assert written["value"].tolist()[0] == 1 / 3
    assert written["simulated"].all()
    assert "| &lt;b>  | 0.333 |" in (tmp_path / "a%2fb.md").read_text(encoding="utf-8")
    assert "SIMULATED" in (tmp_path / "a%2fb.tex").read_text(encoding="utf-8")
    forms.write(tmp_path, from_frame("real", "T", frame), simulated=False)
    assert "simulated" not in pd.read_csv(tmp_path / "real.csv")
