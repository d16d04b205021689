import os
import time
from pathlib import Path
from typing import Any

import distributed
import pytest

from mri_jax.cluster.spread import DONE, FAILED, STOPPED, Attendance, Outcome, Task, spread
from mri_jax.errors import UserError
from mri_jax.interruption import Interrupted

pytestmark = pytest.mark.filterwarnings("default")


def run(client: Any, work: Any, tasks: list[Task], say: Any = lambda line: None) -> list[str]:
    return [task.key for task in spread(client, work, tasks, lambda: False, nothing, say)]


def nothing() -> None:
    """Stops nothing."""


def of(state: str, reason: str = "") -> Outcome:
    worker = distributed.get_worker()
    return Outcome(state, f"worker {worker.name}", worker.address, reason)


def log(argument: tuple[str, str]) -> Outcome:
    folder, name = argument
    with (Path(folder) / "log").open("a", encoding="utf-8") as file:
        file.write(name)
    return of(DONE)


def test_a_task_follows_those_that_it_needs(client, tmp_path):
    def task(name: str, *after: str) -> Task:
        return Task(name, name, (str(tmp_path), name), frozenset(after))

    tasks = [task("c", "b", "finished long ago"), task("b", "a"), task("a")]
    assert run(client, log, tasks) == ["a", "b", "c"]
    assert (tmp_path / "log").read_text(encoding="utf-8") == "abc"


def fails_where_it_begins(folder: str) -> Outcome:
    first, mine = Path(folder) / "first", str(distributed.get_worker().name)
    if not first.exists():
        first.write_text(mine, encoding="utf-8")
    return of(FAILED, "no room") if first.read_text(encoding="utf-8") == mine else of(DONE)


def test_what_fails_on_one_worker_is_tried_on_another(client, tmp_path):
    said: list[str] = []
    found = run(client, fails_where_it_begins, [Task("f", "source 1", str(tmp_path))], said.append)
    assert found == ["f"]
    (line,) = said
    first = (tmp_path / "first").read_text(encoding="utf-8")
    told = f"source 1 failed on worker {first} (no room)"
    assert line == f"{told}; it is tried on another worker"


def fails_where_it_begins_and_dies_elsewhere(folder: str) -> Outcome:
    first, mine = Path(folder) / "first", str(distributed.get_worker().name)
    if not first.exists():
        first.write_text(mine, encoding="utf-8")
    if first.read_text(encoding="utf-8") == mine:
        return of(FAILED, "no room")
    if not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os._exit(9)
    return of(DONE)


def test_what_is_kept_for_a_worker_that_dies_goes_to_its_successor(client, tmp_path):
    said: list[str] = []
    task = Task("g", "source 1", str(tmp_path))
    assert run(client, fails_where_it_begins_and_dies_elsewhere, [task], said.append) == ["g"]
    assert said[0].endswith("(no room); it is tried on another worker")
    # Unless it is there again before anybody has looked.
    assert said[1:] in ([], ["1 worker gone, 1 left", "now 2 workers"])
    assert (tmp_path / "died").exists()


def test_who_goes_and_comes_is_said_once():
    said: list[str] = []
    attendance = Attendance(2, said.append)
    for there in (2, 1, 1, 0, 0, 2):
        attendance.look(there)
    assert said == [
        "1 worker gone, 1 left",
        "1 worker gone, none left; waiting for one",
        "now 2 workers",
    ]


def fails(argument: str) -> Outcome:
    return of(DONE) if argument == "good" else of(FAILED, "no room")


def test_what_fails_on_two_workers_ends_the_study_after_the_others(client):
    tasks = [
        Task("bad", "source 1", "bad"),
        Task("after", "evaluation of source 1", "good", frozenset(["bad"])),
        Task("good", "source 2", "good"),
    ]
    found: list[str] = []

    def run_all() -> None:
        for task in spread(client, fails, tasks, lambda: False, nothing, print):
            found.append(task.key)

    with pytest.raises(UserError) as raised:
        run_all()
    assert found == ["good"]
    assert str(raised.value) in {
        f"source 1 failed on worker {a} (no room) and on worker {b} (no room); "
        "1 task that follows was not begun"
        for a, b in ((0, 1), (1, 0))
    }


def dies_four_times(folder: str) -> Outcome:
    times = len(list(Path(folder).iterdir()))
    if times < 4:
        (Path(folder) / str(times)).touch()
        os._exit(9)
    return of(DONE)


def test_a_task_outlives_its_workers(client, tmp_path):
    assert run(client, dies_four_times, [Task("d", "source 1", str(tmp_path))]) == ["d"]
    assert len(list(tmp_path.iterdir())) == 4


def ends_once(folder: str) -> Outcome:
    there = Path(folder) / "ended"
    if there.exists():
        return of(DONE)
    there.touch()
    return of(STOPPED)


def test_a_task_of_a_worker_that_ends_goes_on_elsewhere(client, tmp_path):
    said: list[str] = []
    assert run(client, ends_once, [Task("e", "source 1", str(tmp_path))], said.append) == ["e"]
    assert len(said) == 1
    assert said[0].endswith("ends; source 1 goes on elsewhere")


def lasts(stopped: str) -> Outcome:
    while not Path(stopped).exists():
        time.sleep(0.1)
    time.sleep(1.0)
    Path(stopped).with_name("saved").touch()
    return of(STOPPED)


def test_stops_when_asked_after_workers_have_saved(client, tmp_path):
    asked, stopped = iter([False, True]), tmp_path / "stopped"
    tasks = [Task("l", "l", str(stopped))]
    with pytest.raises(Interrupted):
        list(spread(client, lasts, tasks, lambda: next(asked), stopped.touch, print))
    assert (tmp_path / "saved").exists()
