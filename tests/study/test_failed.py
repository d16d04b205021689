"""Studies in which trainings fail for real: a scan whose values overflow in the network."""

import numpy as np
import pandas as pd
import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.reporting.report import write_report
from mri_jax.runs import results
from mri_jax.runs.trained import open_run
from tests.small_run import make_run

# Without normalisation a volume of about 2e38 overflows in the first layer.
OVERFLOWS = 2e37
UNSCALED = {"data": {"normalisation": "none"}, "finetune": {"inner_folds": 0}}
BROKEN = "ADNI1-003"


@pytest.fixture(scope="module")
def one_fold(tmp_path_factory):
    """One source scan overflows: its fold has no held-out loss, the others leave its step out."""
    said = []
    folder = tmp_path_factory.mktemp("one_fold")
    run = make_run(folder, {BROKEN: OVERFLOWS}, said.append, **UNSCALED)
    return run, "\n".join(said)


@pytest.fixture(scope="module")
def every_fold(tmp_path_factory):
    factors = {f"ADNI1-{i:03d}": OVERFLOWS for i in range(20)}
    folder = tmp_path_factory.mktemp("every_fold")
    return make_run(folder, factors, **UNSCALED)


def failed_fold(run):
    held_out = results.load(run).predictions.query("split == 'validation' and stage == 'source'")
    return int(held_out.set_index("subject_id").loc[BROKEN, "fold"].iloc[0])


def test_a_fold_that_failed_is_neither_tuned_nor_scored(one_fold):
    run, said = one_fold
    fold, found = failed_fold(run), results.load(run)
    reason = "no epoch had a finite held-out loss"
    assert f"cnn2-w1 fold {fold}: training failed: {reason}; it is neither tuned nor" in said
    ending = (
        f"Fold {fold} of cnn2-w1: training failed: {reason}; no score is given for it, and none"
    )
    assert [line.startswith(ending) for line in said.splitlines()].count(True) == 1
    assert said.count("; the networks tuned from it (cnn2-w1 tuned-high) failed with it.\n") == 1
    plan = found.plan[found.plan["kind"].isin(("source", "tune"))].set_index(["stage", "fold"])
    failed = plan["failed"].dropna()
    assert failed.to_dict() == {
        ("source", fold): reason,
        ("tuned-high", fold): f"its network failed ({reason})",
    }
    for (_, number), row in plan.iterrows():
        files_there = {path.name for path in files.absolute(row["folder"]).iterdir()}
        assert ("network" in files_there) is (number != fold)
    networks = found.predictions[~found.predictions["run"].str.startswith("baseline")]
    bad = networks[networks["logit_1"].isna()]
    # Of the other folds, tuned networks included, the overflowing scan alone has no score.
    assert set(bad["fold"]) == {fold}
    assert networks.query("fold == @fold")["logit_1"].isna().all()
    scores = found.metrics.query("split == 'test' and run == 'cnn2-w1' and fold >= 0")
    assert scores.query("fold == @fold")["auc"].isna().all()
    assert scores.query("fold != @fold")["auc"].notna().all()
    assert found.history.query("stage == 'source' and fold != @fold")["not_finite"].eq(1).all()


def test_tables_and_page_name_the_fold_and_give_no_number_for_the_mean(one_fold):
    run, _ = one_fold
    fold = failed_fold(run)
    table = pd.read_csv(run / "tables" / "test-ADNI2.csv", keep_default_na=False).set_index(
        ["run", "stage"]
    )
    assert table.loc[("cnn2-w1", "source"), "AUC"] == "undefined"
    note = table.loc[("cnn2-w1", "tuned-high"), "note"]
    assert note.split("; ")[0] == f"fold {fold}: training failed"
    assert "±" in table.loc[("baseline-age-sex", ""), "AUC"]
    assert table.loc[("baseline-age-sex", ""), "note"] == ""
    page = write_report([str(run)]).page.read_text(encoding="utf-8")
    assert f"Fold {fold} of CNN-2, source: training failed: no epoch had a finite held-out" in page
    scores = (run / "tables" / "finetune-scores.md").read_text(encoding="utf-8")
    assert f"| CNN-2, source fold {fold}: training failed; " in scores
    tests = pd.read_csv(run / "tables" / "finetune-differences.csv")
    assert tests["p"].isna().all()
    assert tests["note"].str.contains(f"scores are NaN (fold {fold})", regex=False).all()


def test_the_same_command_again_gives_the_same_bytes(one_fold):
    run, _ = one_fold
    before = {name: (run / name).read_bytes() for name in (results.PREDICTIONS, results.METRICS)}
    said = []
    make_run(run.parent, None, said.append, **UNSCALED)
    assert "3 source networks (3 cached), 3 fine-tunings (3 cached)" in said[1]
    assert {name: (run / name).read_bytes() for name in before} == before


def test_only_networks_that_were_trained_can_be_opened(one_fold):
    run, _ = one_fold
    fold, opened = failed_fold(run), open_run(run)
    assert {m.fold for m in opened.members} == {0, 1, 2} - {fold}
    assert all(np.isfinite(m.load().params["conv1"]["kernel"]).all() for m in opened.members)
    with pytest.raises(UserError, match=rf"is incomplete: the training of fold {fold} failed"):
        opened.ensemble("cnn2-w1", "source")


def test_a_study_whose_every_network_failed_ends_with_a_report_that_says_so(every_fold):
    found = results.load(every_fold)
    assert found.plan["failed"].notna().sum() == 6
    assert found.predictions.query("run == 'cnn2-w1'")["probability"].isna().all()
    page = write_report([str(every_fold)]).page.read_text(encoding="utf-8")
    assert "Folds 0, 1, 2 of CNN-2, source: training failed" in page
    assert not (every_fold / results.FILTERS).exists()
    assert "baseline-age-sex" in page
