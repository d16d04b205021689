"""The sentences at the top of the page: each appears where its rule holds, and not elsewhere."""

import dataclasses

import pandas as pd
import pytest
import synthetic_run

from mri_jax.evaluation import learning
from mri_jax.reporting import trainings
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.cautions import cautions
from mri_jax.reporting.findings import findings, wrong
from mri_jax.showing.numbers import percent, signed


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


SOURCE = "CNN-5, source"
TUNED = "CNN-5, last conv and FC layers fine-tuned"
PAIR = "CNN-5: last conv and FC layers fine-tuned minus source"


def said(analysis, about, cohort="ADNI2"):
    """The sentences about something on a target."""
    (finding,) = [f for f in findings(analysis) if f.cohort == cohort]
    assert len(finding.claims) <= 5
    return [claim.text for claim in finding.claims if claim.about == about]


def pairs(analysis, metric="auc", cohort="ADNI2"):
    rows = analysis.sections[0].differences
    return rows[rows["cohort"].eq(cohort) & rows["split"].eq("test") & rows["metric"].eq(metric)]


def test_the_first_sentence_is_the_source_networks_auc_with_its_interval_and_chance(analysis):
    (section,) = analysis.sections
    rows = section.summary.query("cohort == 'ADNI2' and split == 'test' and metric == 'auc'")
    source = rows[rows["method"] == "cnn5-w1"].iloc[0]
    shown = f"{percent(source['mean'])}% [{percent(source['a_low'])}, {percent(source['a_high'])}]"
    assert said(analysis, "AUC")[0].startswith(f"{SOURCE}: a mean of {shown}, ")
    for low, high, told in (
        (0.45, 0.65, "55.0% [45.0, 65.0], not clearly different from chance."),
        (0.51, 0.65, "55.0% [51.0, 65.0], above chance."),
        (0.35, 0.49, "55.0% [35.0, 49.0], below chance."),
        (float("nan"), float("nan"), "55.0%, without an interval."),
    ):
        given = section.summary.assign(mean=0.55, a_low=low, a_high=high)
        assert said(with_section(analysis, summary=given), "AUC")[0].endswith(told)
    bare = section.summary.assign(mean=float("nan"), a_low=float("nan"))
    undefined = with_section(analysis, summary=bare, differences=pd.DataFrame())
    (finding, _) = findings(undefined)
    assert [c.text for c in finding.claims] == [f"{SOURCE}: undefined here."]


def test_one_pair_of_networks_is_spelled_out_and_has_a_verdict_where_none_differs(analysis):
    row = pairs(analysis).query("second == 'cnn5-w1' and point == 'argmax'").iloc[0]
    (told,) = said(changed(analysis, p_holm=0.2), "Networks")
    assert told.startswith(f"{PAIR} {signed(row['difference'])} [")
    assert told.endswith(" points (adjusted p 0.200): no clear difference.")
    (told,) = said(changed(analysis, p_holm=0.01), "Networks")
    assert told.endswith(" points (adjusted p 0.010): a clear difference.")
    assert said(changed(analysis, p_holm=float("nan")), "Networks") == [
        "No pair of networks could be tested for a difference in AUC."
    ]


def test_several_pairs_are_counted_and_the_largest_spelled_out(analysis):
    rows = analysis.sections[0].differences
    own = rows["second"].eq("cnn5-w1") & rows["metric"].eq("auc")
    rows = rows.assign(low=rows["low"].mask(own, 0.01), high=rows["high"].mask(own, 0.9))
    other = rows[own].assign(first="other", difference=rows[own]["difference"] + 0.5)

    def with_p(mine, others):
        first = rows.assign(p_holm=rows["p_holm"].mask(own, mine))
        both = pd.concat([first, other.assign(p_holm=others)], ignore_index=True)
        return said(with_section(analysis, differences=both), "Networks")[0]

    assert with_p(0.5, 0.5).startswith(
        "no clear difference in AUC in 2 comparisons; the largest: other minus "
    )
    # The one that differs is spelled out, not the largest.
    assert with_p(0.01, 0.5).startswith(
        f"1 of 2 comparisons shows a clear difference in AUC: {PAIR} "
    )
    both = with_p(0.01, 0.01)
    assert both.startswith(
        "2 of 2 comparisons show clear differences in AUC; the largest of these: other minus "
    )
    assert "doubtful" not in both
    rows = rows.assign(low=rows["low"].mask(own, -0.01))
    assert "its interval, by another method, holds 0: read it as doubtful" in with_p(0.01, 0.5)


