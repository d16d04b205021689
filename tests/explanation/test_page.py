import numpy as np
import pandas as pd
import pytest

from mri_jax.explanation.page import Section, markdown_page, render
from mri_jax.explanation.pictures import Canvas, Line, anatomy_of, interactive, limits, mosaic
from mri_jax.showing.forms import grid
from mri_jax.showing.table import from_frame
from tests.explanation.small import GRID, background, brain


def section() -> Section:
    frame = pd.DataFrame({"region": ["<b>|x"], "value": [1 / 3], "q": [np.nan]})
    table = from_frame("t", "T", frame)
    links = [("a map", "maps/SUB%5f1.nii.gz")]
    return Section("grad-cam · FAILED: cascade", tables=[table], links=links)


def test_page_escapes_what_comes_from_data_and_links_reach_their_files():
    page = render("Title", [section()], simulated=True)
    assert "&lt;b&gt;|x" in page
    assert "<b>|x" not in page
    assert 'href="maps/SUB%255f1.nii.gz"' in page
    assert '<a href="#grad-cam">grad-cam</a>' in page
    assert "SIMULATED SCANS" in page
    assert "SIMULATED" not in render("Title", [section()], simulated=False)


def test_markdown_keeps_its_columns():
    text = markdown_page("Title", [section()], simulated=True)
    assert r"| <b>\|x | 0.333 |     |" in text
    assert "## grad-cam · FAILED: cascade" in text
    assert "**SIMULATED SCANS" in text
    lines = grid(section().tables[0]).replace(r"\|", "").splitlines()
    assert {line.count("|") for line in lines} == {4}


def test_colours_start_where_a_fifth_of_the_brain_is_shown():
    values = np.zeros(GRID.shape)
    values[brain()] = np.linspace(-1, 1, int(brain().sum()))
    values[~brain()] = 99.0
    low, high = limits([values], brain())
    assert low == pytest.approx(0.8, abs=0.01)
    assert high == pytest.approx(0.998, abs=0.01)
    assert limits([np.zeros(GRID.shape)], brain()) == (0.0, 1.0)


def test_pictures_are_drawn_and_say_what_failed():
    known = background()
    anatomy = anatomy_of(known.mean[..., 0], known.reach, GRID)
    values = np.where(brain(), 1e-5, 0.0)
    values[8:10, 8:10, 6:8] = -3e-5
    lines = [Line("one", values, "a"), Line("two", -values, "b")]
    canvas = Canvas(anatomy, brain(), GRID, simulated=True)
    plain = mosaic("k", "t", "c", lines, canvas)
    failed = mosaic("k", "t · FAILED: truth", "c", lines, canvas)
    words = [text.get_text() for text in failed.figure.texts]
    assert "FAILED: truth" in words
    assert "t" in words
    assert len(failed.png) > len(plain.png) > 10_000
    page = interactive(values, "a <i> title", canvas)
    assert "SIMULATED SCANS" in page
    assert "a &lt;i&gt; title" in page
    assert "Colours end at 3e-05" in page
