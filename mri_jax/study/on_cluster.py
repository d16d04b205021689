"""How a study runs on the workers of a cluster."""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import distributed
from etils import epath

from mri_jax import backend, files, locks
from mri_jax.cluster.address import DEVICE, Cluster, connected
from mri_jax.cluster.spread import Outcome, Task, spread
from mri_jax.errors import UserError
from mri_jax.interruption import Interrupted
from mri_jax.models.chosen import Forms
from mri_jax.planning.plan import EvaluateStage, Stage, TrainStage
from mri_jax.problems import counted, listed
from mri_jax.progress import Progress
from mri_jax.settings.study import Study
from mri_jax.study import begin
from mri_jax.study.computing import Computing
from mri_jax.study.prepare import planned
from mri_jax.study.running import Running
from mri_jax.study.scans import open_store, with_sites
from mri_jax.study.stages import StageFolders
from mri_jax.study.work import Work
from mri_jax.study.worker import (
    NAME,
    Assignment,
    Facts,
    Order,
    StudyWorker,
    seen_anywhere,
    software,
    unlike,
    volumes,
)
from mri_jax.volumes.store import VolumeStore

# Seconds in which a worker of a scheduler that runs, or of this machine, must be there.
_PATIENCE = 60.0
_LOOK = 0.5


@dataclass(frozen=True)
class OnCluster(Running):
    """How a study runs on workers; this process plans, hands out stages and writes the results.

    Attributes:
      client: A Dask client, whose workers have a `StudyWorker`.
      workers: What they are; at least one.
    """

    client: Any = None
    workers: tuple[Facts, ...] = ()

    @property
    def on_host(self) -> bool:
        """Returns whether CPUs compute."""
        return self.workers[0].device[0] == "cpu"

    @property
    def split(self) -> int:
        """Returns how many devices train a fold together."""
        return 1

    @property
    def said(self) -> str:
        """A line on where and how is computed."""
        return f"on {counted(len(self.workers), 'worker')}, each {self.workers[0].said}"

    @property
    def memory(self) -> int:
        """Bytes there are for a fold, on the worker that has least."""
        return min(worker.memory for worker in self.workers)

    def computing(self, work: Work) -> Computing:
        """Returns by what a study is computed, as a worker measures or finds it.

        Each device of a worker trains one network at a time.
        """
        first = self.workers[0]
        asked = Assignment("forms", seen_anywhere(work.study), work.further, None, first.device, ())
        key = f"forms-{secrets.token_hex(4)}"
        return Computing(
            devices=tuple(":".join(w.device) for w in self.workers for _ in range(w.devices)),
            forms=self.client.submit(_forms, asked, key=key, resources={DEVICE: 1}).result(),
            kernels=first.kernels,
        )

    def build(self, work: Work, computing: Computing) -> None:
        """Builds all stages of a study that are not finished.

        Raises:
          Interrupted: Asked to stop; workers were told so.
          UserError: Stages failed on two workers.
        """
        pending = [s for s in work.plan.stages() if not work.folders.finished(s)]
        if not pending:
            return
        tasks = list(tasks_of(work, computing.forms, self.workers[0].device, pending))
        label = f"{counted(len(self.workers), 'worker')}"
        by_name = {stage.fingerprint: stage for stage in pending}
        counted_as = {
            task.key: _Counted(
                task.label, sum(volumes(by_name[f]) for f in task.argument.fingerprints)
            )
            for task in tasks
        }
        total = sum(each.size for each in counted_as.values())
        with Progress(total, "volume", label) as progress:
            counter = _Counter(progress, counted_as)
            self.client.subscribe_topic(NAME, lambda event: counter.told(event[1]))
            try:
                done = spread(self.client, _build, tasks, self.interrupted, self.stop, self.say)
                for task in done:
                    counter.ended(task.key)
            finally:
                self.client.unsubscribe_topic(NAME)

    def stop(self) -> None:
        """Has the workers save and end what they do."""
        self.client.run(_stop, on_error="ignore")  # one that has gone needs not be told


