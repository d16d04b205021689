"""What trainings and evaluations cost on this machine, from a measurement of a few seconds."""

import math
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax.errors import UserError
from mri_jax.keys import random_key
from mri_jax.models.cnn import fresh_variables
from mri_jax.showing.numbers import gibibytes
from mri_jax.training import resident
from mri_jax.training.checkpoints import TrainingCheckpoints, load_params, save_network
from mri_jax.training.folds import EVALUATION_BATCH, Programs, Steps
from mri_jax.training.job import FitSettings, Job, with_step
from mri_jax.training.loop import begin
from mri_jax.training.prefix import frozen_layers
from mri_jax.training.wave import Wave

_WARM_UP, _MEASURED = 2, 6


@dataclass(frozen=True)
class ProgramCost:
    """The cost of one training program on this device; seconds.

    Attributes:
      compile_seconds: Compiling of training and evaluation together.
      step_seconds: A training step.
      validation_seconds: A volume in validation, on features where a prefix is frozen.
      evaluation_seconds: A volume in evaluation.
      prefix_seconds: A volume through the frozen prefix; 0 where there is none.
      save_seconds: Saving a state of training.
      stage_seconds: Beginning and ending a stage.
      load_seconds: Reading a network.
      bytes: Memory of the arrays of a fold's step, the volumes at hand apart; without what native
        kernels take for themselves.
      process_bytes: The most memory of the process while its programs were compiled, all folds ran
        and states were saved, kernels included and the volumes apart.
    """

    compile_seconds: float
    step_seconds: float
    validation_seconds: float
    evaluation_seconds: float
    prefix_seconds: float
    save_seconds: float
    stage_seconds: float
    load_seconds: float
    bytes: int
    process_bytes: int

    def of_training(
        self, fit: FitSettings, train: int, validation: int, wave: Wave, save_seconds: float
    ) -> float:
        """Returns the seconds of a training at its largest number of epochs, without compiling.

        Args:
          fit: The training.
          train: Scans that it learns from.
          validation: Scans that stop it.
          wave: What it is trained on.
          save_seconds: Least time between saved states.
        """
        epochs = fit.stopping.max_epochs
        validated = _whole_batches(validation, wave)
        epoch = train // fit.batch * self.step_seconds + validated * self.validation_seconds
        saves = min(epochs, 1 + epochs * epoch / max(save_seconds, 1e-3))
        prefix = (train + validation) * self.prefix_seconds
        return self.stage_seconds + prefix + epochs * epoch + saves * self.save_seconds

    def of_evaluation(self, scans: int, wave: Wave) -> float:
        """Returns the seconds of evaluating a network, if it had the devices of one fold alone."""
        evaluated = _whole_batches(scans, wave)
        return self.load_seconds + evaluated * self.evaluation_seconds


def measure(fit: FitSettings, shape: tuple[int, int, int], wave: Wave) -> ProgramCost:
    """Measures a training program on volumes of ``shape`` (X, Y, Z)."""
    resident.forget_peak()
    # All devices are busy: those of a CPU share its cores.
    variables = _variables(fit, shape)
    evaluated, programs = wave.whole(EVALUATION_BATCH), Programs(wave)
    count = max(fit.volumes, evaluated)
    # Ones, for memory that was never written is not taken.
    volumes = wave.copies(np.ones((count, *shape, 1), np.float32))
    tested = np.arange(evaluated, dtype=np.int32)[None]
    tested = np.repeat(tested, wave.folds, axis=0)
    stacked = wave.stack([variables] * wave.folds)
    whole = _Timed(programs.evaluate(fit.step.spec), stacked, volumes, tested)
    seen, prefix, trained = volumes, None, fit
    last = frozen_layers(fit, variables["params"])
    if last:
        prefix = _Timed(programs.features(fit.step.spec, last), stacked, volumes, tested)
        seen, trained = wave.place(list(np.asarray(prefix.result))), with_step(fit, first=last + 1)
    evaluate = programs.evaluate(fit.step.spec, trained.step.first)
    validate = _Timed(evaluate, stacked, seen, tested)
    steps = _measure_steps(trained, variables, seen, programs)
    saved = _measure_saving(trained, variables)
    return ProgramCost(
        compile_seconds=steps.first + sum(t.first for t in (whole, prefix) if t),
        step_seconds=steps.again,
        validation_seconds=validate.again / evaluated,
        evaluation_seconds=whole.again / evaluated,
        prefix_seconds=prefix.again / evaluated if prefix else 0.0,
        **saved,
        bytes=wave.split * steps.bytes,
        process_bytes=resident.peak() - count * math.prod(shape) * volumes.dtype.itemsize,
    )


@dataclass(frozen=True)
class StepCost:
    """The cost of the steps of a training program on this device.

    Attributes:
      first: Seconds of compiling.
      again: Seconds of a step of all folds.
      bytes: Memory of the arrays of a device's program, the volumes at hand apart.
    """

    first: float
    again: float
    bytes: int


