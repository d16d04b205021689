import pytest
from jinja2 import UndefinedError

from mri_jax.showing import pages
from mri_jax.showing.table import Cell, Table


def page(**more):
    table = Table("k", "<T>", ("name",), ((Cell("<b>", 1.0, alarm=True, bar=25.0),),), "A note.")
    parts = {"sections": [], "simulated": False, "caution": "", "title": "<i>", "banner": ""}
    section = {"title": "S", "short": "S", "key": "s", "notes": (), "tables": [table],
               "pictures": (), "links": ()}  # fmt: skip
    made = parts | {"sections": [section], "interactive": False} | more
    return pages.render("explanation/explanation.html.j2", **made)


def test_text_is_escaped_and_a_cell_says_what_alarms():
    made = page()
    assert "<title>&lt;i&gt;</title>" in made
    assert "<b>" not in made
    assert 'class="whole alarm">&lt;b&gt;<span class="bar" style="width: 25.0%">' in made
    assert "SIMULATED" not in made
    assert "(SIMULATED scans)" in page(simulated=True)


def test_a_page_has_a_script_only_where_its_tables_sort():
    assert "<script" not in page()
    assert "script-src" not in page()
    sorts = page(interactive=True)
    assert sorts.count("<script") == 1
    assert "script-src" in sorts
    assert '<button type="button">name</button>' in sorts


def test_what_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="caution"):
        pages.render("explanation/explanation.html.j2", title="", banner="", interactive=False)
