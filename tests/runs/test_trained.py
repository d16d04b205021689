import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.evaluation.variants import CNN, Variant, of_rows
from mri_jax.runs import results, trained
from tests.networks import apply


@pytest.fixture(scope="module")
def opened(small_run):
    return trained.open_run(small_run)


def test_a_member_gives_the_logits_that_the_run_wrote(opened):
    assert opened.variants == ("cnn2-w1",)
    assert opened.stages("cnn2-w1") == ("source", "tuned-high")
    for stage in opened.stages("cnn2-w1"):
        members = opened.ensemble("cnn2-w1", stage)
        assert [member.fold for member in members] == [0, 1, 2]
        network = members[1].load()
        volumes = opened.reader(opened.held_out(members[1])).load(threads=1)
        logits = apply(network.spec, network.variables, volumes)
        rows = opened.rows(members[1], "validation").sort_values(["subject_id", "session_id"])
        np.testing.assert_allclose(logits, rows[["logit_0", "logit_1"]], atol=1e-5)


def test_nobody_held_out_was_trained_on_and_a_tuned_network_adds_its_part(opened):
    source = opened.ensemble("cnn2-w1", "source")[0]
    tuned = opened.ensemble("cnn2-w1", "tuned-high")[0]
    assert not set(opened.held_out(source)) & set(opened.trained_on(source))
    assert len(opened.held_out(source)) + len(opened.trained_on(source)) == 20
    added = set(opened.trained_on(tuned)) - set(opened.trained_on(source))
    assert len(added) == 4
    assert {subject.split("-")[0] for subject, _ in added} == {"ADNI2"}
    assert opened.diagnoses("cnn2-w1") == ("CN", "AD")


def test_what_is_not_there_is_named(opened):
    with pytest.raises(UserError, match=r"network: 'cnn9' is not in .*; it has cnn2-w1"):
        opened.stages("cnn9")
    with pytest.raises(UserError, match=r"stage: 'tuned-low' is not of cnn2-w1"):
        opened.ensemble("cnn2-w1", "tuned-low")


def test_a_moved_run_finds_its_stages_beside_it_and_otherwise_says_so(opened, tmp_path):
    shutil.copytree(opened.results.path, tmp_path / "run")
    plan = files.read_json(tmp_path / "run" / "plan.json")
    for row in plan["stages"]:
        row["folder"] = row["folder"].replace("/stages/", "/gone/")
    files.write_json(tmp_path / "run" / "plan.json", plan)
    with pytest.raises(UserError, match=r"none of its networks has a checkpoint.*--stages"):
        trained.open_run(tmp_path / "run")
    there = opened.results.path.parent / "stages"
    assert len(trained.open_run(tmp_path / "run", stages=there).members) == 6
    (tmp_path / "stages").symlink_to(there)
    assert len(trained.open_run(tmp_path / "run").members) == 6


def test_another_store_than_the_runs_is_refused(opened, tmp_path):
    shutil.copytree(opened.store_path, tmp_path / "store")
    info = dataclasses.replace(opened.store.info, settings={"made": "otherwise"})
    files.write_json(tmp_path / "store" / "store.json", info.to_json())
    other = trained.open_run(opened.results.path, store=tmp_path / "store")
    with pytest.raises(UserError, match=r"store: is not the store of"):
        _ = other.store.info


def test_folds_normalised_each_in_its_own_way_are_refused(opened, tmp_path):
    shutil.copytree(opened.results.path, tmp_path / "run")
    config = files.read_json(tmp_path / "run" / "config.json")
    config["data"] |= {"normalisation": "histogram", "histogram_reference": "training"}
    files.write_json(tmp_path / "run" / "config.json", config)
    with pytest.raises(UserError, match=r"config\.data\.histogram_reference=training"):
        trained.open_run(tmp_path / "run", stages=opened.results.path.parent / "stages")


@pytest.mark.parametrize("stage", ["source", "tuned-high"])
def test_predictions_are_what_a_network_says_of_each_scan(opened, stage):
    """All that a network is asked about is one pass, and each answer finds its scans in it."""
    network = opened.ensemble("cnn2-w1", stage)[0].load()
    told = opened.results.predictions
    told = told[told["run"].eq("cnn2-w1") & told["stage"].eq(stage) & told["fold"].eq(0)]
    # Of the adaptation part inner networks speak.
    told = told[told["repeat"].eq(0) & told["split"].isin(("validation", "test"))]
    assert set(told["split"]) == {"validation", "test"}
    keys = list(zip(told["subject_id"], told["session_id"], strict=True))
    volumes = opened.reader(keys).load(threads=1)
    logits = apply(network.spec, network.variables, volumes)
    np.testing.assert_allclose(logits, told[["logit_0", "logit_1"]], atol=1e-5)


def test_a_run_moved_with_its_stages_is_opened_from_anywhere(small_run, tmp_path, monkeypatch):
    for name in ("run", "stages"):
        shutil.copytree(small_run.parent / name, tmp_path / "moved" / name)
    monkeypatch.chdir(tmp_path / "moved" / "run")
    here = trained.open_run(".")
    assert here.results.name == "run"
    # The stages beside the moved run, though those where it was made are still there.
    assert {str(m.folder.parent) for m in here.members} == {str(tmp_path / "moved" / "stages")}
    assert here.results.network("cnn2-w1", "source", 0) == here.members[0].folder
    # A run moved alone finds what stayed where it was.
    monkeypatch.chdir(tmp_path)
    shutil.move(tmp_path / "moved" / "run", tmp_path / "alone")
    alone = trained.open_run("alone")
    plan = files.read_json(small_run / "plan.json")["stages"]
    found = {str(m.folder) for m in alone.members}
    assert len(found) == 6
    assert found <= {row["folder"] for row in plan}
    assert alone.store_path == here.store_path


def test_every_table_of_a_run_says_in_columns_what_its_runs_are(small_run):
    plan = pd.DataFrame(files.read_json(small_run / results.PLAN)["stages"])
    tables = [pd.read_csv(small_run / name) for name in (results.PREDICTIONS, results.METRICS)]
    for table in (plan, *tables):
        told = of_rows(table)
        assert told["cnn2-w1"] == Variant(CNN, "", 2, 1.0)
        assert told["baseline-age-sex"] == Variant("baseline-age-sex")
        assert [run for run, variant in told.items() if variant.name != run] == []