def test_an_exploratory_table_gets_no_verdict(analysis):
    (section,) = analysis.sections
    family = dataclasses.replace(section.family, exploratory=True)
    rows = section.differences.assign(p_holm=0.001)
    explored = with_section(analysis, family=family, differences=rows)
    assert all(finding.title.endswith("(exploratory)") for finding in findings(explored))
    for about in ("Networks", "Baselines"):
        (told,) = said(explored, about)
        assert "ot planned for inference" in told
        assert not {"better", "worse", "differs"} & set(told.split())
    explored = with_section(
        analysis, family=family, differences=rows.assign(difference=0.1, p_holm=0.01)
    )
    assert said(explored, "Threshold")[0].endswith("(adjusted p 0.010).")


def test_a_fine_tuning_stands_beside_the_refitted_threshold(analysis):
    rows = pairs(analysis, "bac")
    tuned = rows[rows["point"].eq("argmax") & rows["second"].eq("cnn5-w1")].iloc[0]
    refitted = rows[rows["point"].ne("argmax")].iloc[0]
    (told,) = said(analysis, "Threshold")
    assert told.startswith(f"{TUNED}: balanced accuracy {signed(tuned['difference'])} [")
    assert f" {signed(refitted['difference'])} [" in told.split("against the source network", 1)[1]

    def meaning(tuned, threshold):
        """The end of the sentence, of two differences with their p."""
        frame = analysis.sections[0].differences.copy()
        balanced = frame["metric"].eq("bac") & frame["second"].eq("cnn5-w1")
        for chosen, (difference, p) in (
            (balanced & frame["point"].eq("argmax"), tuned),
            (balanced & frame["point"].ne("argmax"), threshold),
        ):
            frame.loc[chosen, ["difference", "p_holm"]] = difference, p
        return said(with_section(analysis, differences=frame), "Threshold")[0].rpartition(")")[2]

    alone = "and no clear difference from a new threshold alone."
    assert meaning((0.1, 0.01), (0.01, 0.6)) == f": a clear gain, {alone}"
    assert meaning((0.1, 0.2), (0.01, 0.6)) == f": no clear change, {alone}"
    assert meaning((-0.1, 0.01), (-0.1, 0.6)) == f": a clear loss, {alone}"
    assert meaning((0.1, 0.2), (0.08, 0.02)) == (": it does more than a new threshold alone.")
    assert meaning((0.1, 0.2), (-0.08, 0.02)) == (": it does less than a new threshold alone.")
    # Without a test nothing is said of the two together.
    assert meaning((0.1, 0.01), (0.01, float("nan"))) == "."
    assert said(changed(analysis, difference=float("nan")), "Threshold") == []


def baselines_differ(analysis, by):
    """The analysis with the AUC's difference between networks and ``baseline-voxels`` replaced."""
    rows = analysis.sections[0].differences
    chosen = rows["second"].eq("baseline-voxels") & rows["metric"].eq("auc")
    return changed(
        analysis,
        difference=rows["difference"].mask(chosen, by),
        low=rows["low"].mask(chosen, by - 0.02),
        high=rows["high"].mask(chosen, by + 0.03),
        p_holm=rows["p_holm"].mask(chosen, 0.004).where(chosen, 0.5),
    )