def of_step(fit: FitSettings, shape: tuple[int, int, int], wave: Wave, room: int) -> StepCost:
    """Measures the steps of a training program alone, on the features of a frozen prefix if it has.

    Args:
      fit: The training.
      shape: (X, Y, Z) of a volume.
      wave: What to train on.
      room: Bytes that there are on a device.

    Raises:
      UserError: There is no room, for the steps, for validation or for the prefix.
    """
    variables, programs = _variables(fit, shape), Programs(wave)
    stacked, spec = wave.stack([variables] * wave.folds), fit.step.spec
    count = max(fit.volumes, EVALUATION_BATCH)
    places = np.zeros((wave.folds, count), np.int32)
    volumes = wave.copies(np.ones((count, *shape, 1), np.float32))
    last = frozen_layers(fit, variables["params"])
    if last:
        prefix = programs.features(spec, last)
        _needed(prefix, (stacked, volumes, places), wave, room)
        features = jax.eval_shape(prefix, stacked, volumes, places)
        ones = np.ones(features.shape[1:], features.dtype)
        fit, volumes = with_step(fit, first=last + 1), wave.place([ones] * wave.folds)
    _needed(programs.evaluate(spec, fit.step.first), (stacked, volumes, places), wave, room)
    return _measure_steps(fit, variables, volumes, programs, room)


def _needed(program: Any, arguments: tuple[Any, Any, Any], wave: Wave, room: float) -> int:
    """Compiles a program; returns the bytes of a device's arrays, the volumes at hand apart.

    Args:
      program: The program.
      arguments: Its arguments, the second of which are the volumes.
      wave: The devices, all of a fold of which hold all of its volumes.
      room: Bytes that there are on a device.

    Raises:
      UserError: There is no room.
    """
    memory = program.lower(*arguments).compile().memory_analysis()
    needed = _bytes(memory) - wave.split * arguments[1].nbytes // len(wave.devices)
    if needed > room:
        raise UserError(f"takes {gibibytes(needed)} of {gibibytes(int(room))}")
    return needed


def _variables(fit: FitSettings, shape: tuple[int, int, int]) -> Any:
    key = jax.numpy.asarray(random_key(0, "calibration"))
    return jax.device_get(fresh_variables(fit.step.spec, shape, key))


class _Timed:
    """Seconds of a program's first call and of a later one."""

    def __init__(self, program: Any, *arguments: Any):
        def call() -> float:
            asked = time.perf_counter()
            self.result = jax.block_until_ready(program(*arguments))
            return time.perf_counter() - asked

        self.first = call()
        self.again = float(np.median([call() for _ in range(_MEASURED)]))


def _measure_steps(
    fit: FitSettings, variables: Any, volumes: Any, programs: Programs, room: float = math.inf
) -> StepCost:
    wave = programs.wave
    folds, steps = wave.folds, wave.steps_per_program
    state = wave.stack([begin(fit, _job(fit, variables)).state] * folds)
    rows = np.broadcast_to(
        np.arange(fit.volumes, dtype=np.int32), (folds, steps, fit.volumes)
    ).copy()
    now = Steps(rows, rows % 2, np.ones(rows.shape, np.float32), np.ones((folds, steps), bool))
    program = programs.train(fit.step, fit.augment)
    started = time.perf_counter()
    needed = _needed(program, (state, volumes, now), wave, room)
    times = []
    first = time.perf_counter() - started
    for _ in range(_WARM_UP + _MEASURED):
        asked = time.perf_counter()
        state, metrics = program(state, volumes, now)
        jax.block_until_ready((state, metrics))
        times.append((time.perf_counter() - asked) / steps)
    return StepCost(first, float(np.median(times[_WARM_UP:])), needed)


def _job(fit: FitSettings, variables: Any) -> Job:
    rows = np.arange(fit.batch)
    ones = np.ones(fit.batch, np.float32)
    return Job(0, ("calibration",), variables, rows, rows[:0], rows % 2, ones)


def _measure_saving(fit: FitSettings, variables: Any) -> dict[str, float]:
    """On the local disk, as a stage does it."""
    with tempfile.TemporaryDirectory() as name:
        folder = epath.Path(name)
        started = time.perf_counter()
        checkpoints = TrainingCheckpoints(folder / "training", forms="")
        state = begin(fit, _job(fit, variables))
        checkpoints.save(state)
        between = time.perf_counter()
        for _ in range(3):
            checkpoints.save(state)
        saved = (time.perf_counter() - between) / 3
        save_network(folder / "network", variables, fit.step.spec, {})
        stage = time.perf_counter() - started - 4 * saved
        asked = time.perf_counter()
        load_params(folder / "network")
        load = time.perf_counter() - asked
    return {"save_seconds": saved, "stage_seconds": max(stage, 0.0) + load, "load_seconds": load}


def _bytes(memory: Any) -> int:
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def _whole_batches(scans: int, wave: Wave) -> int:
    """Returns how many volumes are evaluated, those that fill the last batch included."""
    size = wave.whole(EVALUATION_BATCH)
    return -(-scans // size) * size
