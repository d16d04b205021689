import pytest
import synthetic_run

from mri_jax import results
from mri_jax.errors import UserError

NETWORK = ("cnn5-w1", "source")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    return synthetic_run.write_run(tmp_path_factory.mktemp("runs") / "tiny", cohorts=cohorts)


def test_frames_are_tidy(run):
    loaded = results.load(run)
    assert loaded.predictions["subject_id"].map(type).eq(str).all()
    assert loaded.predictions.groupby(["run", "fold", "split", "cohort"]).size().max() == 20
    assert set(loaded.metrics["fold"]) == {-1, 0, 1, 2, 3, 4}
    assert loaded.history["epoch"].min() == 1
    assert loaded.missing == ()


def test_a_checkpoint_is_found_where_the_plan_says_or_beside_the_run(run, monkeypatch):
    loaded = results.load(run)
    row = loaded.plan.query("run == 'cnn5-w1' and stage == 'source' and fold == 3").iloc[0]
    with pytest.raises(UserError, match=r"'fold': 3.* is neither stages/0003 nor .*stages/0003"):
        loaded.network(*NETWORK, fold=3)
    copied = run.parent / row["folder"]
    copied.mkdir(parents=True)
    assert str(loaded.network(*NETWORK, fold=3)) == str(copied)
    elsewhere = run / row["folder"]
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(run)
    assert str(loaded.network(*NETWORK, fold=3)) == row["folder"]


def test_a_network_that_was_not_planned_is_named(run):
    with pytest.raises(UserError, match=r"has no network .*'fold': 9"):
        results.load(run).network(*NETWORK, fold=9)