@dataclass
class _Counted:
    """What is known of a task while it is built.

    Attributes:
      label: What it is called.
      size: Its volumes.
      done: Those that were seen.
    """

    label: str
    size: int
    done: int = 0


class _Counter:
    """Counts the volumes that tasks have seen, as workers tell and as tasks end.

    Args:
      progress: Where they are shown, with the task of which was told last.
      tasks: The tasks, by their keys.
    """

    def __init__(self, progress: Progress, tasks: dict[str, _Counted]):
        self._progress, self._tasks = progress, tasks
        self._ended = 0
        self._lock = threading.Lock()

    def told(self, message: dict[str, Any]) -> None:
        """Takes what a worker tells of a task."""
        self._count(message["task"], message["done"])

    def ended(self, key: str) -> None:
        """Counts a task that is done."""
        self._ended += 1
        self._count(key, self._tasks[key].size)

    def _count(self, key: str, done: int) -> None:
        with self._lock:
            if task := self._tasks.get(key):  # not of another study on this cluster
                more = max(0, min(done, task.size) - task.done)
                task.done += more
                tasks = f"{self._ended}/{len(self._tasks)}"
                self._progress.advance(more, at=task.label, tasks=tasks)


def _plugin() -> StudyWorker:
    plugin: Any = distributed.get_worker().plugins[NAME]
    return plugin


def _build(assignment: Assignment) -> Outcome:
    return _plugin().build(assignment)


def _forms(assignment: Assignment) -> Forms | None:
    return _plugin().forms(assignment)


def _stop(dask_worker: Any) -> None:
    dask_worker.plugins[NAME].stop()


def _facts(token: str, dask_worker: Any) -> Facts:
    return dask_worker.plugins[NAME].facts(token)


def tasks_of(
    work: Work, forms: Forms | None, device: tuple[str, str], pending: Sequence[Stage]
) -> Iterator[Task]:
    """Yields tasks: each network, all evaluations of a network together, each baseline.

    Args:
      work: The study.
      forms: How conv layers are computed.
      device: Platform and kind of the workers' devices.
      pending: Its stages that are not finished.
    """

    def task(key: str, label: str, stages: Sequence[Stage], network: TrainStage | None) -> Task:
        names = tuple(stage.fingerprint for stage in stages)
        assignment = Assignment(key, study, work.further, forms, device, names)
        after = frozenset([_key(network)] if network else [])
        return Task(key, label, assignment, after)

    study = seen_anywhere(work.study)
    evaluations: dict[str, list[EvaluateStage]] = {}
    for stage in pending:
        if isinstance(stage, TrainStage):
            label = f"{stage.kind} {stage.label} fold {stage.fold}"
            yield task(_key(stage), label, [stage], stage.parent)
        elif isinstance(stage, EvaluateStage):
            evaluations.setdefault(stage.network.fingerprint, []).append(stage)
        else:
            yield task(_key(stage), f"baseline {stage.name}", [stage], None)
    for name, stages in evaluations.items():
        network = stages[0].network
        label = f"evaluation of {network.kind} {network.label} fold {network.fold}"
        yield task(f"evaluations-{name[:16]}", label, stages, network)


def _key(stage: Stage) -> str:
    return f"{stage.kind}-{stage.fingerprint[:16]}"


@contextlib.contextmanager
def opened(
    cluster: Cluster,
    study: Study,
    workdir: epath.Path,
    stages: epath.Path,
    asked: str | None,
    interrupted: Callable[[], bool],
    report: bool,
    say: Callable[[str], None] = print,
) -> Iterator[OnCluster]:
    """Gives what runs a study on a cluster whose workers were looked at.

    Args:
      cluster: Where.
      study: What is asked, which is refused, where it must be, before workers are waited for.
      workdir: The results folder.
      stages: The folder of stages, which workers must see under the same path.
      asked: How conv layers are to be computed; None lets the workers decide.
      interrupted: Whether to save and stop.
      report: Whether to write the report at the end.
      say: Where remarks go.

    Raises:
      UserError: Nothing answers, no worker has a device, or workers do not fit together.
    """
    backend.settle()  # pictures of the first layer are computed here
    store = open_store(study)
    refuse_early(study, store, workdir, stages)
    with connected(cluster, say) as client:
        _await_worker(client, cluster, interrupted, say)
        local = cluster.kind == "local"
        order = Order(str(stages), asked, software(), cores=cluster.workers if local else 0)
        try:
            client.register_plugin(StudyWorker(order))
        except Exception as error:  # whatever a worker raises that has another version, or none
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(
                f"--cluster: a worker cannot be made ready ({told[:300]}); is the same version of "
                "mri_jax installed in its environment?"
            ) from None
        workers = looked_at(client, stages)
        yield OnCluster(
            store=store,
            interrupted=interrupted,
            say=say,
            report=report,
            client=client,
            workers=workers,
        )


