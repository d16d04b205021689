"""The sentences at the top of the page say what the statistics say, and no more."""

import dataclasses

import pandas as pd
import pytest
import synthetic_run

from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.findings import findings
from mri_jax.reporting.table import p_value, percent, signed


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "high"
    synthetic_run.write_run(folder, stages=("tuned-high",), inner=True)
    return analyse(load_runs([str(folder)]))


def changed(analysis, **columns):
    """The analysis with columns of its first table's differences replaced, row by row."""
    (section,) = analysis.sections
    frame = section.differences.assign(**columns)
    return dataclasses.replace(
        analysis, sections=(dataclasses.replace(section, differences=frame),)
    )


def test_a_finding_states_the_auc_its_interval_and_the_largest_difference(analysis):
    (section,) = analysis.sections
    (line,) = [line for line in findings(analysis) if "; ADNI2, " in line]
    assert section.subjects("ADNI2") in line
    rows = section.summary.query("cohort == 'ADNI2' and split == 'test' and metric == 'auc'")
    source = rows[rows["method"] == "cnn5-w1"].iloc[0]
    assert f"an AUC of {percent(source['ensemble'])}% [{percent(source['ensemble_low'])}" in line
    assert (source["ensemble_low"] > 0.5) == ("above chance" in line)
    pairs = section.differences.query(
        "cohort == 'ADNI2' and split == 'test' and metric == 'auc' and point == 'argmax'"
    )
    hold = pairs[pairs["p_holm"] < 0.05]
    assert f"Of {len(pairs)} declared pairs, {len(hold) or 'none'} differ" in line
    shown = hold if len(hold) else pairs
    row = shown.loc[shown["difference"].abs().idxmax()]
    assert f"{row['first']} minus {row['second']}, {signed(row['difference'])} points" in line
    assert f"Holm p {p_value(row['p_holm'])}" in line


def test_what_does_not_hold_is_not_called_equal_and_what_holds_is_counted(analysis):
    none = findings(changed(analysis, p_holm=0.2))
    assert all("none differs in AUC beyond chance" in line for line in none)
    assert all("does not show that they are equal" in line for line in none)
    every = findings(changed(analysis, p_holm=0.01))
    rows = analysis.sections[0].differences
    for line, place in zip(every, analysis.sections[0].cohorts, strict=True):
        count = len(rows[rows["cohort"].eq(place)].query("metric == 'auc' and point == 'argmax'"))
        assert f"Of {count} declared pairs, {count} differ in AUC (Holm). The largest:" in line
        assert line.count("Holm p 0.010") == 2
    only = pd.Series(0.5, index=rows.index)
    only[rows.query("cohort == 'ADNI2' and metric == 'auc' and second == 'cnn5-w1'").index] = 0.01
    (line,) = [x for x in findings(changed(analysis, p_holm=only)) if "; ADNI2, " in x]
    assert "1 differs in AUC (Holm). cnn5-w1 tuned-high minus cnn5-w1, " in line


def test_a_fine_tuning_stands_beside_the_refitted_threshold(analysis):
    rows = analysis.sections[0].differences.query("cohort == 'ADNI2' and metric == 'bac'")
    refitted = rows[rows["point"] != "argmax"].iloc[0]
    plain = rows[(rows["point"] == "argmax") & (rows["second"] == "cnn5-w1")].iloc[0]
    told = (
        f"cnn5-w1 tuned-high {signed(plain['difference'])} points, against the refitted threshold "
        f"{signed(refitted['difference'])} ["
    )
    assert sum(told in line for line in findings(analysis)) == 1


def test_an_undefined_auc_and_chance_are_not_dressed_up(analysis):
    (section,) = analysis.sections
    bare = section.summary.assign(ensemble=float("nan"))
    without = dataclasses.replace(
        analysis,
        sections=(dataclasses.replace(section, summary=bare, differences=pd.DataFrame()),),
    )
    assert all(line.endswith(":") and "AUC" not in line for line in findings(without))
    wide = section.summary.assign(ensemble=0.55, ensemble_low=0.45, ensemble_high=0.65)
    chance = dataclasses.replace(analysis, sections=(dataclasses.replace(section, summary=wide),))
    assert all("55.0% [45.0, 65.0], not told apart from chance." in x for x in findings(chance))
