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


def lines(analysis, cohort=""):
    """Every line about a cohort, or all."""
    (finding,) = findings(analysis)
    return [line for line in finding.lines if line.startswith(cohort)]


def test_a_finding_states_the_auc_its_interval_and_the_differences(analysis):
    (section,) = analysis.sections
    (line,) = lines(analysis, "ADNI2 ")
    assert section.subjects("ADNI2") in line
    rows = section.summary.query("cohort == 'ADNI2' and split == 'test' and metric == 'auc'")
    source = rows[rows["method"] == "cnn5-w1"].iloc[0]
    assert f"an AUC of {percent(source['ensemble'])}% [{percent(source['ensemble_low'])}" in line
    assert (source["ensemble_low"] > 0.5) == ("above chance" in line)
    pairs = section.differences.query(
        "cohort == 'ADNI2' and split == 'test' and metric == 'auc' and point == 'argmax'"
    )
    networks = pairs["second"].eq("cnn5-w1")
    assert networks.sum() == 1
    row = pairs[networks].iloc[0]
    verdict = "1 differs in AUC: " if row["p_holm"] < 0.05 else "none differs in AUC beyond chance"
    assert f"Of 1 declared pair of networks {verdict}" in line
    assert f"{row['first']} minus {row['second']} {signed(row['difference'])} points" in line
    assert f"p {p_value(row['p_holm'])}" in line
    assert f"Of {(~networks).sum()} declared pairs of a network and a baseline " in line


def test_what_holds_is_counted_and_the_largest_spelled_out(analysis):
    for line in lines(changed(analysis, p_holm=0.2)):
        assert line.count("none differs in AUC beyond chance") == 2
    for line in lines(changed(analysis, p_holm=0.01)):
        assert "Of 1 declared pair of networks 1 differs in AUC: " in line
        assert "of a network and a baseline 2 differ in AUC: " in line
        assert line.count("p 0.010") == 3
    rows = analysis.sections[0].differences
    twice = [rows, rows[rows["metric"].eq("auc")]]
    doubled = pd.concat(twice, ignore_index=True).assign(p_holm=0.01)
    (section,) = analysis.sections
    more = dataclasses.replace(section, differences=doubled)
    for line in lines(dataclasses.replace(analysis, sections=(more,))):
        assert "of a network and a baseline 4 differ in AUC, most of all: " in line
        assert line.count("p 0.010") == 4


def test_a_fine_tuning_stands_beside_the_refitted_threshold(analysis):
    rows = analysis.sections[0].differences.query("cohort == 'ADNI2' and metric == 'bac'")
    refitted = rows[rows["point"] != "argmax"].iloc[0]
    plain = rows[(rows["point"] == "argmax") & (rows["second"] == "cnn5-w1")].iloc[0]
    told = (
        f"Balanced accuracy: cnn5-w1 tuned-high {signed(plain['difference'])} points against the "
        f"source network, {signed(refitted['difference'])} ["
    )
    assert sum(told in line for line in lines(analysis)) == 1


def test_an_undefined_auc_and_chance_are_not_dressed_up(analysis):
    (section,) = analysis.sections
    bare = section.summary.assign(ensemble=float("nan"))
    without = dataclasses.replace(section, summary=bare, differences=pd.DataFrame())
    found = lines(dataclasses.replace(analysis, sections=(without,)))
    assert len(found) == 2
    assert all(line.endswith("):") for line in found)
    wide = section.summary.assign(ensemble=0.55, ensemble_low=0.45, ensemble_high=0.65)
    chance = dataclasses.replace(section, summary=wide)
    found = lines(dataclasses.replace(analysis, sections=(chance,)))
    assert all("55.0% [45.0, 65.0], not told apart from chance." in line for line in found)
