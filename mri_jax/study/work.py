"""What is to be built of a study, as the processes that build it are told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study
from mri_jax.study.feeds import Volumes
from mri_jax.study.stages import StageFolders

OnEpoch = Callable[[TrainStage, dict[str, Any]], None]


@dataclass(frozen=True)
class Work:
    """A study that is about to be built.

    Attributes:
      study: What is asked.
      further: Networks beside those that the study names.
      plan: The plan of both.
      volumes: The scans.
      folders: Where stages are kept.
      on_epoch: Called with a stage and its epoch's figures.
    """

    study: Study
    further: tuple[Run, ...]
    plan: Plan
    volumes: Volumes
    folders: StageFolders
    on_epoch: OnEpoch
