"""What ``--plan`` prints of time and memory."""

from collections.abc import Sequence
from typing import TypeVar

from mri_jax.planning.plan import STATISTICS, BaselineStage, EvaluateStage, Plan, Stage, TrainStage
from mri_jax.progress import duration
from mri_jax.showing.numbers import gibibytes
from mri_jax.study.execute import batched, grouped, label_of
from mri_jax.study.measured import Costs
from mri_jax.study.stages import StageFolders
from mri_jax.training import cost
from mri_jax.volumes.grids import Grid

AnyStage = TypeVar("AnyStage", bound=Stage)


def report(
    plan: Plan, folders: StageFolders, costs: Costs, grid: Grid, to_simulate: int
) -> tuple[str, float]:
    """Returns the stages, which are cached, and the time and memory that the others will take.

    Args:
      plan: The plan.
      folders: Where stages are kept.
      costs: Measured on this device.
      grid: Grid of the volumes.
      to_simulate: Scans to be simulated first.

    Returns:
      Lines for the terminal, and the seconds that they say it takes at most.
    """
    table = _Table(folders)
    stages = plan.stages()
    if to_simulate:
        table.add("simulate scans", to_simulate, 0, to_simulate * costs.scan_seconds(grid))
    pending = [stage for stage in stages if not folders.finished(stage)]
    rows = {row for stage in pending for examples in stage.examples for row in examples.rows}
    table.add("check and read volumes", len(rows), 0, 2 * len(rows) * costs.volume_seconds(grid))
    programs = []
    trainings = [s for s in stages if isinstance(s, TrainStage)]
    for group in grouped(trainings):
        name = label_of(group)
        todo = table.pending(group)
        if not todo:
            table.add(name, len(group), len(group), 0.0)
            continue
        program = costs.program(group[0].fit, grid)
        programs.append(program)
        seconds = _training_seconds(list(batched(todo, costs.wave.folds)), program, costs)
        table.add(name, len(group), len(group) - len(todo), seconds, program.bytes)
    evaluations = [s for s in stages if isinstance(s, EvaluateStage)]
    seconds = _evaluation_seconds(table.pending(evaluations), costs, grid)
    table.add_all("evaluate", evaluations, seconds)
    baselines = [s for s in stages if isinstance(s, BaselineStage)]
    seconds = sum(costs.baseline_seconds(s) for s in table.pending(baselines))
    table.add_all("baseline", baselines, seconds)
    table.lines.append(
        f"in all about {duration(table.seconds)} at most (early stopping may end sooner)"
    )
    if programs:
        table.lines.append(_memory(programs, costs, costs.held_bytes(len(rows), grid)))
    return "\n".join(table.lines), table.seconds


def _memory(programs: Sequence[cost.ProgramCost], costs: Costs, volumes: int) -> str:
    """Returns a line of the memory that trainings take at most, of the host or of each device."""
    process = max(program.process_bytes for program in programs)
    step = max(program.bytes for program in programs)
    host, read = gibibytes(process + volumes), gibibytes(volumes)
    if costs.wave.on_host:
        return (
            f"memory about {host}: {gibibytes(process)} for the process with its programs and "
            f"steps, {read} for the volumes"
        )
    return (
        f"memory of each device about {gibibytes(step + volumes)}: {gibibytes(step)} for a step, "
        f"{read} for the volumes; of the host about {host}"
    )


class _Table:
    """Lines of the report, and their sum."""

    def __init__(self, folders: StageFolders):
        self._folders = folders
        self.lines = [_line("stage", "number", "cached", "time", "MiB a step")]
        self.seconds = 0.0

    def pending(self, stages: Sequence[AnyStage]) -> list[AnyStage]:
        return [stage for stage in stages if not self._folders.finished(stage)]

    def add(self, name: str, number: int, cached: int, seconds: float, size: int = 0) -> None:
        self.seconds += seconds
        shown = f"{size / 2**20:,.0f}" if size else ""
        self.lines.append(_line(name, str(number), str(cached), duration(seconds), shown))

    def add_all(self, name: str, stages: Sequence[Stage], seconds: float) -> None:
        if stages:
            self.add(name, len(stages), len(stages) - len(self.pending(stages)), seconds)


def _line(name: str, *columns: str) -> str:
    return f"{name:<44}" + "".join(f"{column:>12}" for column in columns)


def _evaluation_seconds(stages: Sequence[EvaluateStage], costs: Costs, grid: Grid) -> float:
    """Returns seconds of evaluating networks, each of which sees each of its scans once."""
    networks: dict[str, tuple[TrainStage, set[int]]] = {}
    for stage in stages:
        seen = networks.setdefault(stage.network.fingerprint, (stage.network, set()))[1]
        seen.update(stage.tested.rows)
    return sum(
        costs.program(network.fit, grid).of_evaluation(len(seen), costs.wave)
        for network, seen in networks.values()
    ) / costs.wave.folds  # fmt: skip


def _training_seconds(
    waves: Sequence[Sequence[TrainStage]], program: cost.ProgramCost, costs: Costs
) -> float:
    """Returns seconds of training waves of one program, each as long as its longest training."""

    def seconds(stage: TrainStage) -> float:
        if stage.kind == STATISTICS:
            return program.of_evaluation(len(stage.unlabelled), costs.wave)
        scans = len(stage.train) or len(stage.unlabelled), len(stage.validation)
        return program.of_training(stage.fit, *scans, costs.wave, costs.save_seconds)

    # Waves of another size are another program.
    programs = len({len(stages) for stages in waves})
    return programs * program.compile_seconds + sum(max(map(seconds, wave)) for wave in waves)
