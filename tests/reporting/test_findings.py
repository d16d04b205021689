"""The sentences at the top of the page say what the statistics say, and no more."""

import dataclasses

import pandas as pd
import pytest
import synthetic_run

from mri_jax.evaluation import learning
from mri_jax.reporting import trainings
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.cautions import cautions
from mri_jax.reporting.findings import TRAINING, findings
from mri_jax.showing.numbers import p_value, percent, signed


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "high"
    synthetic_run.write_run(folder, stages=("tuned-high",), inner=True)
    return analyse(load_runs([str(folder)]))


def changed(analysis, **columns):
    """The analysis with columns of its differences replaced."""
    return with_section(analysis, differences=analysis.sections[0].differences.assign(**columns))


def with_section(analysis, **parts):
    """The analysis with parts of its only section replaced."""
    (section,) = analysis.sections
    return dataclasses.replace(analysis, sections=(dataclasses.replace(section, **parts),))


def lines(analysis, cohort=""):
    """Every line about a cohort, or all."""
    (finding,) = [f for f in findings(analysis) if f.title != TRAINING]
    return [line for line in finding.lines if line.startswith(cohort)]


def test_a_finding_states_the_mean_auc_its_interval_and_the_differences(analysis):
    (section,) = analysis.sections
    (line,) = lines(analysis, "ADNI2 ")
    assert section.subjects("ADNI2") in line
    rows = section.summary.query("cohort == 'ADNI2' and split == 'test' and metric == 'auc'")
    source = rows[rows["method"] == "cnn5-w1"].iloc[0]
    assert f"a mean AUC of {percent(source['mean'])}% [{percent(source['a_low'])}, " in line
    assert (source["a_low"] > 0.5) == ("above chance" in line)
    pairs = section.differences.query(
        "cohort == 'ADNI2' and split == 'test' and metric == 'auc' and point == 'argmax'"
    )
    networks = pairs["second"].eq("cnn5-w1")
    assert networks.sum() == 1
    row = pairs[networks].iloc[0]
    verdict = "1 differs in AUC: " if row["p_holm"] < 0.05 else "none differs in AUC beyond chance"
    assert f"Of 1 declared pair of networks {verdict}" in line
    assert f"{row['first']} minus {row['second']} {signed(row['difference'])} [" in line
    assert f"Holm p {p_value(row['p_holm'])}" in line
    assert f"Of {(~networks).sum()} declared pairs of a network and a baseline " in line


def test_what_holds_is_counted_and_the_largest_spelled_out(analysis):
    for line in lines(changed(analysis, p_holm=0.2)):
        assert line.count("none differs in AUC beyond chance") == 2
    for line in lines(changed(analysis, p_holm=0.01)):
        auc = line.split(" Plain baselines")[0].split(" Balanced accuracy")[0]
        assert "Of 1 declared pair of networks 1 differs in AUC: " in auc
        assert "of a network and a baseline 2 differ in AUC: " in auc
        assert auc.count("Holm p 0.010") == 3
    rows = analysis.sections[0].differences
    twice = [rows, rows[rows["metric"].eq("auc")]]
    doubled = pd.concat(twice, ignore_index=True).assign(p_holm=0.01)
    for line in lines(with_section(analysis, differences=doubled)):
        auc = line.split(" Plain baselines")[0].split(" Balanced accuracy")[0]
        assert "of a network and a baseline 4 differ in AUC, most of all: " in auc
        assert auc.count("Holm p 0.010") == 4


def test_a_pair_without_a_test_is_counted_and_said_to_have_none(analysis):
    rows = analysis.sections[0].differences
    voxels = rows["second"].eq("baseline-voxels")
    for line in lines(changed(analysis, p_holm=rows["p_holm"].mask(voxels))):
        assert "Of 2 declared pairs of a network and a baseline (1 could not be tested) " in line
    for line in lines(changed(analysis, p_holm=float("nan"))):
        assert "Of 1 declared pair of networks (1 could not be tested) none has a test." in line


def test_an_exploratory_table_gets_no_verdict(analysis):
    (section,) = analysis.sections
    family = dataclasses.replace(section.family, exploratory=True)
    rows = section.differences.assign(p_holm=0.001)
    explored = with_section(analysis, family=family, differences=rows)
    (finding,) = [f for f in findings(explored) if f.title != TRAINING]
    assert finding.title.endswith("(exploratory)")
    for line in finding.lines:
        assert "which were not planned for inference, most of all: " in line
        assert " differ" not in line


def test_a_fine_tuning_stands_beside_the_refitted_threshold(analysis):
    rows = analysis.sections[0].differences.query("cohort == 'ADNI2' and metric == 'bac'")
    refitted = rows[rows["point"] != "argmax"].iloc[0]
    plain = rows[(rows["point"] == "argmax") & (rows["second"] == "cnn5-w1")].iloc[0]
    told = (
        f"Balanced accuracy: cnn5-w1 tuned-high minus its source network "
        f"{signed(plain['difference'])} ["
    )
    (line,) = [line for line in lines(analysis) if told in line]
    assert (
        "minus the same network at a threshold refitted on the adaptation part "
        f"{signed(refitted['difference'])} ["
    ) in line
    undefined = lines(changed(analysis, difference=float("nan")))
    assert not any("Balanced accuracy" in line or "nan" in line for line in undefined)


