"""A search on the workers of a cluster, which share its journal."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import distributed
from etils import epath

from mri_jax import files
from mri_jax.cluster.spread import Outcome, Task, spread
from mri_jax.errors import UserError
from mri_jax.runs import search as results
from mri_jax.search.bench import Bench
from mri_jax.search.drawing import say_nothing
from mri_jax.search.journal import NAME as JOURNAL
from mri_jax.search.ledger import Ledger
from mri_jax.search.run import Here, ledgers_of, look_aside, work_through
from mri_jax.search.run import run as run_search
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study
from mri_jax.study.on_cluster import OnCluster
from mri_jax.study.running import Running
from mri_jax.study.worker import NAME, Assignment, OpenStudy, StudyWorker, seen_anywhere


def run(study: Study, workdir: epath.PathLike, stages: epath.PathLike, how: OnCluster) -> None:
    """Runs a search and its study on workers, which must see the results folder; see `run.run`."""
    folder = epath.Path(workdir) / results.FOLDER
    run_search(study, workdir, stages, how, OnWorkers(how, folder))


@dataclass(frozen=True)
class Request:
    """What a worker does for a search.

    Attributes:
      assignment: The study.
      folder: Of the journal.
      runs: Networks that shall say something of those who were set aside; none: trials are run.
    """

    assignment: Assignment
    folder: str
    runs: tuple[Run, ...] = ()


class OnWorkers(Here):
    """Runs trials on workers: each takes one after the other until none is left.

    Args:
      how: The workers.
      folder: Of the journal, which workers must see under the same path.
    """

    def __init__(self, how: OnCluster, folder: epath.Path):
        self._how, self._folder = how, folder

    def trials(self, bench: Bench, ledgers: Sequence[Ledger]) -> None:
        """See `Here`."""
        # As many tasks as trials: workers that come later have some, too, and of those that are
        # left at the end each finds nothing to do.
        self._spread(bench.study, "trials", sum(ledger.left for ledger in ledgers))

    def aside(self, bench: Bench, runs: Sequence[Run]) -> None:
        """See `Here`."""
        self._spread(bench.study, "subjects set aside", 1, tuple(runs))

    def _spread(self, study: Study, label: str, count: int, runs: tuple[Run, ...] = ()) -> None:
        client, how, own = self._how.client, self._how, secrets.token_hex(4)
        device = how.workers[0].device

        def task(number: int) -> Task:
            key = f"search-{own}-{number}"
            assignment = Assignment(key, seen_anywhere(study), (), None, device, ())
            return Task(key, label, Request(assignment, str(self._folder), runs))

        def told(event: tuple[Any, dict[str, Any]]) -> None:
            if event[1].get("search") == str(self._folder):
                how.say(event[1]["said"])

        client.subscribe_topic(NAME, told)
        try:
            tasks = [task(number) for number in range(count)]
            for _ in spread(client, _work, tasks, how.interrupted, how.stop, how.say):
                pass
        finally:
            client.unsubscribe_topic(NAME)


def _work(request: Request) -> Outcome:
    plugin: Any = distributed.get_worker().plugins[NAME]
    return work(plugin, request)


def work(worker: StudyWorker, request: Request) -> Outcome:
    """Does what is asked of a worker, on a device of it that is free."""

    def say(line: str) -> None:
        worker.tell({"search": request.folder, "said": f"{worker.called}: {line}"})

    return worker.attempt(request.assignment, lambda opened: _done(opened, request, say))


def _done(opened: OpenStudy, request: Request, say: Callable[[str], None]) -> None:
    say_nothing()
    folder = epath.Path(request.folder)
    if not files.is_there(folder / JOURNAL):
        raise UserError(f"{folder / JOURNAL} is not there: it sees another --workdir")
    with opened.device() as wave:
        # Each network has forms of its own, which are measured where that was asked for.
        how = Running(
            wave=replace(wave, forms=opened.asked), interrupted=opened.interrupted, say=say
        )
        volumes = opened.volumes
        bench = Bench(opened.study, volumes.catalogue, volumes, opened.folders, how)
        if request.runs:
            look_aside(bench, request.runs)
        else:
            work_through(bench, ledgers_of(bench, folder))
