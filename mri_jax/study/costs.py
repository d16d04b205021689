"""What the parts of a study cost on this machine, measured in a few seconds each and kept.

Measurements lie under the stages folder, by device and program, so that a second ``--plan`` prints
at once.
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax import files, sealed
from mri_jax.errors import UserError
from mri_jax.evaluation.linear import fit_voxels
from mri_jax.keys import random_key
from mri_jax.planning.plan import BaselineStage
from mri_jax.settings.study import Study
from mri_jax.simulation import CohortRequest, SimulationSettings
from mri_jax.simulation.people import scans_of
from mri_jax.simulation.render import renderer
from mri_jax.training.checkpoints import TrainingCheckpoints, load_params, save_network
from mri_jax.training.folds import EVALUATION_BATCH, Programs, Steps, Wave
from mri_jax.training.loop import FitSettings, Job, begin, with_step
from mri_jax.training.prefix import frozen_layers
from mri_jax.training.step import init_variables
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.normalise import Normalisation, normalise

_WARM_UP, _MEASURED = 2, 6
# Rises when what is measured changes.
_VERSION = 4


@dataclass(frozen=True)
class ProgramCost:
    """The cost of one training program on this device; seconds.

    Attributes:
      compile_seconds: Of training and evaluation together.
      step_seconds: A training step.
      validation_seconds: A volume in validation, on features where a prefix is frozen.
      evaluation_seconds: A volume in evaluation.
      prefix_seconds: A volume through the frozen prefix; 0 where there is none.
      save_seconds: Saving a state of training.
      stage_seconds: Beginning and ending a stage.
      load_seconds: Reading a network.
      bytes: Of memory while a step of a fold runs, the resident volumes apart.
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


class Costs:
    """Measures what is asked for, or finds it measured.

    Attributes:
      wave: What will be trained on.
      save_seconds: Least time between saved states of a training.
    """

    def __init__(
        self,
        root: epath.Path,
        wave: Wave,
        study: Study,
        say: Callable[[str], None] = print,
    ):
        self._say, self._said = say, False
        self.wave, self.save_seconds = wave, study.save_seconds
        self._root = root
        self._threads, self._how = study.data.threads, study.data.intensities

    def program(self, fit: FitSettings, grid: Grid) -> ProgramCost:
        """Of a training program on volumes of a grid."""
        # What does not change the program does not belong to its name.
        key = replace(fit, stopping=fit.stopping.__class__(1, 1, 1))
        found = self._kept(
            ["program", repr(key), list(grid.shape)],
            lambda: vars(_measure(fit, grid.shape, self.wave)),
        )
        return ProgramCost(**found)

    def scan_seconds(self, grid: Grid) -> float:
        """Of simulating a scan, as many at once as the simulation makes."""
        return self._kept(["scan", grid.name, list(grid.shape)], lambda: _scan_seconds(grid))

    def volume_seconds(self, grid: Grid) -> float:
        """Of reading and normalising a volume for the first time."""
        about = ["volume", list(grid.shape), repr(self._how), self._threads]
        return self._kept(about, lambda: _volume_seconds(grid, self._how, self._threads))

    def baseline_seconds(self, stage: BaselineStage) -> float:
        """Of fitting a plain classifier to as many scans."""
        if stage.covariates:
            return 0.1
        return self._kept(["voxels", len(stage.train)], lambda: _ridge_seconds(len(stage.train)))

    def _kept(self, about: list[Any], measure: Callable[[], Any]) -> Any:
        wave = self.wave
        device = [wave.devices[0].device_kind, wave.folds, wave.split, jax.__version__]
        name = files.fingerprint([_VERSION, *about, *device])
        path = self._root / "measured" / f"{name[:16]}.json"
        try:
            return sealed.read(path)["value"]
        except (UserError, KeyError):  # absent, damaged, or of an earlier version
            if not self._said:
                self._say("measuring steps on this machine, once for each kind of network and grid")
                self._said = True
            sealed.write(path, {"value": measure()}, ())
        return sealed.read(path)["value"]


