"""Training a wave of networks to their end: order, epochs, early stopping, resuming.

The order of the data is a function of the job (`mri_jax.training.job`), the state is saved after
epochs and when interrupted, and nothing else is carried along: a run that was killed continues to
the same result, bit by bit on a CPU.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from mri_jax.interruption import Interrupted
from mri_jax.keys import random_key, typed_key
from mri_jax.training import hosts, stopping
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import Feed
from mri_jax.training.folds import Programs, Steps
from mri_jax.training.inference import cross_entropy, predict
from mri_jax.training.job import FitSettings, Job, epoch_order
from mri_jax.training.state import TrainState
from mri_jax.training.step import init_state
from mri_jax.training.stopping import Stopping

HISTORY = ("train_loss", "validation_loss", "seconds", "waiting", "not_finite")


class Progressed(NamedTuple):
    """The state of a training as it is saved; a pytree of host arrays.

    Attributes:
      state: State of the step.
      best: Variables of the best epoch so far.
      stopping: State of early stopping.
      position: Steps of the present epoch already done.
      partial: (2,) sums over them: loss, steps whose loss or gradient was not finite.
      history: (max_epochs, len(HISTORY)) a row an epoch, NaN where not reached.
    """

    state: TrainState
    best: dict[str, Any]
    stopping: Stopping
    position: np.ndarray
    partial: np.ndarray
    history: np.ndarray


class Training(NamedTuple):
    """One network that is trained.

    Attributes:
      job: What it learns.
      state: How far it is.
      checkpoints: Where its states are saved.
    """

    job: Job
    state: Progressed
    checkpoints: TrainingCheckpoints


class Epoch(NamedTuple):
    """What is reported after an epoch of one training.

    Attributes:
      training: Its place among the trainings of the wave.
      epoch: Its number, from 1.
      figures: By the names of `HISTORY`.
      best: Whether its network is the best so far.
      last: Whether the training ends with it.
      volumes_per_second: Volumes per second, of all trainings of the wave.
    """

    training: int
    epoch: int
    figures: dict[str, float]
    best: bool
    last: bool
    volumes_per_second: float


@dataclass(frozen=True)
class Control:
    """What accompanies the trainings of a wave.

    Attributes:
      report: Called after every epoch of every training.
      interrupted: Whether to save and stop now; asked after every program.
      save_seconds: States are saved after an epoch, when so long has passed since the last time,
        and at the end.
    """

    report: Callable[[Epoch], None] = lambda epoch: None
    interrupted: Callable[[], bool] = lambda: False
    save_seconds: float = 0.0


def begin(settings: FitSettings, job: Job) -> Progressed:
    """Returns the state before the first epoch."""
    # The name of the stream is that of dropout, which was its only use at first.
    key = jax.numpy.asarray(random_key(job.seed, "dropout", *job.purpose))
    own = typed_key(jax.numpy.asarray(random_key(job.seed, "objective", *job.purpose)))
    spec, params = settings.step.spec, job.variables["params"]
    layers = settings.step.objective.layers(spec, params, own)
    variables = {**job.variables, "params": {**params, **layers}}
    state = jax.device_get(init_state(settings.step, variables, key))
    return Progressed(
        state=state,
        best=jax.tree.map(np.array, state.variables),
        stopping=stopping.start(),
        position=np.asarray(0, np.int32),
        partial=np.zeros(2),
        history=np.full((settings.stopping.max_epochs, len(HISTORY)), np.nan),
    )


def resume(settings: FitSettings, job: Job, checkpoints: TrainingCheckpoints) -> Training:
    """Returns a training with its last saved state, or with its first."""
    first = begin(settings, job)
    return Training(job, checkpoints.load_last(first) or first, checkpoints)


def fit(
    settings: FitSettings,
    trainings: Sequence[Training],
    feed: Feed,
    programs: Programs,
    control: Control,
) -> list[Progressed]:
    """Trains every network to its end, each a fold of the wave.

    Args:
      settings: What holds for all trainings.
      trainings: From `resume`, as many as the wave has folds; all at the same position within
        their epochs.
      feed: The volumes.
      programs: Programs of the wave.
      control: What accompanies them.

    Returns:
      The final state of each training; ``best`` holds the result.

    Raises:
      Interrupted: ``control.interrupted`` said so; all states are saved.
    """
    if len({int(training.state.position) for training in trainings}) > 1:
        raise ValueError("the trainings of a wave must stand at the same position of their epochs")
    wave = _WaveInTraining(settings, trainings, feed, programs, control)
    saved_at = time.perf_counter()
    while any(wave.active):
        active = wave.active
        reports = wave.run_epoch()
        stop = reports is None or control.interrupted()
        ended = any(each.last for each in reports or ())
        due = hosts.agreed(partial(_due, saved_at, control.save_seconds))
        if stop or ended or due:
            wave.save(active)
            saved_at = time.perf_counter()
        for each in reports or ():
            control.report(each)
        if stop:
            raise Interrupted
    return wave.states


def _due(saved_at: float, save_seconds: float) -> bool:
    return time.perf_counter() - saved_at >= save_seconds


class _Ran(NamedTuple):
    """What the steps of an epoch came to.

    Attributes:
      sums: (folds, 2) as `Progressed.partial`.
      waiting: Seconds for which the devices waited for volumes.
      stopped_at: The step before which they were interrupted; None at the end of the epoch.
    """

    sums: np.ndarray
    waiting: float
    stopped_at: int | None


class _WaveInTraining:
    """Trainings under way: parameters on the devices, everything else on the host.

    Attributes:
      states: States of each training; their ``state`` and ``best`` are those of the last `save`.
    """

    def __init__(
        self,
        settings: FitSettings,
        trainings: Sequence[Training],
        feed: Feed,
        programs: Programs,
        control: Control,
    ):
        self._settings, self._feed, self._programs = settings, feed, programs
        self._jobs = [training.job for training in trainings]
        self._checkpoints = [training.checkpoints for training in trainings]
        self._interrupted = control.interrupted
        self.states = [training.state for training in trainings]
        self._state = programs.wave.stack([state.state for state in self.states])
        self._best = programs.wave.stack([state.best for state in self.states])

    @property
    def active(self) -> list[bool]:
        """Returns which trainings have not ended."""
        rule = self._settings.stopping
        return [not stopping.finished(state.stopping, rule) for state in self.states]

    def run_epoch(self) -> list[Epoch] | None:
        """Trains and validates the rest of an epoch; None where it was interrupted before its end.

        Returns:
          What is to be reported of each active training.
        """
        active, started = self.active, time.perf_counter()
        ran = self._train(active)
        if ran.stopped_at is not None:
            for i in (i for i, on in enumerate(active) if on):
                self.states[i] = self.states[i]._replace(
                    position=np.asarray(ran.stopped_at, np.int32), partial=ran.sums[i]
                )
            return None
        losses = self._validation_losses()
        seconds = time.perf_counter() - started
        steps = [job.steps(self._settings.batch) for job in self._jobs]
        volumes = sum(n * self._settings.volumes for n, on in zip(steps, active, strict=True) if on)
        reports, improved = [], [False] * len(active)
        for i in (i for i, on in enumerate(active) if on):
            loss, not_finite = ran.sums[i]
            row = (loss / steps[i], losses[i], seconds, ran.waiting / seconds, not_finite)
            improved[i] = self._end_epoch(i, row)
            state = self.states[i].stopping
            reports.append(
                Epoch(
                    training=i,
                    epoch=int(state.epochs),
                    figures=dict(zip(HISTORY, map(float, row), strict=True)),
                    best=improved[i],
                    last=stopping.finished(state, self._settings.stopping),
                    volumes_per_second=volumes / seconds,
                )
            )
        flags = self._programs.wave.place([np.asarray(flag) for flag in improved])
        self._best = self._programs.select()(flags, self._state.variables, self._best)
        return reports

    def save(self, active: Sequence[bool]) -> None:
        """Copies parameters to the host, and writes the states of active trainings."""
        wave = self._programs.wave
        fetched = zip(self.states, wave.fetch(self._state), wave.fetch(self._best), strict=True)
        self.states = [old._replace(state=state, best=best) for old, state, best in fetched]
        for state, on, place in zip(self.states, active, self._checkpoints, strict=True):
            if on:
                place.save(state)

    def _train(self, active: Sequence[bool]) -> _Ran:
        """Trains the rest of an epoch, in programs of a few steps."""
        steps = self._steps(active)
        sums = np.stack([state.partial for state in self.states])
        program = self._programs.train(self._settings.step, self._settings.augment)
        total, position, waiting = steps.active.shape[1], int(self.states[0].position), 0.0
        pending: list[tuple[np.ndarray, Any]] = []
        chunks = self._feed.chunks(steps, position, self._programs.wave)
        stopped_at = None
        while position < total:
            asked = time.perf_counter()
            volumes, part = next(chunks)
            waiting += time.perf_counter() - asked
            self._state, metrics = program(self._state, volumes, part)
            pending.append((part.active, metrics))
            position += part.active.shape[1]
            # One program ahead of the device, no more: it is never idle, and memory stays bounded.
            if len(pending) > 1:
                self._add(sums, *pending.pop(0))
            if position < total and self._interrupted():
                stopped_at = position
                break
        for each in pending:
            self._add(sums, *each)
        return _Ran(sums, waiting, stopped_at)

    def _add(self, sums: np.ndarray, active: np.ndarray, metrics: Any) -> None:
        """Adds the metrics of a program, step by step, so that its length does not change them."""
        told = self._programs.wave.on_every_host(metrics)
        loss, finite = (told[name].astype(float) for name in ("loss", "finite"))
        for step in range(active.shape[1]):
            for fold in np.flatnonzero(active[:, step]):
                sums[fold] += (loss[fold, step], 1.0 - finite[fold, step])

    def _steps(self, active: Sequence[bool]) -> Steps:
        """Returns the orders of all trainings, those that are shorter or ended inactive."""
        batch = self._settings.batch
        orders = [
            epoch_order(job, int(state.stopping.epochs) + 1, batch)
            for job, state in zip(self._jobs, self.states, strict=True)
        ]
        longest = max(len(o) for o, on in zip(orders, active, strict=True) if on)
        rows = np.stack([np.resize(order, (longest, order.shape[1])) for order in orders])
        on = [(np.arange(longest) < len(o)) & flag for o, flag in zip(orders, active, strict=True)]
        pairs = list(zip(self._jobs, rows, strict=True))
        return Steps(
            row=rows.astype(np.int32),
            label=np.stack([job.labels[row] for job, row in pairs]).astype(np.int32),
            weight=np.stack([job.weights[row] for job, row in pairs]).astype(np.float32),
            active=np.stack(on),
        )

    def _end_epoch(self, i: int, row: tuple[float, ...]) -> bool:
        """Takes an epoch's row of `HISTORY` into a state; returns whether it is the best so far."""
        state = self.states[i]
        following, better = stopping.update(state.stopping, row[1], self._settings.stopping)
        if not len(self._jobs[i].validation):
            better = True
            following = following._replace(best_epoch=following.epochs)
        history = state.history.copy()
        history[int(state.stopping.epochs)] = row
        self.states[i] = state._replace(
            stopping=following,
            position=np.asarray(0, np.int32),
            partial=np.zeros(2),
            history=history,
        )
        return better

    def _validation_losses(self) -> list[float]:
        """Returns each training's mean cross-entropy on its validation scans; NaN without any."""
        if not any(len(job.validation) for job in self._jobs):
            return [float("nan")] * len(self._jobs)
        rows = [job.validation for job in self._jobs]
        step, variables = self._settings.step, self._state.variables
        logits = predict(step, variables, rows, self._feed, self._programs)
        return [
            cross_entropy(found, job.labels[job.validation])
            for found, job in zip(logits, self._jobs, strict=True)
        ]
