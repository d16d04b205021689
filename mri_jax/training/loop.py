"""Training a wave of networks to their end: order, epochs, early stopping, resuming.

The order of the data is a function of (seed, purpose, epoch), the state is saved after epochs and
when interrupted, and nothing else is carried along: a run that was killed continues to the same
result, bit by bit on a CPU.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from mri_jax.seeding import generator
from mri_jax.training import stopping
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import Feed
from mri_jax.training.folds import Steps, Wave, eval_program, select_program, train_program
from mri_jax.training.state import TrainState, random_key
from mri_jax.training.step import StepSettings, init_state
from mri_jax.training.stopping import Stopping, StoppingSettings

HISTORY = ("train_loss", "validation_loss", "seconds", "waiting", "not_finite")


class Interrupted(Exception):
    """Training was asked to stop; its state is saved."""


@dataclass(frozen=True)
class FitSettings:
    """What one training is, apart from its data.

    Attributes:
      step: The step.
      batch: Volumes a step.
      stopping: How long.
      augment: Alterations of the training volumes.
      evaluation_batch: Volumes at a time in evaluation.
    """

    step: StepSettings
    batch: int
    stopping: StoppingSettings
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    evaluation_batch: int = 8

    @property
    def evaluation_step(self) -> StepSettings:
        """What determines evaluation: the architecture alone, so that programs are shared."""
        return StepSettings(self.step.spec, first=self.step.first)


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
      name: For the progress bar.
      seed: Of order and dropout.
      purpose: Names the random streams of this training, e.g. ``("source", fold)``.
      variables: Parameters and statistics to start from.
      train: (N,) rows of the feed.
      validation: (M,) rows for early stopping; empty: the last epoch is the result.
      labels: (rows of the feed,) 0 or 1.
      weights: (rows of the feed,) weight of a volume in the training loss.
    """

    name: str
    seed: int
    purpose: tuple[str | int, ...]
    variables: dict[str, Any]
    train: np.ndarray
    validation: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class Progressed(NamedTuple):
    """The state of a training as it is saved; a pytree of host arrays.

    Attributes:
      state: Of the step.
      best: Variables of the best epoch so far.
      stopping: Of early stopping.
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


class Epoch(NamedTuple):
    """What is reported after an epoch of one job."""

    job: int
    epoch: int
    figures: dict[str, float]
    best: bool
    last: bool
    volumes_per_second: float


def epoch_order(job: Job, epoch: int, batch: int) -> np.ndarray:
    """(steps, batch) rows of an epoch, shuffled anew; volumes that fill no batch sit it out."""
    order = generator(job.seed, "order", *job.purpose, epoch).permutation(job.train)
    steps = len(order) // batch
    return order[: steps * batch].reshape(steps, batch)


def begin(settings: FitSettings, job: Job) -> Progressed:
    """The state before the first epoch."""
    key = jax.numpy.asarray(random_key(job.seed, "dropout", *job.purpose))
    state = jax.device_get(init_state(settings.step, job.variables, key))
    return Progressed(
        state=state,
        best=jax.tree.map(np.array, state.variables),
        stopping=stopping.start(),
        position=np.asarray(0, np.int32),
        partial=np.zeros(2),
        history=np.full((settings.stopping.max_epochs, len(HISTORY)), np.nan),
    )


def resume(settings: FitSettings, job: Job, checkpoints: TrainingCheckpoints) -> Progressed:
    """The last saved state, or the first."""
    first = begin(settings, job)
    return checkpoints.load_last(first) or first


def fit(
    settings: FitSettings,
    jobs: Sequence[Job],
    states: Sequence[Progressed],
    checkpoints: Sequence[TrainingCheckpoints],
    feed: Feed,
    wave: Wave,
    report: Callable[[Epoch], None],
    interrupted: Callable[[], bool],
    save_seconds: float = 0.0,
) -> list[Progressed]:
    """Train every job to its end, each a fold of the wave.

    Args:
      settings: What holds for all jobs.
      jobs: As many as the wave has folds.
      states: From `resume`; all at the same position within their epochs.
      checkpoints: Where each job's states are saved.
      feed: The volumes.
      wave: The devices.
      report: Called after every epoch of every job.
      interrupted: Whether to save and stop now; asked after every program.
      save_seconds: States are saved after an epoch, when so long has passed since the last time,
        and at the end.

    Returns:
      The final state of each job; ``best`` holds the result.

    Raises:
      Interrupted: ``interrupted`` said so; all states are saved.
    """
    if len({int(state.position) for state in states}) > 1:
        raise ValueError("the jobs of a wave must stand at the same position within their epochs")
    states = list(states)
    device_state = wave.stack([state.state for state in states])
    device_best = wave.stack([state.best for state in states])
    saved_at = time.perf_counter()
    while not all(running := [stopping.finished(s.stopping, settings.stopping) for s in states]):
        active = [not done for done in running]
        started = time.perf_counter()
        ran = _run_epoch(settings, jobs, states, active, device_state, feed, wave, interrupted)
        device_state, sums, waiting = ran.state, ran.sums, ran.waiting
        if ran.stopped_at is not None:
            for i in (i for i, on in enumerate(active) if on):
                states[i] = states[i]._replace(
                    position=np.asarray(ran.stopped_at, np.int32), partial=sums[i]
                )
            states = _fetch(wave, device_state, device_best, states)
            _save(states, active, checkpoints)
            raise Interrupted
        losses = _validation_losses(settings, jobs, device_state, feed, wave)
        seconds = time.perf_counter() - started
        reports, improved = [], []
        for i, job in enumerate(jobs):
            steps = len(job.train) // settings.batch
            row = (sums[i][0] / steps, losses[i], seconds, waiting / seconds, sums[i][1])
            states[i], better = _after_epoch(states[i], row, settings, job, active[i])
            improved.append(better)
            if active[i]:
                epoch = int(states[i].stopping.epochs)
                figures = dict(zip(HISTORY, map(float, row), strict=True))
                last = stopping.finished(states[i].stopping, settings.stopping)
                speed = sum(active) * steps * settings.batch / seconds
                reports.append(Epoch(i, epoch, figures, better, last, speed))
        flags = wave.place([np.asarray(flag) for flag in improved])
        device_best = select_program(wave)(flags, device_state.variables, device_best)
        states = _fetch(wave, device_state, device_best, states)
        stopping_now = interrupted()
        ended = any(each.last for each in reports)
        if stopping_now or ended or time.perf_counter() - saved_at >= save_seconds:
            _save(states, active, checkpoints)
            saved_at = time.perf_counter()
        for each in reports:
            report(each)
        if stopping_now:
            raise Interrupted
    return states


class _Ran(NamedTuple):
    state: Any
    sums: np.ndarray
    waiting: float
    stopped_at: int | None


def _run_epoch(
    settings: FitSettings,
    jobs: Sequence[Job],
    states: Sequence[Progressed],
    active: Sequence[bool],
    device_state: Any,
    feed: Feed,
    wave: Wave,
    interrupted: Callable[[], bool],
) -> _Ran:
    """The rest of an epoch of each job, in programs of a few steps."""
    steps = _steps_of_epoch(settings, jobs, states, active)
    sums = np.stack([state.partial for state in states])
    program = train_program(settings.step, settings.augment, wave)
    total, position, waiting = steps.active.shape[1], int(states[0].position), 0.0
    pending: list[tuple[np.ndarray, Any]] = []
    chunks = feed.chunks(steps, position, wave)
    stopped_at = None
    while position < total:
        asked = time.perf_counter()
        volumes, part = next(chunks)
        waiting += time.perf_counter() - asked
        device_state, metrics = program(device_state, volumes, part)
        pending.append((part.active, metrics))
        position += part.active.shape[1]
        # One program ahead of the device, no more: it is never idle, and memory stays bounded.
        if len(pending) > 1:
            _add(sums, *pending.pop(0))
        if position < total and interrupted():
            stopped_at = position
            break
    for each in pending:
        _add(sums, *each)
    return _Ran(device_state, sums, waiting, stopped_at)


def _add(sums: np.ndarray, active: np.ndarray, metrics: Any) -> None:
    """Add the metrics of a program, step by step, so that the sum does not depend on its length."""
    loss, finite = np.asarray(metrics["loss"], float), np.asarray(metrics["finite"], float)
    for step in range(active.shape[1]):
        for fold in np.flatnonzero(active[:, step]):
            sums[fold] += (loss[fold, step], 1.0 - finite[fold, step])


def _steps_of_epoch(
    settings: FitSettings,
    jobs: Sequence[Job],
    states: Sequence[Progressed],
    active: Sequence[bool],
) -> Steps:
    """The orders of all jobs side by side; shorter ones and finished jobs get inactive steps."""
    orders = [
        epoch_order(job, int(state.stopping.epochs) + 1, settings.batch)
        for job, state in zip(jobs, states, strict=True)
    ]
    longest = max(len(o) for o, on in zip(orders, active, strict=True) if on)
    rows = np.stack([np.resize(order, (longest, settings.batch)) for order in orders])
    on = [(np.arange(longest) < len(o)) & flag for o, flag in zip(orders, active, strict=True)]
    pairs = list(zip(jobs, rows, strict=True))
    return Steps(
        row=rows.astype(np.int32),
        label=np.stack([job.labels[row] for job, row in pairs]).astype(np.int32),
        weight=np.stack([job.weights[row] for job, row in pairs]).astype(np.float32),
        active=np.stack(on),
    )


def _after_epoch(
    state: Progressed, row: tuple[float, ...], settings: FitSettings, job: Job, active: bool
) -> tuple[Progressed, bool]:
    if not active:
        return state, False
    following, better = stopping.update(state.stopping, row[1], settings.stopping)
    if not len(job.validation):
        better = True
        following = following._replace(best_epoch=following.epochs)
    history = state.history.copy()
    history[int(state.stopping.epochs)] = row
    return state._replace(
        stopping=following,
        position=np.asarray(0, np.int32),
        partial=np.zeros(2),
        history=history,
    ), better


def _fetch(
    wave: Wave, device_state: Any, device_best: Any, states: Sequence[Progressed]
) -> list[Progressed]:
    fetched = zip(wave.fetch(device_state), wave.fetch(device_best), states, strict=True)
    return [old._replace(state=state, best=best) for state, best, old in fetched]


def _save(
    states: Sequence[Progressed],
    active: Sequence[bool],
    checkpoints: Sequence[TrainingCheckpoints],
) -> None:
    for one, on, place in zip(states, active, checkpoints, strict=True):
        if on:
            place.save(one)


def _validation_losses(
    settings: FitSettings, jobs: Sequence[Job], device_state: Any, feed: Feed, wave: Wave
) -> list[float]:
    """Mean cross-entropy of each job on its validation rows; NaN without any."""
    if not any(len(job.validation) for job in jobs):
        return [float("nan")] * len(jobs)
    rows = [job.validation for job in jobs]
    logits = predict(settings, device_state.variables, rows, feed, wave)
    return [
        cross_entropy(found, job.labels[job.validation])
        for found, job in zip(logits, jobs, strict=True)
    ]


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
    """Mean cross-entropy in float64: (N, 2) logits, (N,) labels; NaN for logits not finite."""
    if not np.isfinite(logits).all():
        return float("nan")
    margin = (logits[:, 1].astype(float) - logits[:, 0].astype(float)) * (2 * label - 1)
    return float(np.logaddexp(0.0, -margin).mean())


def predict(
    settings: FitSettings, variables: Any, rows: Sequence[np.ndarray], feed: Feed, wave: Wave
) -> list[np.ndarray]:
    """Logits of each network for its rows.

    Args:
      settings: For the network and the batch.
      variables: Stacked, as from `Wave.stack`.
      rows: (N_i,) rows of the feed for each network.
      feed: The volumes.
      wave: The devices.

    Returns:
      (N_i, 2) float32 for each network.
    """
    padded = padded_rows(rows, wave.whole(settings.evaluation_batch))
    program = eval_program(settings.evaluation_step, wave)
    found = []
    for volumes, batch in feed.batches(padded, wave):
        found.append(program(variables, volumes, batch))
        if len(found) > 1:
            found[-2].block_until_ready()
    logits = np.concatenate([np.asarray(part) for part in found], axis=1)
    return [logits[i, : len(r)] for i, r in enumerate(rows)]


def padded_rows(rows: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(fold, batches, size) int32: the rows of each fold, filled up with its first row again.

    Evaluation treats volumes one by one, so what fills a batch changes nothing.
    """
    longest = -(-max(len(r) for r in rows) // size) * size
    filled = [np.concatenate([r, np.full(longest - len(r), r[0])]) for r in rows]
    return np.stack(filled).reshape(len(rows), -1, size).astype(np.int32)


def with_step(settings: FitSettings, **changes: Any) -> FitSettings:
    """The settings with another step."""
    return replace(settings, step=replace(settings.step, **changes))
