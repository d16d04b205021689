"""A Dask worker that builds stages of a study."""

import contextlib
import hashlib
import os
import platform
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import distributed
from etils import epath

import mri_jax
from mri_jax import files
from mri_jax.cluster.spread import DONE, FAILED, STOPPED, Outcome
from mri_jax.errors import UserError
from mri_jax.interruption import Interrupted
from mri_jax.models import choice
from mri_jax.models.chosen import Forms
from mri_jax.planning.plan import BaselineStage, EvaluateStage, Stage, TrainStage
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study
from mri_jax.study import choosing
from mri_jax.study.build import Builder
from mri_jax.study.execute import epochs
from mri_jax.study.feeds import Feeds
from mri_jax.study.prepare import open_volumes, planned
from mri_jax.study.provenance import versions
from mri_jax.study.scans import open_store
from mri_jax.study.stages import StageFolders
from mri_jax.study.trainer import Trainer
from mri_jax.training import devices
from mri_jax.training.loop import Control
from mri_jax.training.wave import Wave

NAME = "mri_jax"
"""Of the plugin, and of the topic under which it tells of its progress."""


@dataclass(frozen=True)
class Order:
    """What holds for all stages that a worker is asked to build.

    Attributes:
      stages: The folder of stages.
      asked: How conv layers are to be computed; None lets the machine decide.
      software: What the launcher has.
      cores: Into how many parts the cores of a machine are divided among its workers; 0: each uses
        all of them.
    """

    stages: str
    asked: str | None
    software: dict[str, str | None]
    cores: int = 0


@dataclass(frozen=True)
class Assignment:
    """Stages that a worker builds one after the other.

    Attributes:
      key: Of the task.
      study: What they belong to, as it was settled.
      further: Networks beside those that the study names.
      forms: How conv layers are computed.
      device: Platform and kind of the devices of all workers.
      fingerprints: The stages, all networks, all evaluations of one network, or one baseline.
    """

    key: str
    study: Study
    further: tuple[Run, ...]
    forms: Forms | None
    device: tuple[str, str]
    fingerprints: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What a worker is, in plain types.

    Attributes:
      worker: What it is called.
      software: Versions of packages, and a digest of this one's source.
      device: Platform and kind of its devices.
      devices: How many it has.
      states: How many it states as Dask resources.
      memory: Bytes for a fold.
      said: A line on how it computes.
      kernels: The library of its kernels, if it uses them.
      problem: Why it cannot work.
    """

    worker: str
    software: dict[str, str | None]
    device: tuple[str, str] = ("", "")
    devices: int = 0
    states: int = 0
    memory: int = 0
    said: str = ""
    kernels: str | None = None
    problem: str = ""


def seen_anywhere(study: Study) -> Study:
    """Returns a study whose paths do not depend on the folder in which a worker was started."""
    if study.data.simulated:
        return study
    cohort, store = (files.absolute(path) for path in (study.data.cohort, study.data.store))
    return replace(study, data=replace(study.data, cohort=str(cohort), store=str(store)))


def software() -> dict[str, str | None]:
    """Returns the versions of packages that determine numbers, and a digest of this source."""
    folder = Path(mri_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for s in ("py", "hpp", "cpp") for p in folder.rglob(f"*.{s}")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    own = f"{mri_jax.__version__} (source {digest.hexdigest()[:12]})"
    return {"mri_jax": own, "python": platform.python_version(), **versions()}


def unlike(there: dict[str, str | None], here: dict[str, str | None]) -> str:
    """Returns in words what software of a worker is not the launcher's; empty where all is."""
    other = [
        f"{name} {there.get(name)}, not {v}" for name, v in here.items() if there.get(name) != v
    ]
    return f"has {', '.join(other)}" if other else ""


