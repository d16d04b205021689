"""Trials: drawn, given back, pruned, refused; and what becomes of them when their owner dies."""

import os
import signal
import subprocess
import sys
import time

import jax
import optuna
import pytest

from mri_jax.errors import UserError
from mri_jax.interruption import Interrupted
from mri_jax.runs import search as results
from mri_jax.search import record
from mri_jax.settings.sections import Model
from tests.conftest import ROOT
from tests.search.made import SPACE, study_of
from tests.search.quick import bench_of, ledgers, run_all

SEARCH = {"trials": 8, "beside": False}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def table_of(ledger, bench):
    search = bench.study.search
    frame = record.table([ledger], bench.study.lines, search.objectives)
    return frame.drop(columns="minutes")


def test_tpe_finds_better_rates_than_chance_and_the_winner_is_the_best_that_ended(tmp_path):
    asked = {"trials": 16, "objectives": ("loss",), "pruner": "none"}
    study = study_of(tmp_path, search=asked)
    bench = bench_of(study, tmp_path)
    tpe, beside = ledgers(bench, tmp_path)
    run_all(tpe, bench)
    run_all(beside, bench)
    rows = record.table([tpe, beside], study.lines, study.search.objectives)
    assert list(rows["trial"]) == [*range(1, 17), *range(1, 17)]
    assert set(rows["state"]) == {"complete"}
    late = rows[rows["trial"].gt(6)].groupby("search")["loss"].mean()
    assert late["tpe"] < late["beside"]
    best = record.best(tpe, study.search.objectives)
    assert best.value == rows.loc[rows["search"].eq("tpe"), "loss"].min()


def test_conditional_fields_are_drawn_where_their_condition_holds(tmp_path):
    bench = bench_of(study_of(tmp_path, search=SEARCH), tmp_path)
    (ledger,) = ledgers(bench, tmp_path)
    run_all(ledger, bench)
    rows = table_of(ledger, bench)
    gated = rows[f"{results.PREFIX}model.attention"].eq("se")
    assert 0 < gated.sum() < 8
    assert list(rows[f"{results.PREFIX}model.attention_blocks"].ne("")) == list(gated)


def test_a_killed_search_goes_on_to_the_same_trials(tmp_path):
    """Killed in the first trial, between drawing and training, and in a later fold."""
    study = study_of(tmp_path, search=SEARCH)
    undisturbed = bench_of(study, tmp_path / "a")
    (ledger,) = ledgers(undisturbed, tmp_path / "a")
    run_all(ledger, undisturbed)
    wanted = table_of(ledger, undisturbed)

    asked = 0

    def dies() -> bool:
        nonlocal asked
        asked += 1
        return asked in (3, 30)

    for attempt in range(3):
        bench = bench_of(study, tmp_path / "b", dies)
        (ledger,) = ledgers(bench, tmp_path / "b")
        if attempt == 1:
            ledger.take().leave()  # as if killed between drawing and training
        if attempt < 2:
            with pytest.raises(Interrupted):
                run_all(ledger, bench)
        else:
            run_all(ledger, bench)
    found = table_of(ledger, bench)
    assert found.to_csv(index=False) == wanted.to_csv(index=False)
    states = [t.state.name for t in ledger._study.get_trials()]
    assert states.count("FAIL") == 3
    assert wanted["state"].eq("pruned").any()


_OWNER = """
import sys, time
from pathlib import Path
from tests.search.made import study_of
from tests.search.quick import bench_of, ledgers
folder = Path(sys.argv[1])
bench = bench_of(study_of(folder, search={"trials": 12, "beside": False}), folder)
(ledger,) = ledgers(bench, folder)
taken = ledger.take()
print(taken.values, flush=True)
time.sleep(60)
"""


def test_a_trial_of_a_living_process_is_left_alone_and_that_of_a_dead_one_is_run_again(tmp_path):
    study = study_of(tmp_path, search={**SEARCH, "trials": 2})
    bench = bench_of(study, tmp_path)
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER.replace('"trials": 12', '"trials": 2'), str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    values = eval(owner.stdout.readline())
    (ledger,) = ledgers(bench, tmp_path)
    run_all(ledger, bench)
    assert [t.user_attrs["place"] for t in ledger.trials()] == [0, 1]
    assert not ledger.done
    assert ledger.take() is None
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate(timeout=10)
    with (tmp_path / "search" / "journal.jsonl").open("ab") as file:
        file.write(b'{"op_code":5,"torn')
    started = time.monotonic()
    again = ledger.take()
    assert time.monotonic() - started < 5
    assert again.values == values
    assert again.goes_on
    assert again.trial.user_attrs["place"] == 0
    again.finish([0.5])
    assert ledger.done


