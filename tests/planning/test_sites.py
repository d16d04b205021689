"""Every site left out once: from counts of scans to variants and a plan."""

import pandas as pd
import pytest

from mri_jax.cohort.table import read_table, write_table
from mri_jax.errors import UserError
from mri_jax.planning.planner import make_plan
from mri_jax.planning.simulated import catalogue_to_make, site_counts
from mri_jax.planning.sites import counts_in, left_out_in_turn
from mri_jax.settings.study import Study
from mri_jax.study.scans import open_catalogue, with_sites
from mri_jax.volumes.store import VolumeStore
from tests import studies
from tests.tiny import SMALL_MODEL, make_cohorts

# Negatives and positives; C and D are small, and E has nothing of the task.
COUNTS = {"A": (30, 20), "B": (12, 10), "C": (6, 9), "D": (7, 5), "E": (0, 0)}


def expanded(counts=COUNTS, **overrides):
    return left_out_in_turn(studies.study("leave_one_site_out", **overrides), counts)


def test_large_sites_are_left_out_alone_and_small_ones_together():
    study, told = expanded()
    assert [(r.name, r.source.cohorts, r.targets) for r in study.runs] == [
        ("cnn5-w1-without-A", ("B", "C", "D"), ("A",)),
        ("cnn5-w1-without-B", ("A", "C", "D"), ("B",)),
        ("cnn5-w1-without-C+D", ("A", "B"), ("C", "D")),
    ]
    (line,) = told
    assert "config.sites.minimum: 10: left out together, with fewer scans of AD and CN" in line
    assert line.endswith(": C (9 and 6), D (5 and 7)")
    assert not study.awaits_sites
    assert Study.written(study.to_json()) == study


def test_small_sites_that_are_dropped_are_in_no_training():
    study, told = expanded(sites__small="drop")
    assert {cohort for r in study.runs for cohort in r.source.cohorts + r.targets} == {"A", "B"}
    (line,) = told
    assert "not used, with fewer scans of AD and CN: C (9 and 6), D (5 and 7)" in line


def test_small_sites_too_small_together_are_trained_on_alone():
    study, told = expanded(COUNTS | {"D": (1, 0)})
    assert [r.targets for r in study.runs] == [("A",), ("B",)]
    assert study.runs[0].source.cohorts == ("B", "C", "D")
    assert "trained on, never left out" in told[0]
    assert told[1] == "trained on, never tested, with one of AD and CN alone: D (0 and 1)"


@pytest.mark.parametrize("small", ["pool", "drop"])
def test_a_site_of_one_class_is_trained_on_and_tested_neither_alone_nor_with_others(small):
    counts = {"A": (30, 20), "B": (12, 10), "C": (9, 9), "D": (8, 8), "ONE": (24, 0)}
    study, told = expanded(counts, sites__small=small)
    assert all("ONE" in run.source.cohorts and "ONE" not in run.targets for run in study.runs)
    last = {"pool": ("C", "D"), "drop": ("B",)}[small]
    assert study.runs[-1].targets == last
    assert told[-1] == "trained on, never tested, with one of AD and CN alone: ONE (0 and 24)"


def test_classes_that_a_table_lacks_are_named_with_those_that_it_has():
    frame = pd.DataFrame({"cohort": ["NYU", "NYU", "KKI"], "diagnosis": ["ASD", "TC", "TC"]})
    with pytest.raises(UserError, match=r"task.positive: .* no scan of 'AD'; it has ASD, TC"):
        counts_in(frame, studies.study("leave_one_site_out"))
    asked = studies.study("leave_one_site_out", task__positive="ASD", task__negative="TC")
    assert counts_in(frame, asked) == {"NYU": (1, 1), "KKI": (1, 0)}
    with pytest.raises(UserError, match="cohorts 'KKI' and 'kki_' differ by their spelling"):
        counts_in(pd.concat([frame, frame.assign(cohort="kki_")]), asked)


def test_variants_of_a_study_are_made_for_each_site():
    variants = ({}, {"model": {"preset": "cnn7"}})
    study, _ = expanded(variants=variants, sites__cohorts=("A", "B"))
    names = [r.name for r in study.runs]
    assert names == [
        "cnn5-w1-without-A", "cnn5-w1-without-B", "cnn7-w1-without-A", "cnn7-w1-without-B"
    ]  # fmt: skip


def test_tuning_is_on_the_site_left_out_and_not_on_several_together():
    study, told = expanded(finetune__layers=("high",))
    assert "left out together and not adapted to, with fewer scans" in told[0]
    assert [r.finetune.cohort for r in study.runs[:2]] == ["A", "B"]
    assert [len(r.tunings) for r in study.runs] == [1, 1, 0]


