"""What a plan will cost: hours from a short measurement, GiB from the compiled programs.

The measurement is kept under the stages folder, by device and program, so that a second ``--plan``
prints at once.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.models import CNNSpec
from mri_jax.study.execute import describe, grouped
from mri_jax.study.feeds import available_memory
from mri_jax.study.plan import EvaluateStage, Plan, TrainStage
from mri_jax.study.stages import StageFolders
from mri_jax.training.folds import Steps, Wave, eval_program, train_program
from mri_jax.training.loop import FitSettings
from mri_jax.training.state import random_key
from mri_jax.training.step import init_state, init_variables
from mri_jax.volumes.grids import GRIDS, Grid

_WARM_UP, _MEASURED = 2, 6
# A training step holds about this many times the activations of the conv layers: they, their
# gradients and the temporaries of a convolution (CNN-5 at `paper`, batch 2: 2.1 GB).
_ACTIVATION_COPIES = 3.5


@dataclass(frozen=True)
class Cost:
    """The cost of one program on this device.

    Attributes:
      compile_seconds: Of training and evaluation together.
      step_seconds: A training step.
      volume_seconds: A volume in evaluation.
      bytes: Of memory while a step runs, the resident volumes apart.
    """

    compile_seconds: float
    step_seconds: float
    volume_seconds: float
    bytes: int


def report(
    plan: Plan,
    folders: StageFolders,
    grid: Grid,
    to_simulate: int,
    devices: tuple[jax.Device, ...],
) -> str:
    """The stages, which are cached, and the time and memory that the others will take.

    Args:
      plan: The plan.
      folders: Where stages and measurements are kept.
      grid: Of the volumes.
      to_simulate: Scans to be simulated first.
      devices: What will be trained on.

    Returns:
      Lines for the terminal.
    """
    shape = grid.shape
    lines = [_line("stage", "networks", "cached", "hours", "GiB")]
    total, most = 0.0, 0
    trainings = [s for s in plan.stages() if isinstance(s, TrainStage)]
    costs: dict[CNNSpec, Cost] = {}
    for group in grouped(trainings):
        pending = [s for s in group if not folders.finished(s)]
        hours, size = 0.0, ""
        if pending:
            cost = measured(group[0].fit, shape, devices, folders.root)
            costs[group[0].fit.step.spec] = cost
            hours = (cost.compile_seconds + training_seconds(pending, cost, len(devices))) / 3600
            size, most = f"{cost.bytes / 2**30:.2f}", max(most, cost.bytes)
        total += hours
        name = f"{group[0].kind} {describe(group[0])}"
        counts = (str(len(group)), str(len(group) - len(pending)))
        lines.append(_line(name, *counts, f"{hours:.2f}", size))
    total += _evaluation(plan, folders, shape, devices, costs, lines)
    lines.append(
        f"in all about {total:.2f} hours at most (early stopping may end sooner), "
        f"{most / 2**30:.2f} GiB besides the volumes"
    )
    lines += [largest(group[0].fit, shape) for group in grouped(trainings)[:1]]
    return "\n".join(lines)


def _line(name: str, *columns: str) -> str:
    return f"{name:<44}" + "".join(f"{column:>10}" for column in columns)


def _evaluation(
    plan: Plan,
    folders: StageFolders,
    shape: tuple[int, int, int],
    devices: tuple[jax.Device, ...],
    costs: dict[CNNSpec, Cost],
    lines: list[str],
) -> float:
    stages = [s for s in plan.stages() if isinstance(s, EvaluateStage)]
    pending = [s for s in stages if not folders.finished(s)]
    seconds = 0.0
    for stage in pending:
        spec = stage.network.fit.step.spec
        if spec not in costs:
            costs[spec] = measured(stage.network.fit, shape, devices, folders.root)
        seconds += len(stage.tested) * costs[spec].volume_seconds / len(devices)
    counts = (str(len(stages)), str(len(stages) - len(pending)))
    lines.append(_line("evaluate", *counts, f"{seconds / 3600:.2f}", ""))
    return seconds / 3600


def training_seconds(stages: Sequence[TrainStage], cost: Cost, devices: int) -> float:
    """Seconds of training some stages of one program, at their largest number of epochs."""
    seconds = [
        stage.fit.stopping.max_epochs
        * (
            len(stage.train) // stage.fit.batch * cost.step_seconds
            + len(stage.validation) * cost.volume_seconds
        )
        for stage in stages
    ]
    return sum(max(seconds[i : i + devices]) for i in range(0, len(seconds), devices))


def measured(
    fit: FitSettings, shape: tuple[int, int, int], devices: tuple[jax.Device, ...], root: epath.Path
) -> Cost:
    """Compile and run a few steps of a program, unless that was done before on this device."""
    # What does not change the program does not belong to its name.
    key = replace(fit, stopping=fit.stopping.__class__(1, 1, 1))
    name = files.fingerprint(
        [repr(key), list(shape), devices[0].device_kind, len(devices), jax.__version__]
    )
    path = root / "measured" / f"{name[:16]}.json"
    if path.exists():
        return Cost(**files.read_json(path))
    check_memory(fit, shape)
    cost = _measure(fit, shape, Wave(devices[:1]))
    files.write_json(path, vars(cost))
    return cost


def _measure(fit: FitSettings, shape: tuple[int, int, int], wave: Wave) -> Cost:
    started = time.perf_counter()
    key = jax.numpy.asarray(random_key(0, "calibration"))
    variables = jax.device_get(init_variables(fit.step.spec, shape, key))
    state = wave.stack([jax.device_get(init_state(fit.step, variables, key))])
    count = max(fit.batch, fit.evaluation_batch)
    volumes = wave.copies(np.zeros((count, *shape, fit.step.spec.in_channels), np.float32))
    steps = wave.steps_per_program
    rows = np.broadcast_to(np.arange(fit.batch, dtype=np.int32), (1, steps, fit.batch)).copy()
    now = Steps(rows, rows % 2, np.ones(rows.shape, np.float32), np.ones((1, steps), bool))
    program = train_program(fit.step, fit.augment, wave)
    memory = program.lower(state, volumes, now).compile().memory_analysis()
    tested = np.arange(fit.evaluation_batch, dtype=np.int32)[None] % count
    evaluate = eval_program(fit.evaluation_step, wave)
    evaluate(state.variables, volumes, tested).block_until_ready()
    state, metrics = program(state, volumes, now)
    jax.block_until_ready(metrics)
    compiled = time.perf_counter() - started
    step_times, volume_times = [], []
    for i in range(_WARM_UP + _MEASURED):
        asked = time.perf_counter()
        state, metrics = program(state, volumes, now)
        jax.block_until_ready((state, metrics))
        between = time.perf_counter()
        evaluate(state.variables, volumes, tested).block_until_ready()
        if i >= _WARM_UP:
            step_times.append((between - asked) / steps)
            volume_times.append((time.perf_counter() - between) / fit.evaluation_batch)
    return Cost(
        compile_seconds=compiled,
        step_seconds=float(np.median(step_times)),
        volume_seconds=float(np.median(volume_times)),
        bytes=_bytes(memory) - volumes.nbytes,
    )


def _bytes(memory: Any) -> int:
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def step_bytes(spec: CNNSpec, shape: tuple[int, ...], batch: int) -> int:
    """Bytes that a training step needs, before anything is compiled: an estimate by layers."""
    size, floats = list(shape), 0
    for wide, pooled in zip(spec.conv_filters, spec.pool_after, strict=True):
        floats += int(np.prod(size)) * wide
        if pooled:
            size = [n // 2 for n in size]
    channels = (spec.in_channels, *spec.conv_filters)
    layers = (int(np.prod(size)) * channels[-1], *spec.fc, spec.classes)
    weights = sum(27 * a * b for a, b in pairwise(channels))
    weights += sum(a * b for a, b in pairwise(layers))
    return int(4 * (floats * batch * _ACTIVATION_COPIES + weights * 5))


def device_bytes() -> int:
    """Memory of one device, or what the host has free for each."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["bytes_limit"]) if stats else available_memory() // jax.local_device_count()


