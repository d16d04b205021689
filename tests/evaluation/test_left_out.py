"""Scores of every site that was left out once, their summary, and what was learnt of sites."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit

from mri_jax.evaluation import left_out
from mri_jax.evaluation.delong import auc_covariance
from mri_jax.evaluation.families import Method, declare
from mri_jax.evaluation.random_effects import combine
from mri_jax.evaluation.variants import CNN, Variant, described

SITES = {"A": 20, "B": 30, "C": 25, "D": 8, "E": 9}
GROUPS = ("A", "B", "C", "D+E")
VARIANTS = {f"n-{g}": Variant(CNN, "", 5, 1.0, left_out=g) for g in GROUPS}
METHODS = [Method(run, "source", variant) for run, variant in VARIANTS.items()]


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(2)
    rows = [
        {"subject_id": f"{site}{i}", "session_id": "ses-1", "cohort": site, "label": i % 2,
         "age": rng.uniform(20, 80), "sex": float(rng.random() < 0.5)}
        for site, count in SITES.items() for i in range(2 * count)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def predictions(people):
    """Two networks of each group, tested on it and held out from the rest; older looks ill."""
    rng = np.random.default_rng(3)
    frames = []
    for run, variant in VARIANTS.items():
        out = people["cohort"].isin(variant.left_out.split("+"))
        for fold in range(2):
            rows = people.assign(
                run=run, stage="source", repeat=0, fold=fold,
                split=np.where(out, "test", "validation"),
                logit_0=0.0,
                logit_1=1.5 * people["label"] + 0.02 * people["age"]
                + rng.standard_normal(len(people)),
            )  # fmt: skip
            frames.append(rows[out | (np.arange(len(rows)) % 2 == fold)])
    frame = pd.concat(frames, ignore_index=True)
    frame["probability"] = expit(frame["logit_1"])
    return described(frame, VARIANTS)


def features(method):
    """Of two sites alone the features differ; D and E are one."""
    rng = np.random.default_rng(4)
    for _ in range(2):
        site = np.repeat(list(SITES), [16, 16, 16, 8, 8])
        values = rng.standard_normal((len(site), 6))
        values[site == "A", 0] += 3
        yield values, site, np.isin(site, method.variant.left_out.split("+"))


@pytest.fixture(scope="module")
def found(predictions, people):
    return left_out.evaluate(predictions, METHODS, people, features, ("age", "sex", "snr"), 0)


def test_one_table_holds_all_sites_and_each_method_its_own_cohort(predictions):
    (family,) = declare(predictions)
    assert (family.key, family.apart) == ("sites", True)
    assert [m.variant.left_out for m in family.networks] == list(GROUPS)


def test_a_site_is_scored_by_its_own_networks_and_small_ones_as_one(predictions, found):
    assert [site.left_out for site in found.sites] == list(GROUPS)
    assert [sum(site.counts) for site in found.sites] == [40, 60, 50, 34]
    rows = predictions[predictions["run"].eq("n-D+E") & predictions["split"].eq("test")]
    wide = rows.pivot_table(index="fold", columns="subject_id", values="logit_1")
    label = rows.drop_duplicates("subject_id").set_index("subject_id").loc[wide.columns, "label"]
    areas, covariance = auc_covariance(label.to_numpy(), wide.to_numpy())
    last = found.sites[-1]
    assert last.each == pytest.approx(areas)
    error = np.sqrt(covariance.mean()) / (areas.mean() * (1 - areas.mean()))
    half = stats.norm.ppf(0.975) * error
    assert logit(last.a.high) - logit(last.a.estimate) == pytest.approx(half)


def test_the_summary_is_that_of_the_sites_on_the_logit_scale(found):
    area = np.array([s.a.estimate for s in found.sites])
    variance = np.array([s.variance for s in found.sites])
    wanted = combine(logit(area), variance / (area * (1 - area)) ** 2)
    (summary,) = found.summaries.values()
    limits = (summary.low, summary.mean, summary.high, summary.new_low, summary.new_high)
    assert limits == pytest.approx(
        expit([wanted.low, wanted.mean, wanted.high, wanted.new_low, wanted.new_high])
    )
    assert summary.tau == pytest.approx(wanted.tau)
    assert [s.weight for s in found.sites] == pytest.approx(wanted.weights.tolist())


def test_a_site_is_as_sure_as_a_retrained_network_makes_it(predictions, people, found):
    rows = predictions[predictions["run"].eq("n-B") & predictions["split"].eq("test")]
    wide = rows.pivot_table(index="fold", columns="subject_id", values="logit_1")
    label = rows.drop_duplicates("subject_id").set_index("subject_id").loc[wide.columns, "label"]
    areas, covariance = auc_covariance(label.to_numpy(), wide.to_numpy())
    between = max(0, areas.var(ddof=1) - covariance[0, 0] / 2 - covariance[1, 1] / 2
                  + covariance[0, 1])  # fmt: skip
    site = found.sites[1]
    retrained = covariance.mean() + 1.5 * between
    assert site.variance == pytest.approx(max(retrained, np.trace(covariance) / 2))
    # Networks of B and C that rank in opposite directions: a mean near 50%, whoever is drawn.
    turned = predictions["run"].isin(["n-B", "n-C"]) & predictions["fold"].eq(1)
    first = predictions[predictions["fold"].eq(0)]
    first = first.set_index(["run", "subject_id", "split"])["logit_1"]
    key = pd.MultiIndex.from_frame(predictions[["run", "subject_id", "split"]])
    opposite = -first.reindex(key).to_numpy()
    opposed = predictions.assign(logit_1=np.where(turned, opposite, predictions["logit_1"]))
    opposed["logit_1"] = opposed["logit_1"].fillna(0.0)
    both = left_out.evaluate(opposed, METHODS, people, features, (), 0)
    for site in both.sites[1:3]:
        assert site.a.estimate == pytest.approx(0.5)
        assert not site.a.high - site.a.low > 1e-6
        assert site.note == ""
        assert site.variance > 0.002
        assert 0 < site.weight < 0.3
    (summary,) = both.summaries.values()
    assert summary.high - summary.low > 0.2


def test_a_site_without_an_interval_says_why_and_the_best_is_not_left_out(predictions, people):
    rows = predictions["run"].eq("n-C") & predictions["split"].eq("test")
    perfect = predictions.assign(
        logit_1=predictions["logit_1"].where(~rows, 100.0 * predictions["label"])
    )
    perfect = perfect[~(perfect["run"].eq("n-B") & perfect["label"].eq(0))]
    found = left_out.evaluate(perfect, METHODS, people, features, (), 0)
    told = {s.left_out: (s.note, np.isnan(s.weight)) for s in found.sites}
    assert told["C"] == (left_out.COMPLETED, False)
    assert told["B"] == ("undefined: one class alone", True)
    assert told["A"] == ("", False)
    others = [s for s in found.sites if s.left_out in ("A", "D+E")]
    weight = np.array([s.weight for s in found.sites])
    value = [logit(s.a.estimate) for s in others]
    (summary,) = found.summaries.values()
    # 25 against 25: 625.5 of 626 pairs.
    value.insert(1, logit(625.5 / 626))
    assert logit(summary.mean) == pytest.approx(weight[[0, 2, 3]] @ value)


def test_baselines_are_summed_up_beside_the_networks(predictions, people):
    plain = {f"p-{g}": Variant("baseline-hippocampus", left_out=g) for g in GROUPS}
    rows = predictions.assign(run="p" + predictions["run"].str[1:])
    both = pd.concat([predictions, described(rows, plain)], ignore_index=True)
    (family,) = declare(both)
    found = left_out.evaluate(both, family.methods, people, features, (), 0)
    assert [m.name for m in found.summaries] == ["cnn5-w1", "baseline-hippocampus"]
    network, baseline = found.summaries.values()
    assert network.mean == baseline.mean
    assert len(found.learnt) == len(GROUPS)


def test_what_tuning_changes_is_told_on_the_sites_where_it_was_done(predictions, people):
    tuned = predictions[predictions["run"].ne("n-D+E")].assign(stage="tuned-high")
    tuned = tuned[tuned["split"].eq("test")]
    better = 0.8 * tuned["label"]
    both = pd.concat([predictions, tuned.assign(logit_1=tuned["logit_1"] + better)])
    methods = [*METHODS, *(replace(m, stage="tuned-high") for m in METHODS[:3])]
    found = left_out.evaluate(both, methods, people, features, (), 0)
    (gain,) = found.gains.values()
    assert (gain.sites, gain.lacking) == (("A", "B", "C"), ("D+E",))
    source, after = (
        [s for s in found.sites if s.method.stage == stage and s.left_out != "D+E"]
        for stage in ("source", "tuned-high")
    )
    changes = [b.a.estimate - a.a.estimate for a, b in zip(source, after, strict=True)]
    limits = stats.t.interval(0.95, 2, np.mean(changes), stats.sem(changes))
    assert (gain.difference, gain.low, gain.high) == pytest.approx((np.mean(changes), *limits))
    alone = predictions[predictions["run"].ne("n-D+E")]
    (summary,) = left_out.evaluate(alone, METHODS[:3], people, features, (), 0).summaries.values()
    assert gain.source == pytest.approx(summary.mean)


def test_a_site_that_is_trained_on_and_never_left_out_is_named(predictions, people, found):
    assert found.untested == ()
    some = predictions[predictions["run"].ne("n-C")]
    less = left_out.evaluate(some, [*METHODS[:2], METHODS[3]], people, features, (), 0)
    assert less.untested == ("C",)


def test_features_tell_the_site_that_differs_and_no_other(found):
    learnt = found.learnt.set_index("left_out")
    assert learnt.loc["A", "low"] > 0.8
    assert learnt.loc["B", "low"] < 0.5 < learnt.loc["B", "high"]
    # Of the sites that the networks were trained on one of three differs, for all groups but A.
    assert learnt.loc["A", "others"] < learnt.loc[["B", "C", "D+E"], "others"].min()


def test_the_score_of_controls_goes_with_age_and_not_with_sex(found, predictions, people):
    rows = found.dependence.set_index("covariate")
    assert list(rows.index) == ["age", "sex"]
    assert rows.loc["age", "low"] > 0
    assert rows.loc["sex", "low"] < 0 < rows.loc["sex", "high"]
    assert rows.loc["age", ["controls", "sites"]].tolist() == [92, 4]
    tested = predictions[predictions["split"].eq("test") & predictions["label"].eq(0)]
    tested = tested.drop(columns="age").merge(people[["subject_id", "age"]], on="subject_id")
    z, n = [], []
    for _, of in tested.groupby("run"):
        mean = of.groupby("subject_id")[["logit_1", "age"]].mean()
        z.append(np.arctanh(stats.spearmanr(mean["logit_1"], mean["age"]).statistic))
        n.append(len(mean) - 3)
    assert rows.loc["age", "rho"] == pytest.approx(np.tanh(np.average(z, weights=n)))