@pytest.mark.parametrize(
    ("counts", "overrides", "rule"),
    [
        ({"A": (30, 20), "B": (12, 9)}, {}, "sites.minimum: 10: A has as many .* others: B .9 and"),
        ({"A": (3, 2)}, {}, "config.sites: A has scans of both AD and CN, and two sites are"),
        ({"A": (9, 9), "B": (8, 7), "C": (2, 1)}, {}, "10: no site has as many .* lower it to 7$"),
        (COUNTS, {"sites__cohorts": ("A",)}, "config.sites.cohorts: A has scans of both"),
        (COUNTS, {"sites__cohorts": ("A", "Z")}, "sites.cohorts: 'Z' has no scan of AD or CN"),
        (COUNTS, {"sites__cohorts": ("A", "E")}, "sites.cohorts: 'E' has no scan of AD or CN"),
    ],
)
def test_sites_that_will_not_do_are_named_with_the_field(counts, overrides, rule):
    with pytest.raises(UserError, match=rule) as refused:
        expanded(counts, **overrides)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("of", "overrides", "rule"),
    [
        (
            "leave_one_site_out",
            {"source__cohorts": ("ADNI2",)},
            "source.cohorts: .* says otherwise",
        ),
        ("leave_one_site_out", {"targets": ("SITE3",)}, "targets: .* says otherwise"),
        ("leave_one_site_out", {"finetune__cohort": "SITE1"}, "finetune.cohort: .* says otherwise"),
        ("leave_one_site_out", {"search__trials": 3}, "search.trials: a search and .* exclude"),
        ("leave_one_site_out", {"sites__left_out": ("A",)}, "sites.left_out: is said by the table"),
        ("baseline", {"sites__small": "drop"}, "sites.small: needs config.sites.minimum"),
        ("baseline", {"sites__cohorts": ("A",)}, "sites.cohorts: needs config.sites.minimum"),
    ],
)
def test_fields_that_say_the_same_otherwise_are_refused(of, overrides, rule):
    with pytest.raises(UserError, match=rule):
        studies.study(of, **overrides)


def test_the_plan_of_seven_simulated_sites_never_shows_a_network_its_site():
    study = studies.study("leave_one_site_out", finetune__layers=())
    study, _ = left_out_in_turn(study, site_counts(study))
    catalogue = catalogue_to_make(study)
    cohort = catalogue.frame["cohort"]
    plan = make_plan(study, catalogue)
    networks = [e for e in plan.entries if e.network.kind == "source"]
    assert len(networks) == 6 * 3
    for entry in networks:
        out = set(entry.variant.left_out.split("+"))
        trained = entry.network.train.rows + entry.network.validation.rows
        assert set(cohort[list(trained)]) == set(cohort) - out
        asked = {row for a in entry.answers if a.split == "test" for row in a.examples.rows}
        assert set(cohort[sorted(asked)]) == out
        seen = entry.features.tested
        assert set(seen.rows) == set(entry.network.validation.rows) | asked
    baselines = {e.run for e in plan.entries if e.variant.is_baseline}
    assert len(baselines) == 6 * 3
    assert "baseline-voxels-without-SITE6+SITE7" in baselines


def test_equal_training_sets_share_their_stages():
    first = studies.study("leave_one_site_out")
    counts = site_counts(first)
    pooled, _ = left_out_in_turn(first, counts)
    assert pooled.runs[5].source.cohorts == ("SITE1", "SITE2", "SITE3", "SITE4", "SITE5")
    again, _ = left_out_in_turn(studies.study("leave_one_site_out", sites__minimum=12), counts)
    prints = [
        {s.fingerprint for s in make_plan(study, catalogue_to_make(study)).stages()
         if s.kind == "source"}
        for study in (pooled, again)
    ]  # fmt: skip
    assert prints[0] == prints[1]


def test_sites_of_a_table_are_counted_with_their_volumes_and_bring_figures_of_quality(tmp_path):
    table, path = make_cohorts(tmp_path, subjects=6, cohorts=("NYU", "UM_1", "KKI"))
    frame = read_table(table)
    frame["diagnosis"] = frame["diagnosis"].map({"AD": "ASD", "CN": "TC"})
    lost = frame[frame["cohort"].eq("KKI")].assign(subject_id=lambda f: f["subject_id"] + "x")
    # Two subjects of KKI have a volume, ten have none.
    rows = pd.concat([frame[frame["cohort"].ne("KKI")], frame[frame["cohort"].eq("KKI")][:2], lost])
    write_table(table, rows)
    index = pd.read_csv(path / "index.csv", dtype=str, keep_default_na=False)
    index["snr"] = [str(10 + place) for place in range(len(index))]
    index.sample(frac=1, random_state=0).to_csv(path / "index.csv", index=False)
    asked = studies.study(
        "leave_one_site_out", task__positive="ASD", task__negative="TC", sites__minimum=3,
        data__cohort=str(table), data__store=str(path), train__folds=2,
        **{f"model__{field}": value for field, value in SMALL_MODEL.items()},
    )  # fmt: skip
    store, told = VolumeStore(path), []
    study = with_sites(asked, store, told.append)
    (line,) = told
    assert line.endswith("fewer scans of ASD and TC even together: KKI (1 and 1)")
    assert [run.variant.left_out for run in study.runs] == ["NYU", "UM_1"]
    catalogue = open_catalogue(table, store, study)
    snr = dict(zip(index["subject_id"], index["snr"].astype(float), strict=True))
    assert catalogue.frame["snr"].astype(float).tolist() == [
        snr[subject] for subject in catalogue.frame["subject_id"]
    ]
    sources = [s for s in make_plan(study, catalogue).stages() if s.kind == "source"]
    assert len(sources) == 4
