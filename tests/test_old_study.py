"""A study of an earlier version: its run and exported model are read, its networks trained again.

``tests/data/study_of_0.1.0.tar.xz`` was written by commit d9b6f4b: ``make_run`` of
`tests.small_run` with two folds of two epochs and no inner folds, then ``export-model``. The folder
of the run was renamed in it to ``/home/user/study``.
"""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mri_jax import cli
from mri_jax.reporting.report import write_report
from mri_jax.runs import results, trained
from mri_jax.study.permuted import permuted_network
from tests.networks import apply
from tests.small_run import make_run

NAMES = ["run", "stage", "repeat", "fold", "cohort", "split", "subject_id"]


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "old"
    with tarfile.open(Path(__file__).parent / "data" / "study_of_0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_its_run_is_reported(study):
    found = results.load(study / "run")
    assert found.missing == ()
    networks = found.predictions[found.predictions["run"] == "cnn2-w1"]
    assert set(networks[["family", "depth", "width"]].itertuples(index=False, name=None)) == {
        ("cnn", 2, 1.0)
    }
    page = write_report([str(study / "run")]).page.read_text(encoding="utf-8")
    assert "SIMULATED" in page
    assert "cnn2-w1" in page


def test_its_networks_give_the_logits_that_it_wrote(study):
    run = trained.open_run(study / "run", store=study / "data" / "store")
    assert len(run.members) == 4
    for member in run.members:
        network = member.load()
        volumes = run.reader(run.held_out(member)).load(threads=1)
        rows = run.rows(member, "validation").sort_values(["subject_id", "session_id"])
        logits = apply(network.spec, network.variables, volumes)
        np.testing.assert_allclose(logits, rows[["logit_0", "logit_1"]], atol=1e-5)


def test_its_exported_model_predicts_what_it_wrote(study, tmp_path):
    asked = [str(study / "model"), str(study / "data" / "store"), "--out", str(tmp_path / "p")]
    assert cli.main(["predict", *asked]) == 0
    rows = pd.read_csv(tmp_path / "p" / "predictions.csv")
    rows = rows[rows["stage"] == "tuned-high"].set_index("subject_id")
    said = results.load(study / "run").predictions.query(
        "run == 'cnn2-w1' and stage == 'tuned-high' and split == 'test' and fold == 1"
    )
    found = rows.loc[said["subject_id"], "fold_1"]
    np.testing.assert_allclose(found, said["probability"], atol=1e-5)


def test_its_networks_were_trained_with_other_numerics_and_are_trained_again(study):
    before = results.load(study / "run").predictions.set_index(NAMES)
    kept = {path: path.stat().st_mtime_ns for path in (study / "stages").glob("*/network/*")}
    assert len(kept) > 8
    said: list[str] = []
    (study / "run").rename(study / "old-run")
    run = make_run(
        study, say=said.append, finetune={"inner_folds": 0},
        train={"folds": 2, "min_epochs": 2, "max_epochs": 2},
    )  # fmt: skip
    told = "\n".join(said)
    asked = "2 source networks (0 cached), 2 fine-tunings (0 cached), 8 evaluations (0 cached)"
    assert asked in told
    assert (
        "4 finished networks were trained with other numerics (version 2, now 4) and are trained "
        "again; they stay where they are"
    ) in told
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again = results.load(run).predictions.set_index(NAMES)
    assert len(again) == len(before)
    # Another rounding of the same trainings, not other trainings.
    columns = ["logit_0", "logit_1", "probability"]
    pd.testing.assert_frame_equal(again[columns], before.loc[again.index, columns], atol=1e-3)
    assert len(list((study / "stages").glob("source-*"))) == 4


def test_its_networks_are_compared_with_one_of_permuted_labels(study):
    run = trained.open_run(study / "run", store=study / "data" / "store")
    permuted = permuted_network(run, "cnn2-w1", fold=1)
    assert permuted.fold == 1
    own = run.ensemble("cnn2-w1", trained.SOURCE)[1].load().variables["params"]["conv1"]["kernel"]
    moved = np.abs(permuted.network.variables["params"]["conv1"]["kernel"] - own)
    assert moved.max() > 1e-3