def test_baselines_are_better_worse_or_not_clearly_different(analysis):
    (told,) = said(baselines_differ(analysis, -0.123), "Baselines")
    assert told.startswith(
        f"against {SOURCE}: voxels, ridge regression: better by 12.3 [9.3, 14.3] points "
        "(adjusted p 0.004); age and sex: no clear difference ("
    )
    # As significant, and worse than the networks: the best baseline comes first.
    (told,) = said(baselines_differ(analysis, 0.3), "Baselines")
    assert told.startswith(f"against {SOURCE}: age and sex: no clear difference (")
    assert told.endswith(
        "; voxels, ridge regression: worse by 30.0 [28.0, 33.0] points (adjusted p 0.004)."
    )
    (told,) = said(changed(analysis, p_holm=0.2), "Baselines")
    assert not {"better", "worse"} & set(told.split())
    assert said(changed(analysis, p_holm=float("nan")), "Baselines") == [
        "No baseline could be compared with the networks."
    ]


def test_baselines_of_several_networks_are_one_sentence(analysis):
    rows = analysis.sections[0].differences
    voxels = rows["second"].eq("baseline-voxels")
    others = [rows[voxels].assign(first=f"cnn-{i}") for i in range(5)]
    every = pd.concat([rows, *others], ignore_index=True)
    (told,) = said(with_section(analysis, differences=every.assign(p_holm=0.2)), "Baselines")
    assert told.count("against ") == 1
    assert told.endswith("; 5 other networks in the table.")
    some = every.assign(p_holm=every["p_holm"].where(every["first"].ne("cnn-3"), float("nan")))
    (told,) = said(with_section(analysis, differences=some), "Baselines")
    assert told.endswith("; 1 more could not be tested.")


def test_the_last_sentence_says_how_well_the_auc_is_known(analysis):
    (section,) = analysis.sections
    given = section.summary.assign(a_low=0.6, a_high=0.78, b_low=0.55, b_high=0.79)
    (told,) = said(with_section(analysis, summary=given), "How sure")
    assert told == (
        f"with {section.subjects('ADNI2')} the AUC of {SOURCE} has a margin of ±9.0 points on new "
        "subjects, ±12.0 for networks trained anew."
    )
    unknown = section.summary.assign(b_low=float("nan"))
    assert said(with_section(analysis, summary=unknown), "How sure")[0].endswith("new subjects.")
    none = section.summary.assign(a_low=float("nan"))
    assert said(with_section(analysis, summary=none), "How sure") == []


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
    "Fold 2 of CNN-5, source: has hardly learnt: its probabilities are hardly better than "
    "guessing (held-out loss 0.688, guessing 0.691; held-out AUC 100%); it counts in every mean, "
    "SD and interval"
)


def test_a_network_that_has_hardly_learnt_is_named_first_and_not_warned_of_again(analysis):
    assert wrong(with_held_out(analysis, 1.0)) == []
    flat = with_held_out(analysis, 0.0101)
    assert wrong(flat) == [f"{SAID}."]
    warned = cautions(flat)
    assert warned
    assert not set(wrong(flat)) & set(warned)


def test_the_networks_tuned_from_it_are_told_in_the_same_sentence(analysis):
    (run,) = with_held_out(analysis, 0.0101).runs
    parts = run.plan[run.plan["stage"].eq("tuned-high")].assign(repeat=1)
    plan = pd.concat([run.plan, parts], ignore_index=True).assign(not_learnt="")
    fold = plan["fold"].eq(2) & plan["run"].eq("cnn5-w1")
    own = fold & plan["stage"].eq("source")
    told = learning.unlearnt(run.predictions)["reason"].item()
    plan["not_learnt"] = plan["not_learnt"].mask(fold, f"it {learning.INHERITED}").mask(own, told)
    recorded = dataclasses.replace(analysis, runs=(dataclasses.replace(run, plan=plan),))
    assert (fold & ~own).sum() == 2
    heirs = "CNN-5, last conv and FC layers fine-tuned"
    assert wrong(recorded) == [f"{SAID}, as do the networks tuned from it ({heirs})."]
    assert trainings.marks(recorded) == {
        "cnn5-w1": "fold 2: has hardly learnt",
        "cnn5-w1 tuned-high": "fold 2: descends from a network that has hardly learnt",
    }
