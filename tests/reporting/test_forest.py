"""The page's first picture: what is drawn stands where its number is."""

import dataclasses

import pytest
import synthetic_run

from mri_jax.evaluation.scores import estimate
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.forest import forest


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "high"
    synthetic_run.write_run(folder, stages=("tuned-high",))
    return analyse(load_runs([str(folder)])).sections[0]


def test_rows_are_methods_in_the_order_of_the_table_with_their_numbers(section):
    found = forest(section, "ADNI2")
    assert [row.name for row in found.rows] == [m.name for m in section.family.methods]
    assert [row.plain for row in found.rows] == [False, False, True, True]
    rows = section.summary.query("cohort == 'ADNI2' and split == 'test' and metric == 'auc'")
    first = rows.set_index("method").loc["cnn5-w1"]

    def back(place):
        """The AUC at a place of the axis."""
        return found.low / 100 + place / 100 * (1 - found.low / 100)

    row = found.rows[0]
    assert back(found.chance) == pytest.approx(0.5, abs=1e-3)
    assert back(row.mean) == pytest.approx(first["mean"], abs=1e-3)
    assert [back(x) for x in row.thick] == pytest.approx(
        [first["a_low"], first["a_high"]], abs=1e-3
    )
    assert [back(x) for x in row.thin] == pytest.approx([first["b_low"], first["b_high"]], abs=1e-3)
    assert row.value == f"{100 * first['mean']:.1f}"
    entry = next(e for e in section.tested("ADNI2") if e.method.name == "cnn5-w1")
    each = estimate("auc", entry.scores).value
    assert [back(x) for x in row.dots] == pytest.approx(list(each), abs=1e-3)


def test_the_axis_holds_everything_that_is_drawn(section):
    for cohort in section.cohorts:
        found = forest(section, cohort)
        drawn = [x for r in found.rows for x in (*r.dots, *(r.thick or ()), *(r.thin or ()))]
        assert 0 <= min(drawn) <= max(drawn) <= 100
        assert found.low % 10 == pytest.approx(0, abs=1e-9)


def test_what_is_undefined_is_not_drawn(section):

    nothing = float("nan")
    rows = section.summary.assign(
        mean=nothing, a_low=nothing, a_high=nothing, b_low=nothing, b_high=nothing, a_note="why"
    )
    bare = forest(dataclasses.replace(section, summary=rows), "ADNI2")
    assert {(r.mean, r.thick, r.thin, r.value, r.limits) for r in bare.rows} == {
        (None, None, None, "–", "why")
    }
