"""What a network needs, predicted from its description, and whether that is within the budget."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from mri_jax.errors import UserError
from mri_jax.models import CNNSpec
from mri_jax.models.summary import layers, step_bytes
from mri_jax.planning.feasible import check_network
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.settings.runs import Run
from mri_jax.settings.search import Search
from mri_jax.settings.study import named
from mri_jax.study.measured import Costs
from mri_jax.volumes.grids import Grid

_WIDTHS = (0.5, 2.0, 4.0)
"""Widths, beside the config's own, of networks whose steps are measured to predict others."""


@dataclass(frozen=True)
class Needs:
    """What a network needs.

    Attributes:
      parameters: Of the network.
      multiply_adds: For one volume, forwards.
      mebibytes: Memory of a training step, by estimate.
      step_seconds: Of a training step on this machine, as predicted; NaN where nobody asked.
    """

    parameters: int
    multiply_adds: int
    mebibytes: int
    step_seconds: float

    @property
    def told(self) -> dict[str, Any]:
        """Returns the numbers by their names in tables, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value == value}


@dataclass(frozen=True)
class Budget:
    """What a network may need.

    Attributes:
      search: Holds the limits.
      grid: Grid of the volumes.
      speed: Predicts the seconds of a step; None where nobody asks.
    """

    search: Search
    grid: Grid
    speed: "Speed | None" = None

    def needs(self, run: Run) -> Needs:
        """Returns what a network needs.

        Raises:
          UserError: Volumes are too small for it.
        """
        check_network(run.spec, self.grid)
        rows = layers(run.spec, self.grid.shape)
        batch = run.train.batch
        at_once = batch // run.train.accumulate
        return Needs(
            parameters=sum(row.parameters for row in rows),
            multiply_adds=sum(row.multiply_adds for row in rows),
            mebibytes=-(-step_bytes(run.spec, self.grid.shape, at_once) // 2**20),
            step_seconds=self.speed.seconds(run.spec, batch) if self.speed else float("nan"),
        )

    def check(self, needs: Needs) -> None:
        """Refuses a network that needs more than the budget.

        Raises:
          UserError: It does; the first limit is named.
        """
        for field, value, shown in (
            ("most_parameters", needs.parameters, f"{needs.parameters:,} parameters"),
            ("most_multiply_adds", needs.multiply_adds, f"{needs.multiply_adds:,} multiply-adds"),
            ("most_mebibytes", needs.mebibytes, f"{needs.mebibytes:,} MiB a step"),
            ("most_seconds", needs.step_seconds, f"{needs.step_seconds:.3g} s a step"),
        ):
            limit = getattr(self.search, field)
            if limit and value > limit:
                raise UserError(f"{named(f'search.{field}')}: {limit:,} is less than {shown}")


@dataclass(frozen=True)
class Speed:
    """Seconds of a training step, as a sum of what a network computes and what it stores.

    Attributes:
      weights: Seconds of a step as such, of a multiply-add and of a byte of activations.
      shape: (X, Y, Z) of a volume.
      compile_seconds: Of a network's programs, as those that were measured took in the mean.
    """

    weights: tuple[float, float, float]
    shape: tuple[int, int, int]
    compile_seconds: float = 0.0

    @classmethod
    def measured(
        cls, run: Run, plan_of: Callable[[Run], Plan], costs_of: Callable[[Plan], Costs], grid: Grid
    ) -> "Speed":
        """Measures a network at a few widths, unless that was done on this device.

        Args:
          run: The network.
          plan_of: Returns the trainings of a network.
          costs_of: Returns what measures them.
          grid: Grid of the volumes.
        """
        rows, measured = [], []
        for width in (run.spec.width, *_WIDTHS):
            spec = replace(run.spec, width=width)
            plan = plan_of(replace(run, spec=spec))
            fit = next(s.fit for s in plan.stages() if isinstance(s, TrainStage))
            rows.append(_work(spec, run.train.batch, grid.shape))
            measured.append(costs_of(plan).program(fit, grid))
        compiling = float(np.mean([each.compile_seconds for each in measured]))
        weights = fitted(rows, [each.step_seconds for each in measured])
        return cls(weights, grid.shape, compiling)

    def seconds(self, spec: CNNSpec, batch: int) -> float:
        """Returns the seconds of a step on this machine."""
        return float(np.dot(self.weights, _work(spec, batch, self.shape)))


def fitted(
    work: Sequence[tuple[float, float, float]], seconds: Sequence[float]
) -> tuple[float, float, float]:
    """Returns the weights, none negative, that come nearest to measured seconds, as shares of them.

    >>> fitted([(1, 0, 4), (1, 2, 4), (1, 8, 0)], [5.0, 7.0, 9.0])
    (1.0, 1.0, 1.0)
    """
    times = np.asarray(seconds, float)
    scale = np.asarray(work, float).max(axis=0)
    rows = np.asarray(work, float) / scale / times[:, None]
    found, _ = nnls(rows, np.ones(len(times)))
    once, product, byte = (float(round(w, 15)) for w in found / scale)
    return once, product, byte


def _work(spec: CNNSpec, batch: int, shape: tuple[int, int, int]) -> tuple[float, float, float]:
    rows = layers(spec, shape)
    sums = (sum(row.multiply_adds for row in rows), sum(row.activation_bytes for row in rows))
    return 1.0, float(batch * sums[0]), float(batch * sums[1])
