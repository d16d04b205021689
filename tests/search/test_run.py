"""A whole search, small: its files, its choice, and the study with the chosen network in it."""

import json

import pandas as pd
import pytest

from mri_jax.errors import UserError
from mri_jax.runs import search as results
from mri_jax.runs.results import load
from mri_jax.search.run import run as run_search
from mri_jax.study.running import Running
from tests.compiling import quickly
from tests.search.made import study_of

SMALL = {"trials": 2, "beside": False}


@pytest.mark.slow
def test_a_search_chooses_once_and_shows_the_choice_to_the_target(tmp_path):
    fields = {"train": {"folds": 2, "min_epochs": 1, "max_epochs": 1}, "search": SMALL}
    fields["baselines"] = {"age_sex": False, "hippocampus": False}
    study, said = study_of(tmp_path, **fields), []
    how = Running(say=said.append, report=False)
    with quickly():
        run_search(study, tmp_path / "run", tmp_path / "stages", how)
    trials = pd.read_csv(tmp_path / "run" / "search" / "trials.csv")
    assert list(trials["trial"]) == [1, 2]
    found = load(tmp_path / "run")
    searched = results.read(found.path)
    best = trials.loc[trials["auc"].idxmax(), "trial"]
    assert searched.chosen["chosen"]["searched"]["trial"] == best
    tested = found.predictions[found.predictions["split"].eq("test")]
    chosen = tested[tested["chosen"].eq("searched")]
    assert set(chosen["cohort"]) == {"ADNI2"}
    assert set(chosen["fold"]) == {0, 1}
    aside = set(searched.aside["subject_id"])
    assert len(aside) == 4
    trained = json.loads((tmp_path / "run" / "plan.json").read_text(encoding="utf-8"))["stages"]
    assert len(trained) == 4
    stages = sorted(path.name for path in (tmp_path / "stages").glob("source-*"))

    again: list[str] = []
    with quickly():
        how_again = Running(say=again.append, report=False)
        run_search(study, tmp_path / "run", tmp_path / "stages", how_again)
    assert sorted(path.name for path in (tmp_path / "stages").glob("source-*")) == stages
    assert not any("trial 1" in line for line in again)

    other = study_of(tmp_path, **{**fields, "search": {**SMALL, "folds": 3}})
    with pytest.raises(UserError, match=r"config.search.folds is 2, not 3"):
        run_search(other, tmp_path / "run", tmp_path / "stages", how)