def _measure(fit: FitSettings, shape: tuple[int, int, int], wave: Wave) -> ProgramCost:
    # All devices are busy: those of a CPU share its cores.
    key = jax.numpy.asarray(random_key(0, "calibration"))
    variables = jax.device_get(init_variables(fit.step.spec, shape, key))
    evaluated, programs = wave.whole(EVALUATION_BATCH), Programs(wave)
    count = max(fit.batch, evaluated)
    volumes = wave.copies(np.zeros((count, *shape, 1), np.float32))
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
        bytes=steps.bytes,
    )


class _Timed:
    """Seconds of a program's first call and of a later one."""

    def __init__(self, program: Any, *arguments: Any):
        def call() -> float:
            asked = time.perf_counter()
            self.result = jax.block_until_ready(program(*arguments))
            return time.perf_counter() - asked

        self.first = call()
        self.again = float(np.median([call() for _ in range(_MEASURED)]))


@dataclass(frozen=True)
class _StepCost:
    first: float
    again: float
    bytes: int


def _measure_steps(fit: FitSettings, variables: Any, volumes: Any, programs: Programs) -> _StepCost:
    wave = programs.wave
    folds, steps = wave.folds, wave.steps_per_program
    state = wave.stack([begin(fit, _job(fit, variables)).state] * folds)
    rows = np.broadcast_to(np.arange(fit.batch, dtype=np.int32), (folds, steps, fit.batch)).copy()
    now = Steps(rows, rows % 2, np.ones(rows.shape, np.float32), np.ones((folds, steps), bool))
    program = programs.train(fit.step, fit.augment)
    started = time.perf_counter()
    memory = program.lower(state, volumes, now).compile().memory_analysis()
    times = []
    first = time.perf_counter() - started
    for _ in range(_WARM_UP + _MEASURED):
        asked = time.perf_counter()
        state, metrics = program(state, volumes, now)
        jax.block_until_ready((state, metrics))
        times.append((time.perf_counter() - asked) / steps)
    # Counted for one device, which holds all of its fold's volumes.
    of_step = wave.split * (_bytes(memory) - volumes.nbytes // folds)
    return _StepCost(first, float(np.median(times[_WARM_UP:])), of_step)


def _job(fit: FitSettings, variables: Any) -> Job:
    rows = np.arange(fit.batch)
    ones = np.ones(fit.batch, np.float32)
    return Job(0, ("calibration",), variables, rows, rows[:0], rows % 2, ones)


def _measure_saving(fit: FitSettings, variables: Any) -> dict[str, float]:
    """On the local disk, as a stage does it."""
    with tempfile.TemporaryDirectory() as name:
        folder = epath.Path(name)
        started = time.perf_counter()
        checkpoints = TrainingCheckpoints(folder / "training")
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


def _scan_seconds(grid: Grid) -> float:
    workers = min(os.cpu_count() or 1, 4)
    some = CohortRequest("ADNI1", {"AD": 2 * workers + 1})
    scans = scans_of(SimulationSettings(grid.name, 0, (some,)))
    render = renderer(grid)
    render(scans[0])
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(render, scans[1:]))
    return (time.perf_counter() - started) / (len(scans) - 1)


def _volume_seconds(grid: Grid, how: Normalisation, threads: int) -> float:
    rng = np.random.default_rng(0)
    volume = rng.normal(size=grid.shape).astype(np.float16)
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(n // 8, -n // 8) for n in grid.shape)] = True
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: normalise(volume, mask, how), range(2 * threads)))
    return (time.perf_counter() - started) / (2 * threads)


def _ridge_seconds(scans: int) -> float:
    blocks = np.random.default_rng(0).normal(size=(scans, 48 * 56 * 48)).astype(np.float32)
    started = time.perf_counter()
    fit_voxels(blocks, np.arange(scans) % 2, 0)
    return time.perf_counter() - started


def _bytes(memory: Any) -> int:
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