def check_memory(fit: FitSettings, shape: tuple[int, ...]) -> None:
    """Refuse a training that the device cannot hold, before it is compiled.

    Raises:
      UserError: With the largest batch that should fit.
    """
    needed, there = step_bytes(fit.step.spec, shape, fit.batch), device_bytes()
    if needed > there:
        raise UserError(
            f"config.train.batch: {fit.batch} volumes of {'x'.join(map(str, shape))} need about "
            f"{needed / 2**30:.1f} GiB a step, and the device has {there / 2**30:.1f} GiB; "
            + largest(fit, shape)
        )


def largest(fit: FitSettings, shape: tuple[int, ...]) -> str:
    """A line: the largest batch at this grid, and the finest grid at this batch, that fit."""
    spec, there = fit.step.spec, device_bytes()
    one, two = step_bytes(spec, shape, 1), step_bytes(spec, shape, 2)
    batch = max(0, (there - (2 * one - two)) // (two - one))
    grids = [g for g in GRIDS.values() if step_bytes(spec, g.shape, fit.batch) <= there]
    finest = min(grids, key=lambda g: g.spacing).name if grids else "none"
    return (
        f"by estimate, the largest batch that fits at this grid is {batch}, "
        f"and the finest grid at batch {fit.batch} is {finest}"
    )