def refuse_early(
    study: Study, store: VolumeStore | None, workdir: epath.Path, stages: epath.Path
) -> None:
    """Refuses, before workers are waited for, what `mri_jax.study.run` would refuse with them.

    Args:
      study: What is asked.
      store: Its store; None where it simulates its scans.
      workdir: The results folder.
      stages: The folder of stages.

    Raises:
      UserError: The study cannot be planned, or the folder holds another one.
    """

    def say_nothing(line: str) -> None:
        """It is said when the study runs."""

    study = with_sites(study, store, say_nothing)
    # The type of activations of a study that has begun is its own, whatever workers have.
    begin.check_config(workdir, begin.settled(workdir, study, on_host=True))
    planned(study, StageFolders(stages, say_nothing), store)


def _await_worker(
    client: Any, cluster: Cluster, interrupted: Callable[[], bool], say: Callable[[str], None]
) -> None:
    queued = cluster.kind not in ("local", "scheduler")
    if queued:
        say(f"waiting for the first of {cluster.workers} jobs of {cluster.kind}")
    needed = cluster.workers if cluster.kind == "local" else 1
    if not queued and len(client.nthreads()) < needed:
        say(f"waiting for workers, at most {_PATIENCE:.0f} s")
    until = time.monotonic() + _PATIENCE
    while len(client.nthreads()) < needed:
        if interrupted():
            raise Interrupted
        if not queued and time.monotonic() > until:
            raise UserError(
                f"--cluster: {cluster.address or cluster.kind}: no worker is there after "
                f"{_PATIENCE:.0f} s; start some with `dask worker ADDRESS --nworkers 1 "
                f"--nthreads 1 --resources {DEVICE}=1`"
            )
        time.sleep(_LOOK)


def looked_at(client: Any, stages: epath.Path) -> tuple[Facts, ...]:
    """Returns what the workers are; refuses those that would give other results, or none."""
    made = locks.to_make(stages)
    stages.mkdir(parents=True, exist_ok=True)
    token = stages / f".cluster-{secrets.token_hex(8)}"
    files.write_text(token, "workers of a cluster look for this file\n")
    try:
        found = list(client.run(_facts, str(token)).values())
    finally:
        token.unlink(missing_ok=True)
    problems = [f"{f.worker}: {p}" for f in found for p in _problems(f, software())]
    if problems:
        with contextlib.suppress(OSError):  # something else is there
            for folder in made:
                os.rmdir(folder)
        raise UserError("--cluster: " + "; ".join(problems))
    kinds = {f.device: f.worker for f in found}
    if len(kinds) > 1:
        each = listed([f"{worker} has {kind[1]}" for kind, worker in kinds.items()])
        raise UserError(
            f"--cluster: devices of {len(kinds)} kinds compute different numbers ({each}); use "
            "workers of one kind"
        )
    return tuple(found)


def _problems(facts: Facts, here: dict[str, str | None]) -> Iterator[str]:
    if told := unlike(facts.software, here):
        yield told
    if facts.problem:
        yield facts.problem
    elif facts.states < 1:
        yield f"states no Dask resource {DEVICE!r} (dask worker ... --resources {DEVICE}=1)"
    elif facts.states > facts.devices:
        yield f"states {facts.states} of resource {DEVICE!r} and has {facts.devices}"
