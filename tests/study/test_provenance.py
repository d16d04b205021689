import subprocess

import pandas as pd
from etils import epath

from mri_jax.planning.planner import make_plan
from mri_jax.runs import provenance
from mri_jax.study.announce import announcement, notes_on
from mri_jax.study.computing import Computing
from mri_jax.study.feeds import Volumes
from mri_jax.study.provenance import commit_of, write_provenance
from mri_jax.study.scans import open_catalogue
from mri_jax.study.stages import StageFolders
from mri_jax.volumes.store import VolumeStore
from tests import studies
from tests.tiny import GRID, SMALL_MODEL, make_cohorts


def test_scans_that_quality_control_leaves_out_are_told_and_counted(tmp_path):
    table, path = make_cohorts(tmp_path, subjects=15)
    index = pd.read_csv(path / "index.csv", dtype=str).set_index("subject_id")
    # One that the study analyses, and one that is in the store alone.
    index.loc[["ADNI1-003", "ADNI1-005"], ["session_id"]].to_csv(path / "exclusions.csv")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows[rows["subject_id"] != "ADNI1-005"].to_csv(table, index=False)
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    places = {"data__cohort": str(table), "data__store": str(path)}
    study = studies.study("finetune_high", **small, **places)
    store = VolumeStore(path)
    catalogue = open_catalogue(table, store, study)
    plan = make_plan(study, catalogue)
    _, said = notes_on(plan, catalogue)
    assert said.startswith(
        f"1 of {len(plan.rows())} scans analysed, though excluded by quality control"
    )
    assert "ADNI1-003 bl; python -m mri_jax qc STORE --cohort TABLE --cohort-out" in said
    volumes = Volumes(store, catalogue, study.data.intensities, epath.Path(tmp_path), threads=1)
    write_provenance(epath.Path(tmp_path), plan, volumes, Computing(("cpu:cpu",), "xla", None))
    assert provenance.read(epath.Path(tmp_path)).despite_exclusion == 1
    (path / "exclusions.csv").unlink()
    catalogue = open_catalogue(table, store, study)
    assert len(notes_on(plan, catalogue)) == 1


def test_a_preset_for_other_volumes_is_told_before_the_study(tmp_path):
    table, path = make_cohorts(tmp_path, subjects=15)
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    places = {"data__cohort": str(table), "data__store": str(path)}
    store, folders = VolumeStore(path), StageFolders(epath.Path(tmp_path / "stages"), print)
    for preset, count in (("paper", 1), ("smoke", 0)):
        study = studies.study("baseline", preset=preset, targets=("ADNI2",), **small, **places)
        catalogue = open_catalogue(table, store, study)
        said = announcement(study, make_plan(study, catalogue), catalogue, folders)
        line = (
            f"note: preset paper is meant for volumes at 1 mm, and these are at {GRID.spacing:g} mm"
        )
        assert said.count(line) == count
        assert "train.accumulate" not in said
    for accumulate, norm, told in ((1, "batch", 0), (2, "batch", 1), (2, "group", 0)):
        study = studies.study(
            "baseline", targets=("ADNI2",), train__accumulate=accumulate, model__norm=norm,
            **small, **places,
        )  # fmt: skip
        said = announcement(study, make_plan(study, catalogue), catalogue, folders)
        assert said.count("note: config.train.accumulate divides a batch of cnn2") == told


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path):
    package, installed = tmp_path / "package", tmp_path / "venv" / "package"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("", encoding="utf-8")

    def git(*arguments):
        person = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *person, *arguments]
        return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout

    assert commit_of(package) is None
    git("init")
    assert commit_of(package) is None
    git("add", "package")
    git("commit", "-m", "all of it")
    git("tag", "-a", "v1", "-m", "a tag")
    commit = git("rev-parse", "HEAD").strip()
    assert commit_of(package) == commit
    assert commit_of(installed) is None
    (package / "__init__.py").write_text("x = 1", encoding="utf-8")
    assert commit_of(package) == f"{commit}-dirty"
