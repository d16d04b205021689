import shutil

import pytest
import synthetic_run

from mri_jax.errors import UserError
from mri_jax.runs import results

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


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (results.PREDICTIONS, b"", "holds no rows; the run has not finished"),
        (results.PREDICTIONS, b"run,stage\n", "holds no rows"),
        (results.PREDICTIONS, b"a,b\n1,2\n", "columns 'run', 'stage', 'repeat', 'fold', "),
        (results.CONFIG, b'{"a": ', "not valid JSON"),
        (results.COHORT, b"subject_id,cohort\n1,A\n", "column 'diagnosis' is missing"),
        (
            results.COHORT,
            b"subject_id,cohort,diagnosis,age\n1,A,AD,\n2,A,CN,7o\n",
            "row 3: age '7o' must be a number or empty",
        ),
        (results.HISTORY, b'{"epoch": 1}\n{"epo', "line 2: is not valid JSON"),
        (
            results.HISTORY,
            b'{"a": 1, "b": 2}\n{"b": 2}\n',
            "line 2: 'a' is in some lines and not in others",
        ),
        (
            results.FLOW,
            b"host\n",
            "columns 'stage', 'step', 'reason', 'cohort', 'class', 'n' are missing; found host",
        ),
        (results.FILTERS, b"PK\x03\x04cut short", "cannot be read"),
    ],
)
def test_a_broken_file_is_named(run, tmp_path, name, content, words):
    folder = shutil.copytree(run, tmp_path / "broken")
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        results.load(folder).arrays(results.FILTERS)
    assert name in str(raised.value)


def test_an_emptied_flow_is_said(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / results.FLOW).write_bytes(b"")
    assert results.load(folder).missing == ("flow.csv is empty",)


def test_epochs_that_are_missing_are_said(small_run, tmp_path):
    assert results.load(small_run).missing == ()
    folder = shutil.copytree(small_run, tmp_path / "run")
    lines = (folder / results.HISTORY).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / results.HISTORY).write_text("".join(lines[1:]), encoding="utf-8")
    (told,) = results.load(folder).missing
    first = "cnn2-w1, source, repeat 0, fold 0: 4"
    assert (
        told
        == f"metrics.jsonl holds other epochs of 1 network than plan.json says (first: {first})"
    )


def test_paths_are_written_absolute_and_as_seen_from_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = results.written_path("folder", "runs/stages/a", "runs/r")
    assert written == {
        "folder": f"{tmp_path}/runs/stages/a",
        "folder_from_run": "../stages/a",
    }
    places = results.read_path("folder", written, "/elsewhere/r")
    assert list(map(str, places)) == ["/elsewhere/stages/a", f"{tmp_path}/runs/stages/a"]
    assert results.written_path("store", "gs://b/s", "runs/r") == {"store": "gs://b/s"}


def test_a_run_opened_as_a_dot_has_its_name(run, monkeypatch):
    monkeypatch.chdir(run)
    assert results.load(".").name == run.name