class StudyWorker(distributed.WorkerPlugin):
    """Builds stages in the threads of a worker, each with a device of its own.

    Args:
      order: What is asked of all workers.
    """

    name = NAME
    idempotent = False

    def __init__(self, order: Order):
        self._order = order

    def setup(self, worker: Any) -> None:
        """Called by Dask when the worker has started."""
        self._worker, self._stop = worker, threading.Event()
        self._opening, self._studies = threading.Lock(), dict[str, OpenStudy]()
        if self._order.cores > 1:
            mine = sorted(os.sched_getaffinity(0))[int(worker.name) :: self._order.cores]
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(OSError):  # it has ended
                    os.sched_setaffinity(int(thread), mine)

    def teardown(self, worker: Any) -> None:
        """Called by Dask when the worker ends: what runs is saved."""
        self.stop()

    def stop(self) -> None:
        """Has what runs saved and ended."""
        self._stop.set()

    @property
    def called(self) -> str:
        """Returns what the worker is called in messages."""
        return f"worker {self._worker.name}"

    def facts(self, token: str) -> Facts:
        """Returns what the worker is, and why it cannot work, if so.

        Args:
          token: A file that the launcher has written into the folder of stages.
        """
        known = Facts(self.called, self._software)
        try:
            wave = self._started()
            if not epath.Path(token).exists():
                return replace(known, problem=f"{token} is not there: it sees other stages")
            # Workers of one machine share its memory as they share its cores.
            memory = devices.memory_of(wave) // (max(1, self._order.cores) if wave.on_host else 1)
            return replace(
                known,
                device=(wave.devices[0].platform, wave.devices[0].device_kind),
                devices=len(wave.devices),
                states=int(self._worker.state.total_resources.get("device", 0)),
                memory=memory,
                said=devices.described(wave, memory),
                kernels=choice.kernel_library(choice.resolved(wave.forms)),
            )
        except UserError as error:
            return replace(known, problem=str(error))

    def forms(self, assignment: Assignment) -> Forms | None:
        """Returns how conv layers of a study's networks are computed, measured here if need be."""
        opened = self._opened(assignment)
        return choosing.with_forms(
            self._started(), opened.plan, opened.volumes.shape[:3], opened.folders
        ).forms

    def build(self, assignment: Assignment) -> Outcome:
        """Builds stages; whatever goes wrong is in what it returns."""
        counter = _Counter(self.tell, assignment.key)
        return self.attempt(assignment, lambda opened: opened.build(assignment, counter))

    def tell(self, message: dict[str, Any]) -> None:
        """Sends the launcher a message."""
        self._worker.log_event(NAME, message)

    def attempt(self, assignment: Assignment, do: Callable[["OpenStudy"], None]) -> Outcome:
        """Does something with a study; whatever goes wrong is in what it returns."""
        of = Outcome(DONE, self.called, self._worker.address)
        try:
            self._require_alike(assignment)
            do(self._opened(assignment))
            return of
        except Interrupted:
            return replace(of, state=STOPPED)
        except (UserError, OSError) as error:
            return replace(of, state=FAILED, reason=str(error))
        except Exception as error:
            traceback.print_exc()
            line = " ".join(f"{type(error).__name__}: {error}".split())
            return replace(of, state=FAILED, reason=line)

    def _require_alike(self, assignment: Assignment) -> None:
        """Refuses what a worker that came later would compute otherwise."""
        first = self._started().devices[0]
        device = first.platform, first.device_kind
        if device != assignment.device:
            raise UserError(f"has {device[1]}, and the others {assignment.device[1]}")
        if told := unlike(self._software, self._order.software):
            raise UserError(told)

    @cached_property
    def _software(self) -> dict[str, str | None]:
        return software()

    def _started(self) -> Wave:
        with self._opening:
            if not hasattr(self, "_wave"):
                stages = epath.Path(self._order.stages)
                self._wave = devices.start(stages, forms=self._order.asked)
            return self._wave

    def _opened(self, assignment: Assignment) -> "OpenStudy":
        wave = self._started()
        named = [run.name for run in assignment.further]
        about = files.fingerprint([assignment.study.to_json(), named, repr(assignment.forms)])
        with self._opening:
            if about not in self._studies:
                self._studies.clear()
                self._studies[about] = OpenStudy(
                    assignment, wave, self._order, self.called, self._stop.is_set
                )
            return self._studies[about]


