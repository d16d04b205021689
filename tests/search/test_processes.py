"""Searches as processes: killed, several at once, on noise, and with Optuna missing."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mri_jax.reporting import search_words
from mri_jax.reporting.analysis import load_runs
from mri_jax.reporting.search import _of_run
from mri_jax.runs import search as results
from mri_jax.search.run import run as run_search
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.study.running import Running
from tests.compiling import XLA_FLAGS
from tests.conftest import ROOT
from tests.launching import workers_of
from tests.search.made import SPACE, study_of
from tests.tiny import make_cohorts

FIELDS = {
    "model.preset": "",
    "model.repetitions": "(1,1,1)",
    "model.filters": "(4,4,8)",
    "model.fc": "(8,)",
    "model.dropout": "(0.5,0.)",
    "targets": "('ADNI2',)",
    "variants": "()",
    "train.folds": 2,
    "train.min_epochs": 3,
    "train.max_epochs": 4,
    "baselines.voxels": False,
    "search.trials": 4,
    "search.prune_after": 1,
    "search.startup": 2,
    "save_seconds": 0.0,
}


def command(folder: Path, workdir: Path, *more: str) -> list[str]:
    table, store = folder / "data" / "cohort.csv", folder / "data" / "store"
    if not table.exists():
        make_cohorts(table.parent, 10, ("ADNI1", "ADNI2"))
    fields = {"data.cohort": table, "data.store": store, **FIELDS}
    return [
        sys.executable,
        str(ROOT / "launch.py"),
        f"--config={ROOT}/configs/search.py:smoke",
        f"--workdir={workdir}",
        f"--stages={workdir.parent / 'stages'}",
        "--noreport",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *more,
    ]


def begun(asked: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": XLA_FLAGS}
    return subprocess.Popen(
        asked, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8",
    )  # fmt: skip


def trials(workdir: Path) -> pd.DataFrame:
    return pd.read_csv(workdir / results.FOLDER / results.TRIALS)


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for_lines(journal: Path, count: int, process: subprocess.Popen) -> None:
    while lines_of(journal) < count and process.poll() is None:
        time.sleep(0.02)


TIMES = ["minutes", "seconds"]


@pytest.mark.slow
def test_a_search_killed_again_and_again_ends_with_the_trials_of_an_undisturbed_one(tmp_path):
    whole = begun(command(tmp_path, tmp_path / "a" / "run"))
    said, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, said
    wanted = trials(tmp_path / "a" / "run").drop(columns=TIMES)
    draws, killed = random.Random(5), 0
    journal = tmp_path / "b" / "run" / results.FOLDER / "journal.jsonl"
    while killed < 5:
        process = begun(command(tmp_path, tmp_path / "b" / "run"))
        wait_for_lines(journal, lines_of(journal) + draws.randint(3, 25), process)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        killed += 1
        if killed % 2:  # as a kill within a write leaves it
            journal.write_bytes(journal.read_bytes()[:-7])
    last = begun(command(tmp_path, tmp_path / "b" / "run"))
    said, _ = last.communicate(timeout=600)
    assert last.returncode == 0, said
    assert killed >= 2
    found = trials(tmp_path / "b" / "run").drop(columns=TIMES)
    pd.testing.assert_frame_equal(found, wanted)
    assert (tmp_path / "b" / "run" / "predictions.csv").read_bytes() == (
        tmp_path / "a" / "run" / "predictions.csv"
    ).read_bytes()


@pytest.mark.slow
def test_two_processes_work_on_one_search_and_one_of_them_ends_it(tmp_path):
    workdir = tmp_path / "run"
    both = [begun(command(tmp_path, workdir)) for _ in range(2)]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    rows = trials(workdir)
    for _, own in rows.groupby("search"):
        assert list(own["trial"]) == [1, 2, 3, 4]
    ran = [text.count("trial ") // 2 for text in said]
    assert min(ran) >= 1
    assert (workdir / "predictions.csv").exists()
    # Nothing was trained twice, though both knew of every trial.
    done = [line for text in said for line in text.splitlines() if line.startswith("source ")]
    assert done
    assert sum("another process writes the results" in text for text in said) <= 1


@pytest.mark.slow
def test_workers_run_trials_one_of_them_killed(tmp_path):
    """Drawn by chance and not pruned, trials do not depend on who was faster."""
    fields = {"sampler": "random", "pruner": "none", "space": SPACE}
    alike = [f"--config.search.{name}={value}" for name, value in fields.items()]
    cores = sorted(os.sched_getaffinity(0))[:: min(2, os.cpu_count() or 1)]
    of_one = ["taskset", "-c", ",".join(map(str, cores))]  # of two workers on this machine
    alone = begun([*of_one, *command(tmp_path, tmp_path / "a" / "run", *alike)])
    said, _ = alone.communicate(timeout=600)
    assert alone.returncode == 0, said
    # For all trials together, for those set aside, for the config's own network, and for the study.
    assert said.count("reading volumes: ") == 4
    workdir = tmp_path / "b" / "run"
    spread = begun(command(tmp_path, workdir, *alike, "--cluster=local:2"))
    journal = workdir / results.FOLDER / "journal.jsonl"
    wait_for_lines(journal, 15, spread)
    _, other = workers_of(spread)
    os.kill(other, signal.SIGKILL)
    said, _ = spread.communicate(timeout=600)
    assert spread.returncode == 0, said
    assert {"worker 0: ", "worker 1: "} <= set(re.findall(r"^worker \d: ", said, re.M))
    assert "which was interrupted, goes on" in said
    wanted = trials(tmp_path / "a" / "run").drop(columns=TIMES)
    pd.testing.assert_frame_equal(trials(workdir).drop(columns=TIMES), wanted)
    for name in ("predictions.csv", f"{results.FOLDER}/{results.ASIDE}"):
        assert (workdir / name).read_bytes() == (tmp_path / "a" / "run" / name).read_bytes()


@pytest.mark.slow
def test_on_cohorts_without_an_effect_the_report_says_that_nothing_was_found(tmp_path):
    counts = {"AD": 30, "CN": 30}
    request = (CohortRequest("ADNI1", counts), CohortRequest("ADNI2", {"AD": 10, "CN": 10}))
    simulated = simulate(SimulationSettings("demo", 6, request, effect=0.0), tmp_path / "data")
    study = study_of(
        tmp_path,
        data={
            "cohort": str(simulated.table_path),
            "store": str(simulated.store_path),
            "repeated": "remove",
        },
        train={"max_epochs": 6, "min_epochs": 6},
        search={"trials": 6},
    )
    run_search(study, tmp_path / "run", tmp_path / "stages", Running(say=lambda _: None))
    (run,) = load_runs([str(tmp_path / "run")])
    told = next(search_words.claims(_of_run(run, 0))).text
    assert told.startswith(search_words.NOTHING)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert search_words.NOTHING in page


def test_without_optuna_a_search_is_refused_in_one_line(tmp_path):
    hidden = "import sys; sys.modules['optuna'] = None; sys.argv = sys.argv[1:]; import runpy; "
    hidden += "runpy.run_path(sys.argv[0], run_name='__main__')"
    python, script, *rest = command(tmp_path, tmp_path / "run")
    asked = [python, "-c", hidden, script, *rest]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        (
            "error: config.search.trials: a search needs Optuna, which is not installed "
            "(pip install -e '.[search]')"
        )
    ]