def test_a_repeated_trial_that_loses_its_owner_while_it_is_taken_keeps_its_values(
    tmp_path, monkeypatch
):
    """A kill between two of the lines that a trial's values take."""
    bench = bench_of(study_of(tmp_path, search=SEARCH), tmp_path)
    (ledger,) = ledgers(bench, tmp_path)
    taken = ledger.take()
    while "model.attention_blocks" not in taken.values:
        taken.finish([0.5])
        taken = ledger.take()
    taken.trial.report(-0.6, 1)
    taken.leave()
    suggest, left = optuna.Trial._suggest, []

    def dies(trial, name, distribution):
        left.append(name)
        if len(left) in (2, 5):
            raise KeyboardInterrupt
        return suggest(trial, name, distribution)

    monkeypatch.setattr(optuna.Trial, "_suggest", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ledgers(bench, tmp_path)[0].take()
    (later,) = ledgers(bench, tmp_path)
    again = later.take()
    assert again.values == taken.values
    assert again.trial.user_attrs["place"] == taken.trial.user_attrs["place"]
    assert later.before(again) == {1: -0.6}


def test_the_journal_of_another_space_is_refused(tmp_path):
    bench = bench_of(study_of(tmp_path, search=SEARCH), tmp_path)
    ledgers(bench, tmp_path)
    other = bench_of(study_of(tmp_path, search={**SEARCH, "space": SPACE[:2]}), tmp_path)
    with pytest.raises(UserError, match="is the journal of another search"):
        ledgers(other, tmp_path)
    more = bench_of(study_of(tmp_path, search={**SEARCH, "trials": 20}), tmp_path)
    assert ledgers(more, tmp_path)[0].wanted == 20


def test_impossible_networks_and_those_beyond_the_budget_are_pruned_with_the_reason(tmp_path):
    blocks = {"field": "model.blocks", "type": "int", "low": 2, "high": 6}
    search = {**SEARCH, "space": (blocks,), "most_parameters": 1500, "pruner": "none"}
    bench = bench_of(study_of(tmp_path, search=search), tmp_path)
    (ledger,) = ledgers(bench, tmp_path)
    run_all(ledger, bench)
    rows = table_of(ledger, bench)
    deep = rows[rows[f"{results.PREFIX}model.blocks"].astype(int) > 3]
    assert len(deep)
    assert deep["state"].eq("pruned").all()
    assert deep["reason"].str.contains("halves volumes").all()
    two = rows[rows[f"{results.PREFIX}model.blocks"].astype(int) == 2]
    assert len(two)
    assert two["reason"].str.startswith("config.search.most_parameters: 1,500 is less than").all()
    assert two["parameters"].gt(1500).all()
    assert len(rows) == 8


def test_a_trial_that_the_device_cannot_hold_is_pruned_and_the_search_goes_on(
    tmp_path, monkeypatch
):
    bench = bench_of(study_of(tmp_path, search={**SEARCH, "trials": 2}), tmp_path)
    (ledger,) = ledgers(bench, tmp_path)

    def too_much(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory allocating")

    monkeypatch.setattr(type(bench), "train", too_much)
    run_all(ledger, bench)
    rows = table_of(ledger, bench)
    assert list(rows["state"]) == ["pruned", "pruned"]
    assert rows["reason"].str.contains("the CPU: out of memory").all()
    assert ledger.done


def test_a_grid_has_each_of_its_points_once(tmp_path):
    space = tuple({**line, "points": 2} if line["type"] == "float" else line for line in SPACE)
    search = {"trials": 100, "beside": False, "sampler": "grid", "space": space, "pruner": "none"}
    bench = bench_of(study_of(tmp_path, search=search), tmp_path)
    (ledger,) = ledgers(bench, tmp_path)
    run_all(ledger, bench)
    rows = table_of(ledger, bench)
    fields = [c for c in rows.columns if c.startswith(results.PREFIX)]
    assert len(rows) == 2 * 2 * (1 + 2)
    assert not rows.duplicated(fields).any()
    assert set(rows[f"{results.PREFIX}train.learning_rate"]) == {1e-4, 1e-2}


def test_several_objectives_give_a_front_and_its_best_in_the_first_is_the_winner(tmp_path):
    blocks = {"field": "model.blocks", "type": "int", "low": 1, "high": 6}
    space = (*SPACE[:2], blocks)
    objectives = ("auc", "multiply_adds")
    search = {**SEARCH, "space": space, "objectives": objectives, "pruner": "none"}
    bench = bench_of(study_of(tmp_path, search=search), tmp_path)
    (ledger,) = ledgers(bench, tmp_path)
    run_all(ledger, bench)
    rows = table_of(ledger, bench)
    assert rows["reason"].str.contains("halves volumes").any()
    assert list(rows["state"].eq("pruned")) == list(rows["reason"].ne(""))
    best = record.best(ledger, bench.study.search.objectives)
    top = rows[rows["auc"].eq(rows["auc"].max())]
    assert best.values == [top["auc"].max(), top["multiply_adds"].min()]
    assert rows.loc[rows["state"].eq("complete"), "multiply_adds"].nunique() > 1


def test_the_chosen_are_told_as_flags_of_a_command():
    values = {"model.blocks": 2, "model.filters": [4, 8, 8], "train.learning_rate": 1e-3}
    about = {"search": "tpe", "trial": 7, "values": values}
    told = record.told_of_chosen(about, Model(preset="", repetitions=(1, 1, 2), filters=(8, 8, 8)))
    assert told == (
        "the best tpe trial, 7, as flags: --config.model.filters='(4, 8)' --config.model.preset= "
        "--config.model.repetitions='(1, 1)' --config.train.learning_rate=0.001"
    )