class _Counter:
    """Tells the launcher how many volumes a task has seen."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], key: str):
        self._tell, self._key = tell, key
        self._done, self.each = 0, 1

    def advance(self, count: int = 1, **figures: object) -> None:
        """Count items of ``each`` volumes."""
        self._done += count * self.each
        self._tell({"task": self._key, "done": self._done})


class OpenStudy:
    """A study that is open in a worker.

    Args:
      assignment: Names the study and how conv layers are computed.
      wave: The devices of the worker, each of which trains a network.
      order: Where stages are.
      called: What the worker is called.
      interrupted: Whether to save and stop.

    Attributes:
      study: The study.
      folders: Where stages are kept.
      plan: Its plan.
      volumes: Its scans.
      interrupted: As given.
      asked: How the worker was asked to compute conv layers.
    """

    def __init__(
        self,
        assignment: Assignment,
        wave: Wave,
        order: Order,
        called: str,
        interrupted: Callable[[], bool],
    ):
        self.study, self.interrupted, self.asked = assignment.study, interrupted, wave.forms
        self.folders = StageFolders(order.stages, made_by=f"{called} on {platform.node()}")
        store = open_store(self.study)
        catalogue, self.plan = planned(self.study, self.folders, store, assignment.further)
        self.volumes = open_volumes(self.study, catalogue, self.folders, store, interrupted)
        self._stages = {stage.fingerprint: stage for stage in self.plan.stages()}
        self._free: queue.SimpleQueue[Wave] = queue.SimpleQueue()
        for device in wave.devices:
            self._free.put(replace(wave, devices=(device,), forms=assignment.forms))
        self._builders: dict[tuple[Any, ...], Builder] = {}

    @contextlib.contextmanager
    def device(self) -> Iterator[Wave]:
        """Gives a device that nothing else uses, once there is one."""
        wave = self._free.get()
        try:
            yield wave
        finally:
            self._free.put(wave)

    def _builder(self, wave: Wave) -> Builder:
        if wave.devices not in self._builders:
            feeds = Feeds(self.volumes, self.study.data, wave)
            # Any stage may come, and reading its scans may take longer than the stage.
            feeds.hold([s for s in self._stages.values() if not self.folders.finished(s)])
            control = Control(interrupted=self.interrupted, save_seconds=self.study.save_seconds)
            trainer = Trainer(
                self.folders,
                self.volumes,
                feeds,
                control,
                on_epoch=lambda stage, figures: None,
                say=lambda remark: None,
            )
            self._builders[wave.devices] = Builder(trainer, wave)
        return self._builders[wave.devices]

    def build(self, assignment: Assignment, counter: _Counter) -> None:
        """Builds the stages of an assignment on a device that is free.

        Raises:
          UserError: The plan here has no such stages.
        """
        unknown = [name for name in assignment.fingerprints if name not in self._stages]
        if unknown:
            raise UserError(
                f"{self.volumes.store.path}: the scans here give other stages; does this "
                "worker see another store, or another cohort table, under the same path?"
            )
        stages = [self._stages[name] for name in assignment.fingerprints]
        with self.device() as wave:
            builder = self._builder(wave)
            evaluations = [stage for stage in stages if isinstance(stage, EvaluateStage)]
            if evaluations:
                builder.evaluate([evaluations], True, counter)
            for stage in stages:
                if isinstance(stage, TrainStage):
                    counter.each = volumes(stage) // epochs(stage)
                    builder.train([stage], True, counter)
                elif isinstance(stage, BaselineStage):
                    builder.fit(stage)


def volumes(stage: Stage) -> int:
    """Returns how many volumes a stage reads at most, each as often as it is read."""
    read = sum(map(len, stage.examples))
    return read * epochs(stage) if isinstance(stage, TrainStage) else read
