"""Tasks on the workers of a cluster, each as soon as those are done that it follows."""

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mri_jax.cluster.address import DEATHS, DEVICE
from mri_jax.errors import UserError
from mri_jax.interruption import Interrupted
from mri_jax.problems import counted

DONE, FAILED, STOPPED = "done", "failed", "stopped"
_DIED = "died"
# Seconds between looks at whether to stop, without the scheduler before it is given up, and that
# workers have to save, which is less than this process has.
_LOOK, _PATIENCE, _SAVING = 0.5, 30.0, 9.0
_RESTART = 15.0  # seconds in which a worker that died is started again


@dataclass(frozen=True)
class Task:
    """What one worker does at a time.

    Attributes:
      key: Names it; the same work has the same key.
      label: For people.
      argument: What the work is told.
      after: Keys of tasks that it follows; those that are no task are done.
    """

    key: str
    label: str
    argument: Any
    after: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What a worker says of a task.

    Attributes:
      state: `DONE`; `FAILED`; or `STOPPED`: the worker ends, and what it did is saved.
      worker: What the worker is called.
      address: Its address.
      reason: Why the task failed.
      deaths: How many workers died in it, where that ended it.
    """

    state: str
    worker: str = "any worker"
    address: str = ""
    reason: str = ""
    deaths: int = 0


@dataclass
class _Run:
    """A task under way.

    Attributes:
      task: The task.
      attempts: How often it was handed out.
      deaths: How many workers died in it, of which the scheduler told.
      failed: What became of it on workers that live.
      others: The workers that may do it; empty: any.
      missed: When they were first seen to have gone.
    """

    task: Task
    attempts: int = 0
    deaths: int = 0
    failed: list[Outcome] = field(default_factory=list)
    others: frozenset[str] = frozenset()
    missed: float | None = None

    @property
    def failed_on(self) -> frozenset[str]:
        """Returns the addresses of the workers on which it failed."""
        return frozenset(outcome.address for outcome in self.failed)

    @property
    def told(self) -> str:
        """Returns where and why it failed."""
        where = [f"on {each.worker} ({each.reason})" for each in self.failed]
        return f"{self.task.label} failed {' and '.join(where)}"


class Attendance:
    """Says when workers have gone, and when there are more.

    Args:
      there: How many there are.
      say: Where that goes.
    """

    def __init__(self, there: int, say: Callable[[str], None]):
        self._there, self._say = there, say

    def look(self, there: int) -> None:
        """Compares how many there are now with the last look."""
        before, self._there = self._there, there
        if there > before:
            self._say(f"now {counted(there, 'worker')}")
        elif there < before:
            left = f"{there} left" if there else "none left; waiting for one"
            self._say(f"{counted(before - there, 'worker')} gone, {left}")


def spread(
    client: Any,
    work: Callable[[Any], Outcome],
    tasks: Sequence[Task],
    interrupted: Callable[[], bool],
    stop: Callable[[], None],
    say: Callable[[str], None],
) -> Iterator[Task]:
    """Yields tasks as they are done.

    A task whose worker dies or ends is done elsewhere. One that fails is tried once on another
    worker; all that do not follow it are done nevertheless, then the failures are raised together.

    Args:
      client: A Dask client.
      work: Does what a task's argument says, on a worker, and raises nothing.
      tasks: The tasks.
      interrupted: Whether to stop; asked twice a second.
      stop: Has the workers save and end what they do.
      say: Where remarks go.

    Raises:
      Interrupted: ``interrupted`` said so, and workers had some seconds to save; or the scheduler
        is gone, which is said.
      UserError: Tasks failed on two workers, or on the only one.
    """
    waiting = {task.key: task for task in tasks}
    names, done = frozenset(waiting), set[str]()
    running: dict[Any, _Run] = {}
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    failures: list[_Run] = []
    answered = time.monotonic()

    def start(run: _Run) -> None:
        run.attempts += 1
        run.missed = None
        run.others = frozenset(client.nthreads()) - run.failed_on if run.failed else frozenset()
        future = client.submit(
            work,
            run.task.argument,
            key=f"{run.task.key}-{run.attempts}",
            pure=False,
            resources={DEVICE: 1},
            # Not by preference, which an idle worker may overrule: one that fails soon is idle.
            workers=sorted(run.others) or None,
        )
        running[future] = run
        future.add_done_callback(ended.put)

    def start_ready() -> None:
        for task in [task for task in waiting.values() if task.after & names <= done]:
            start(_Run(waiting.pop(task.key)))

    def release_forsaken() -> None:
        """Hands out again what was kept for workers that have gone, and were not replaced soon."""
        kept = [(future, run) for future, run in running.items() if run.others]
        here = frozenset(client.nthreads()) if kept else frozenset()
        for future, run in kept:
            if run.others & here:
                run.missed = None
                continue
            run.missed = run.missed or time.monotonic()
            if here - run.failed_on or time.monotonic() - run.missed > _RESTART:
                del running[future]
                client.cancel(future)
                start(run)

    start_ready()
    attendance = Attendance(len(client.nthreads()), say)
    while running:
        if interrupted():
            stop()
            until = time.monotonic() + _SAVING
            while time.monotonic() < until and not all(future.done() for future in running):
                time.sleep(_LOOK)
            client.cancel(list(running))
            raise Interrupted
        if client.status == "running":
            answered = time.monotonic()
        if time.monotonic() - answered > _PATIENCE:
            say("the scheduler of the cluster is gone; finished stages are kept")
            raise Interrupted
        try:
            future = ended.get(timeout=_LOOK)
        except queue.Empty:
            if client.status == "running":
                attendance.look(len(client.nthreads()))
                release_forsaken()
            continue
        if future not in running:  # cancelled
            continue
        outcome = _outcome(future)
        if outcome is None:  # forgotten by a scheduler that was lost, and may be back
            if client.status == "running":
                start(running.pop(future))
            else:
                ended.put(future)
                time.sleep(_LOOK)
            continue
        run = running.pop(future)
        if outcome.state == DONE:
            done.add(run.task.key)
            yield run.task
            start_ready()
        elif outcome.state == STOPPED:
            say(f"{outcome.worker} ends; {run.task.label} goes on elsewhere")
            start(run)
        elif outcome.state == _DIED and run.deaths + outcome.deaths < DEATHS:
            run.deaths += outcome.deaths
            start(run)
        else:
            run.failed.append(outcome)
            if len(run.failed) == 1 and set(client.nthreads()) - {outcome.address}:
                say(f"{run.told}; it is tried on another worker")
                start(run)
            else:
                failures.append(run)
    if failures:
        left = counted(len(waiting), "task that follows was", "tasks that follow were")
        rest = f"; {left} not begun" if waiting else ""
        raise UserError("; ".join(run.told for run in failures) + rest)


def _outcome(future: Any) -> Outcome | None:
    if future.status == "finished":
        return future.result()
    if future.status != "error":
        return None
    error = future.exception()
    reason = " ".join(str(error).split())
    if hasattr(error, "allowed_failures"):  # distributed.KilledWorker
        deaths = int(error.allowed_failures) + 1
        return Outcome(_DIED, reason=f"{counted(deaths, 'worker')} died in it", deaths=deaths)
    return Outcome(FAILED, reason=reason)
