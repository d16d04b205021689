"""What the trials of a search share, and the training of one network for all of its folds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.feasible import check_memory
from mri_jax.planning.inner import Parts, aside_plan, inner_plan, parts_of
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study
from mri_jax.study import outputs
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.measured import Costs
from mri_jax.study.prepare import check_split
from mri_jax.study.running import Running
from mri_jax.study.stages import StageFolders

OnEpoch = Callable[[TrainStage, dict[str, Any]], None]


@dataclass(frozen=True)
class Bench:
    """Scans, stages and devices of a search.

    Attributes:
      study: What is asked.
      catalogue: The scans.
      volumes: Their volumes.
      folders: Where stages are kept.
      how: How it runs here.
    """

    study: Study
    catalogue: Catalogue
    volumes: Volumes
    folders: StageFolders
    how: Running

    @cached_property
    def parts(self) -> Parts:
        """Who is set aside."""
        return parts_of(self.study, self.study.trial({}), self.catalogue)

    @cached_property
    def feeds(self) -> Feeds:
        """The scans' way to the devices, which keeps those that all trials share."""
        return Feeds(self.volumes, self.study.data, self.how.devices)

    def plan(self, run: Run) -> Plan:
        """Returns the networks of a trial.

        Raises:
          UserError: They cannot be made, trained on these scans, or held by this device.
        """
        plan = inner_plan(self.study, run, self.catalogue, self.parts)
        for stage in trainings(plan):
            if not self.folders.finished(stage):
                check_memory(stage.fit, self.catalogue.grid.shape, self.how.memory)
        check_split(plan, self.how.split)
        return plan

    def costs(self, plan: Plan) -> Costs:
        """Returns what measures the steps of a plan's networks on this device."""
        wave = self.how.wave_of(plan, self.catalogue.grid.shape, self.folders)
        return Costs(self.folders.root, wave, self.study, self.how.say)

    def train(self, plan: Plan, on_epoch: OnEpoch, stop: Callable[[], bool]) -> None:
        """Runs what is not finished of a plan.

        Raises:
          Interrupted: ``stop`` said so; everything is saved.
        """
        wave = self.how.wave_of(plan, self.volumes.shape[:3], self.folders)
        Executor(
            folders=self.folders,
            volumes=self.volumes,
            feeds=self.feeds,
            wave=wave,
            interrupted=stop,
            on_epoch=on_epoch,
            save_seconds=self.study.save_seconds,
            say=lambda remark: None,  # the table of trials says it
        ).run(plan.stages())

    def predictions(self, plan: Plan) -> pd.DataFrame:
        """Returns the predictions of a plan that was run."""
        return outputs.predictions_of(plan, self.catalogue, self.folders)

    def aside(self, run: Run) -> Plan:
        """Returns a trial's networks, asked about those who were set aside."""
        return aside_plan(self.study, self.plan(run), run.variant, self.catalogue, self.parts)


def trainings(plan: Plan) -> list[TrainStage]:
    """Returns the networks of a plan, by their folds."""
    return [stage for stage in plan.stages() if isinstance(stage, TrainStage)]