def test_an_undefined_auc_and_chance_are_not_dressed_up(analysis):
    (section,) = analysis.sections
    bare = section.summary.assign(mean=float("nan"))
    found = lines(with_section(analysis, summary=bare, differences=pd.DataFrame()))
    assert len(found) == 2
    assert all(line.endswith("the AUC of cnn5-w1 is undefined here.") for line in found)
    for low, high, told in (
        (0.45, 0.65, "55.0% [45.0, 65.0], not told apart from chance."),
        (0.51, 0.65, "55.0% [51.0, 65.0], above chance."),
        (0.35, 0.49, "55.0% [35.0, 49.0], below chance."),
        (float("nan"), float("nan"), "55.0%, without an interval."),
    ):
        given = section.summary.assign(mean=0.55, a_low=low, a_high=high)
        assert all(told in line for line in lines(with_section(analysis, summary=given)))


def baselines_differ(analysis, by):
    """The analysis with the AUC's difference between networks and ``baseline-voxels`` replaced."""
    rows = analysis.sections[0].differences
    chosen = rows["second"].eq("baseline-voxels") & rows["metric"].eq("auc")
    return changed(
        analysis,
        difference=rows["difference"].mask(chosen, by),
        p_holm=rows["p_holm"].mask(chosen, 0.004).where(chosen, 0.5),
    )


def test_a_baseline_that_is_significantly_better_is_said(analysis):
    said = (
        "Plain baselines are significantly better than the networks of cnn5-w1: baseline-voxels "
        "(by 12.3 points of AUC, Holm p 0.004)."
    )
    for line in lines(baselines_differ(analysis, -0.123)):
        assert said in line
        assert "baseline-age-sex (by" not in line
    # As significant, and worse than the networks.
    for line in lines(baselines_differ(analysis, 0.123)):
        assert "Plain baselines" not in line
        assert "cnn5-w1 minus baseline-voxels +12.3" in line
    # Better, and not beyond chance.
    assert not any("Plain baselines" in line for line in lines(changed(analysis, p_holm=0.2)))


def with_held_out(analysis, strength, fold=2):
    """The analysis with every held-out scan of one network right (or wrong) by ``strength``.

    The other networks are right by 1.
    """
    (run,) = analysis.runs
    rows = run.predictions
    held = rows["split"].eq("validation") & rows["stage"].eq("source")
    sign = rows["label"].map({0: -1.0, 1: 1.0})
    score = sign.where(rows["fold"].ne(fold), sign * strength)
    predictions = rows.assign(
        logit_0=rows["logit_0"].mask(held, 0.0), logit_1=rows["logit_1"].mask(held, score)
    )
    changed_run = dataclasses.replace(run, predictions=predictions)
    return dataclasses.replace(analysis, runs=(changed_run,), predictions=predictions)


SAID = (
    "Fold 2 of cnn5-w1: has hardly learnt: its probabilities are hardly better than guessing "
    "(held-out loss 0.688, guessing 0.691; held-out AUC 100%); it counts in every mean, SD and "
    "interval"
)


def test_a_network_that_has_hardly_learnt_is_named_first_and_not_warned_of_again(analysis):
    assert findings(with_held_out(analysis, 1.0))[0].title != TRAINING
    flat = with_held_out(analysis, 0.0101)
    assert findings(flat)[0].title == TRAINING
    assert findings(flat)[0].lines == (f"{SAID}.",)
    warned = cautions(flat)
    assert warned
    assert not {line for found in findings(flat) for line in found.lines} & set(warned)


def test_the_networks_tuned_from_it_are_told_in_the_same_sentence(analysis):
    (run,) = with_held_out(analysis, 0.0101).runs
    parts = run.plan[run.plan["stage"].eq("tuned-high")].assign(repeat=1)
    plan = pd.concat([run.plan, parts], ignore_index=True).assign(not_learnt="")
    fold = plan["fold"].eq(2) & plan["run"].eq("cnn5-w1")
    own = fold & plan["stage"].eq("source")
    told = learning.unlearnt(run.predictions)["reason"].item()
    plan["not_learnt"] = plan["not_learnt"].mask(fold, "inherited").mask(own, told)
    recorded = dataclasses.replace(analysis, runs=(dataclasses.replace(run, plan=plan),))
    assert (fold & ~own).sum() == 2
    assert findings(recorded)[0].lines == (
        f"{SAID}, as do the networks tuned from it (tuned-high).",
    )
    assert trainings.marks(recorded) == {
        "cnn5-w1": "fold 2: has hardly learnt",
        "cnn5-w1 tuned-high": "fold 2: was tuned from a network that has hardly learnt",
    }
