"""Finished stages are what their notes say, byte by byte; what is damaged is built again."""

import json
import shutil
from pathlib import Path

import pytest

from mri_jax import files, sealed, stage_note
from mri_jax.errors import UserError
from mri_jax.runs import trained
from mri_jax.settings.study import Study
from mri_jax.study.dry_run import print_plan
from mri_jax.study.run import run
from mri_jax.study.running import Running
from tests.training.test_checkpoints import DAMAGES, flip

SAID = ("built again", "passed over", "starts anew")


@pytest.fixture
def copied(small_run, tmp_path):
    """A finished run with its own stages, to be damaged; (run, stages, study)."""
    own = {Path(row["folder"]).name for row in files.read_json(small_run / "plan.json")["stages"]}
    shutil.copytree(small_run.parent / "stages", tmp_path / "stages")
    for folder in (tmp_path / "stages").glob("source-*"):
        if folder.name not in own:  # another test's of this session
            shutil.rmtree(folder)
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run", tmp_path / "stages", Study.read(small_run / "config.json")


def again(copied):
    """Run the study again; what it says, and its predictions."""
    workdir, stages, study = copied
    lines: list[str] = []
    run(study, workdir, stages, Running(say=lines.append, report=False))
    return [line for line in lines if str(stages) in line], predictions(workdir)


def predictions(workdir):
    return (workdir / "predictions.csv").read_bytes()


def first_of(stages, kind):
    return min(stages.glob(f"{kind}-*"))


@pytest.mark.parametrize(
    ("kind", "name", "how"),
    [
        ("source", "network", "flipped"),
        ("source", "stage.json", "flipped"),
        ("tune", "history.json", "gone"),
        ("evaluate", "logits.csv", "cut"),
        ("baseline", "logits.csv", "flipped"),
    ],
)
def test_a_damaged_stage_is_set_aside_said_and_built_again(copied, kind, name, how):
    workdir, stages, _ = copied
    before, folder = predictions(workdir), first_of(stages, kind)
    path = folder / name
    if path.is_dir():
        path = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if how == "flipped":
        flip(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    lines, after = again(copied)
    assert after == before
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert "\n" not in lines[0]
    aside = stages / "damaged" / f"{folder.name}-1"
    assert (aside / "stage.json").exists()
    stage_note.check(folder)
    assert again(copied) == ([], before)


def test_a_damaged_network_comes_from_its_last_saved_state(copied):
    """Nothing is trained: the history has the very seconds that the first training took."""
    _, stages, _ = copied
    folder = first_of(stages, "source")
    history = (folder / "history.json").read_bytes()
    shutil.rmtree(folder / "network")
    again(copied)
    assert (folder / "history.json").read_bytes() == history
    assert stage_note.read(folder)["seconds"] < 1


@pytest.mark.parametrize(
    "name", ["network/_METADATA", "history.json", "logits.csv", "features.npz"]
)
def test_every_file_of_a_result_has_a_digest(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"as it was written")
    stage_note.write(tmp_path, {"fingerprint": "0" * 64, "kind": "source"})
    stage_note.check(tmp_path)
    flip(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: is not as it was written"):
        stage_note.check(tmp_path)


def test_stages_renamed_into_each_other_are_refused_by_name(copied, tmp_path):
    workdir, stages, study = copied
    one, other = sorted(stages.glob("source-*"))[:2]
    one.rename(tmp_path / "held")
    other.rename(one)
    (tmp_path / "held").rename(other)
    wanted = r"source-\w{16}: holds another stage, source-\w{16} by its stage.json"
    with pytest.raises(UserError, match=wanted):
        run(study, workdir, stages, Running(say=lambda _: None, report=False))
    with pytest.raises(UserError, match=wanted):
        print_plan(study, stages / "run", stages, Running(say=lambda _: None))
    members = trained.open_run(workdir, stages=stages).members
    with pytest.raises(UserError, match="holds another stage"):
        next(m for m in members if m.folder.name == one.name).load()


def test_stages_of_an_earlier_version_are_taken_and_get_digests(copied):
    workdir, stages, _ = copied
    planned = files.read_json(workdir / "plan.json")["stages"]
    before, folders = predictions(workdir), [stages / Path(row["folder"]).name for row in planned]
    notes = sorted({folder / "stage.json" for folder in folders})
    for path in notes:
        note = json.loads(path.read_text(encoding="utf-8"))
        files.write_json(path, {k: v for k, v in note.items() if k not in sealed.OWN})
    lines, after = again(copied)
    assert after == before
    assert len(lines) == 1
    assert f"{len(notes)} finished stages of an earlier version" in lines[0]
    assert all(sealed.has_digests(sealed.read(path)) for path in notes)
    assert again(copied) == ([], before)


def test_an_old_logits_table_that_was_cut_is_one_line(copied):
    _, stages, _ = copied
    folder = first_of(stages, "evaluate")
    note = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    files.write_json(folder / "stage.json", {k: note[k] for k in note if k not in sealed.OWN})
    text = (folder / "logits.csv").read_text(encoding="utf-8")
    (folder / "logits.csv").write_text("".join(text.splitlines(keepends=True)[:-2]), "utf-8")
    with pytest.raises(UserError, match=rf"{folder.name}: its logits.csv lacks scans"):
        again(copied)


def test_a_training_without_a_whole_state_starts_anew_and_gives_the_same_bytes(copied):
    workdir, stages, _ = copied
    before, folder = predictions(workdir), first_of(stages, "source")
    shutil.rmtree(folder / "network")
    for state in (folder / "training").iterdir():
        DAMAGES["emptied"](state)
    lines, after = again(copied)
    assert after == before
    assert [word in line for word, line in zip(SAID, lines, strict=True)] == [True] * 3
