"""What a plan will cost: hours from short measurements, GiB from the compiled programs."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from mri_jax.errors import UserError
from mri_jax.models import CNNSpec
from mri_jax.planning.plan import BaselineStage, EvaluateStage, Plan, Stage, TrainStage
from mri_jax.progress import duration
from mri_jax.settings.study import named
from mri_jax.study.costs import Costs, ProgramCost
from mri_jax.study.execute import grouped
from mri_jax.study.stages import StageFolders
from mri_jax.training.folds import EVALUATION_BATCH
from mri_jax.training.loop import FitSettings
from mri_jax.volumes.grids import GRIDS, Grid

# A training step holds about this many times the activations of the conv layers: they, their
# gradients and the temporaries of a convolution (CNN-5 at `paper`, batch 2: 2.1 GB).
_ACTIVATION_COPIES = 3.5

AnyStage = TypeVar("AnyStage", bound=Stage)


def report(
    plan: Plan, folders: StageFolders, costs: Costs, grid: Grid, to_simulate: int, memory: int
) -> str:
    """The stages, which are cached, and the time and memory that the others will take.

    Args:
      plan: The plan.
      folders: Where stages are kept.
      costs: Measured on this device.
      grid: Of the volumes.
      to_simulate: Scans to be simulated first.
      memory: Bytes there are for a fold.

    Returns:
      Lines for the terminal.
    """
    table = _Table(folders)
    stages = plan.stages()
    if to_simulate:
        table.add("simulate scans", to_simulate, 0, to_simulate * costs.scan_seconds(grid))
    pending = [stage for stage in stages if not folders.finished(stage)]
    rows = {row for stage in pending for examples in stage.examples for row in examples.rows}
    table.add("check and read volumes", len(rows), 0, 2 * len(rows) * costs.volume_seconds(grid))
    most = 0
    trainings = [s for s in stages if isinstance(s, TrainStage)]
    for group in grouped(trainings):
        name = f"{group[0].kind} {group[0].label}"
        todo = table.pending(group)
        if not todo:
            table.add(name, len(group), len(group), 0.0)
            continue
        cost = costs.program(group[0].fit, grid)
        most = max(most, cost.bytes)
        # Waves of another size are another program.
        programs = len({len(wave) for wave in waves(todo, costs)})
        seconds = programs * cost.compile_seconds + training_seconds(todo, cost, costs)
        table.add(name, len(group), len(group) - len(todo), seconds, cost.bytes)
    evaluations = [s for s in stages if isinstance(s, EvaluateStage)]
    seconds = _evaluation_seconds(table.pending(evaluations), costs, grid)
    table.add_all("evaluate", evaluations, seconds)
    baselines = [s for s in stages if isinstance(s, BaselineStage)]
    seconds = sum(costs.baseline_seconds(s) for s in table.pending(baselines))
    table.add_all("baseline", baselines, seconds)
    on_each = f" for each of {costs.wave.folds} folds" if costs.wave.folds > 1 else ""
    table.lines.append(
        f"in all about {duration(table.seconds)} at most (early stopping may end sooner), "
        f"{most / 2**30:.2f} GiB{on_each} besides the volumes"
    )
    table.lines += [largest(group[0].fit, grid.shape, memory) for group in grouped(trainings)[:1]]
    return "\n".join(table.lines)


class _Table:
    """Lines of the report, and their sum."""

    def __init__(self, folders: StageFolders):
        self._folders = folders
        self.lines = [_line("stage", "number", "cached", "time", "GiB")]
        self.seconds = 0.0

    def pending(self, stages: Sequence[AnyStage]) -> list[AnyStage]:
        return [stage for stage in stages if not self._folders.finished(stage)]

    def add(self, name: str, number: int, cached: int, seconds: float, size: int = 0) -> None:
        self.seconds += seconds
        shown = f"{size / 2**30:.2f}" if size else ""
        self.lines.append(_line(name, str(number), str(cached), duration(seconds), shown))

    def add_all(self, name: str, stages: Sequence[Stage], seconds: float) -> None:
        if stages:
            self.add(name, len(stages), len(stages) - len(self.pending(stages)), seconds)


def _line(name: str, *columns: str) -> str:
    return f"{name:<44}" + "".join(f"{column:>12}" for column in columns)


def _evaluation_seconds(stages: Iterable[EvaluateStage], costs: Costs, grid: Grid) -> float:
    seconds = 0.0
    for stage in stages:
        fit = stage.network.fit
        cost = costs.program(fit, grid)
        evaluated = _whole_batches(len(stage.tested), costs)
        seconds += cost.load_seconds + evaluated * cost.evaluation_seconds
    return seconds / costs.wave.folds


def training_seconds(stages: Sequence[TrainStage], cost: ProgramCost, costs: Costs) -> float:
    """Seconds of training some stages of one program, at their largest number of epochs."""
    return sum(
        max(_training_seconds(stage, cost, costs) for stage in wave)
        for wave in waves(stages, costs)
    )


def waves(stages: Sequence[TrainStage], costs: Costs) -> list[Sequence[TrainStage]]:
    """The stages that train at the same time."""
    size = costs.wave.folds
    return [stages[i : i + size] for i in range(0, len(stages), size)]


def _whole_batches(scans: int, costs: Costs) -> int:
    """Returns how many volumes are evaluated, those that fill the last batch included."""
    size = costs.wave.whole(EVALUATION_BATCH)
    return -(-scans // size) * size


def _training_seconds(stage: TrainStage, cost: ProgramCost, costs: Costs) -> float:
    fit, epochs = stage.fit, stage.fit.stopping.max_epochs
    validated = _whole_batches(len(stage.validation), costs)
    epoch = len(stage.train) // fit.batch * cost.step_seconds + validated * cost.validation_seconds
    saves = min(epochs, 1 + epochs * epoch / max(costs.save_seconds, 1e-3))
    scans = len(stage.train) + len(stage.validation)
    prefix = scans * cost.prefix_seconds
    return cost.stage_seconds + prefix + epochs * epoch + saves * cost.save_seconds


def step_bytes(spec: CNNSpec, shape: tuple[int, ...], batch: int) -> int:
    """Bytes that a training step needs, before anything is compiled: an estimate by layers."""
    size, floats = list(shape), 0
    for wide, pooled in zip(spec.conv_filters, spec.pool_after, strict=True):
        floats += int(np.prod(size)) * wide
        if pooled:
            size = [n // 2 for n in size]
    channels = (1, *spec.conv_filters)
    layers = (int(np.prod(size)) * channels[-1], *spec.fc, spec.classes)
    weights = sum(27 * a * b for a, b in pairwise(channels))
    weights += sum(a * b for a, b in pairwise(layers))
    return int(4 * (floats * batch * _ACTIVATION_COPIES + weights * 5))


def check_memory(fit: FitSettings, shape: tuple[int, ...], memory: int) -> None:
    """Refuse a training that ``memory`` bytes cannot hold, before it is compiled.

    Raises:
      UserError: With the largest batch that should fit.
    """
    needed = step_bytes(fit.step.spec, shape, fit.batch)
    if needed > memory:
        raise UserError(
            f"{named('train.batch')}: {fit.batch} volumes of {'x'.join(map(str, shape))} need "
            f"about {needed / 2**30:.1f} GiB a step, and there are "
            f"{memory / 2**30:.1f} GiB for a fold; " + largest(fit, shape, memory)
        )


def largest(fit: FitSettings, shape: tuple[int, ...], memory: int) -> str:
    """A line: the largest batch at this grid, and the finest grid at this batch, that fit."""
    spec = fit.step.spec
    one, two = step_bytes(spec, shape, 1), step_bytes(spec, shape, 2)
    batch = max(0, (memory - (2 * one - two)) // (two - one))
    grids = [g for g in GRIDS.values() if step_bytes(spec, g.shape, fit.batch) <= memory]
    finest = min(grids, key=lambda g: g.spacing).name if grids else "none"
    return (
        f"by estimate, the largest batch that fits at this grid is {batch}, "
        f"and the finest grid at batch {fit.batch} is {finest}"
    )
