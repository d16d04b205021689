"""What a training is: its settings, what one network learns, and in which order.

The order of the data is a function of (seed, purpose, epoch).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mri_jax.seeding import generator
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.objectives import PAIRED
from mri_jax.training.step import StepSettings
from mri_jax.training.stopping import StoppingSettings


@dataclass(frozen=True)
class FitSettings:
    """What one training is, apart from its data.

    Attributes:
      step: The step.
      batch: Volumes a step.
      stopping: How long.
      augment: Alterations of the training volumes.
    """

    step: StepSettings
    batch: int
    stopping: StoppingSettings
    augment: AugmentSettings = field(default_factory=AugmentSettings)

    @property
    def program(self) -> "FitSettings":
        """Returns what all trainings by one compiled program share, which may differ in length."""
        return replace(self, stopping=StoppingSettings(1, 1, 1))

    def __post_init__(self):
        if self.batch % self.step.accumulate:
            raise ValueError(f"{self.batch} volumes are not {self.step.accumulate} equal parts")

    @property
    def seen_at_once(self) -> int:
        """Returns how many volumes the network sees at once."""
        return self.batch // self.step.accumulate

    @property
    def volumes(self) -> int:
        """Returns how many volumes a step sees: a batch, or one of each site."""
        return self.batch * (1 + (self.step.objective.batches == PAIRED))


@dataclass(frozen=True)
class Job:
    """What one network learns; a scan is named by its row of the catalogue.

    Attributes:
      seed: Seed of order, dropout and augmentation.
      purpose: Names the random streams of this training, e.g. ``("source", fold)``.
      variables: Parameters and statistics to start from.
      train: (N,) scans.
      validation: (M,) scans for early stopping; empty: the last epoch is the result.
      labels: (rows of the catalogue,) class of a scan.
      weights: (rows of the catalogue,) weight of a scan in the training loss.
      unlabelled: (M,) scans whose labels it is not told.
    """

    seed: int
    purpose: tuple[str | int, ...]
    variables: dict[str, Any]
    train: np.ndarray
    validation: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    unlabelled: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @property
    def leading(self) -> np.ndarray:
        """Returns the scans that make up an epoch: the labelled ones, if there are any."""
        return self.train if len(self.train) else self.unlabelled

    def steps(self, batch: int) -> int:
        """Returns the steps of an epoch."""
        return len(self.leading) // batch


def epoch_order(job: Job, epoch: int, batch: int) -> np.ndarray:
    """Returns the (steps, batch) scans of an epoch, shuffled anew.

    Scans that fill no batch sit the epoch out. Where there are labelled and unlabelled scans, each
    step has a batch of both, (steps, 2 * batch), in turn, so that devices that share a batch have
    as many of each; the unlabelled ones come again when all of them were seen.
    """
    order = generator(job.seed, "order", *job.purpose, epoch).permutation(job.leading)
    steps = job.steps(batch)
    first = order[: steps * batch]
    if len(job.train) and len(job.unlabelled):
        others = generator(job.seed, "unlabelled order", *job.purpose, epoch)
        beside = np.resize(others.permutation(job.unlabelled), len(first))
        first = np.stack([first, beside], axis=1)
    return first.reshape(steps, -1)


def with_step(settings: FitSettings, **changes: Any) -> FitSettings:
    """Returns the settings with some fields of the step changed."""
    return replace(settings, step=replace(settings.step, **changes))
