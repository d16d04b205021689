"""A results folder of an earlier version: it lacks what came later, and is read all the same.

``tests/data/results_of_0.1.0`` was written by commit 425d264 (three folds of a tiny network on
simulated volumes, `tests/small_run.py`); figures' arrays are left out.
"""

import html
import shutil
from pathlib import Path

import numpy as np
import pytest

from mri_jax import files
from mri_jax.evaluation import learning
from mri_jax.evaluation.variants import CNN, UNKNOWN, Variant, of_rows
from mri_jax.reporting.report import write_report
from mri_jax.runs import results

RECORDED = Path(__file__).parents[1] / "data" / "results_of_0.1.0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return shutil.copytree(RECORDED, tmp_path_factory.mktemp("old") / "run")


@pytest.fixture(scope="module")
def page(run):
    return html.unescape(write_report([str(run)]).page.read_text(encoding="utf-8"))


def test_it_has_none_of_the_later_columns():
    found = results.load(RECORDED)
    assert found.missing == ()
    assert not {"failed", "not_learnt", "chance_loss", "max_epochs"} & set(found.plan.columns)
    assert found.provenance.preprocessing is None
    assert found.provenance.near_duplicates is None
    assert found.provenance.git_commit == "425d264ce12a32f3b95302db55138036194cda5d"
    assert "min_steps" not in files.read_json(RECORDED / results.CONFIG)["train"]


def test_its_report_says_what_was_not_recorded(page):
    assert "is not recorded in these results" in page
    assert "no search for near-duplicate scans is recorded" in page
    assert "Training ran 4 epochs" in page


def test_its_networks_are_judged_by_its_predictions(page):
    found = results.load(RECORDED)
    unlearnt = learning.unlearnt(found.predictions).set_index("fold")
    noted = found.plan.query("kind == 'source'").set_index("fold")["best_validation_loss"]
    assert list(unlearnt.index) == [0, 1]
    assert unlearnt["loss"].tolist() == pytest.approx(noted[[0, 1]].tolist(), abs=1e-6)
    assert noted[2] < 0.95 * np.log(2) < noted[1]
    for fold, reason in unlearnt["reason"].items():
        assert f"Fold {fold} of CNN-2, source: has hardly learnt: {reason}; it counts in" in page
    assert "Fold 2 of CNN-2" not in page


def test_its_config_is_still_a_study():
    train = results.load(RECORDED).study.runs[0].train
    assert (train.min_steps, train.patience_steps) == (0, 0)


def test_what_its_runs_are_is_read_from_its_config(run):
    found = results.load(RECORDED)
    for table in (found.predictions, found.metrics, found.plan):
        known = of_rows(table)
        assert known["cnn2-w1"] == Variant(CNN, "", 2, 1.0)
        assert known["baseline-age-sex"] == Variant("baseline-age-sex")


@pytest.mark.usefixtures("unrendered")
def test_without_a_config_the_report_says_what_it_cannot_show(tmp_path):
    bare = shutil.copytree(RECORDED, tmp_path / "bare")
    (bare / results.CONFIG).unlink()
    found = results.load(bare)
    known = of_rows(found.predictions)
    assert (known["cnn2-w1"], known["baseline-age-sex"].is_baseline) == (UNKNOWN, True)
    line = "neither predictions.csv nor config.json says what the networks of cnn2-w1 are"
    assert any(told.startswith(line) for told in found.missing)
    written = write_report([str(bare)])
    assert line in html.unescape(written.page.read_text(encoding="utf-8"))
