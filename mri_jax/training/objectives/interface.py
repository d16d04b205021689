"""What an objective is told, and what it answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jax import Array

from mri_jax.models import CNNSpec

LABELLED, UNLABELLED, PAIRED = "labelled", "unlabelled", "paired"
"""What the batches of an objective hold: labelled scans, unlabelled ones, or as many of each."""


class Pass(NamedTuple):
    """What a network makes of a batch of volumes.

    Attributes:
      logits: (N, classes).
      features: (N, F) penultimate features: the input of the last FC layer, before its dropout.
      gates: What the network's gates multiply with, by name; see `mri_jax.models.cnn.Outputs`.
      batch_stats: Running statistics after the batch.
    """

    logits: Array
    features: Array
    gates: Mapping[str, Array]
    batch_stats: Mapping[str, Any]


class Asked(NamedTuple):
    """A step as an objective sees it; where batches are split, one device's part of it.

    Attributes:
      params: Parameters by layer: the network's, and the objective's own.
      memory: What the objective remembers; see `Objective.remembered`.
      labelled: (N, X, Y, Z, C) volumes; N is 0 where batches hold none.
      unlabelled: (M, X, Y, Z, C) volumes; M is 0 where batches hold none.
      cross_entropy: Returns of (N, classes) logits of the labelled volumes what the batch's mean
        cross-entropy gains by them.
      trained: Runs the network as in training, with the statistics of these volumes: ``trained(0,
        volumes)``; passes of other numbers draw another dropout.
      evaluated: Runs it with its running statistics and without dropout.
      step: () int32, steps taken before.
      batch_axis: Mapped axis over which batches are split, or None.
    """

    params: Mapping[str, Any]
    memory: Mapping[str, Any]
    labelled: Array
    unlabelled: Array
    cross_entropy: Callable[[Array], Array]
    trained: Callable[[int, Array], Pass]
    evaluated: Callable[[Array], Pass]
    step: Array
    batch_axis: str | None


class Terms(NamedTuple):
    """What an objective makes of a step.

    Attributes:
      loss: (), what is minimised; where batches are split, what this part adds to it.
      batch_stats: The network's running statistics after the step.
      memory: What is remembered.
    """

    loss: Array
    batch_stats: Mapping[str, Any]
    memory: Mapping[str, Any]


@dataclass(frozen=True)
class Objective(ABC):
    """What a step minimises; a hashable set of numbers, a static part of the step's settings.

    Attributes:
      name: That of the method.
      version: Raised by hand whenever the same seed and data would give other numbers than before.
      batches: `LABELLED`, `UNLABELLED` or `PAIRED`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    batches: ClassVar[str] = LABELLED

    def layers(self, spec: CNNSpec, params: Mapping[str, Any], key: Array) -> dict[str, Any]:
        """Draws parameters that train beside the network's, by layer: ``{"site1": {...}}``.

        Args:
          spec: The network.
          params: The network's parameters.
          key: A typed JAX key.
        """
        return {}

    def remembered(self, spec: CNNSpec, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is remembered before the first step, a tree of arrays.

        Args:
          spec: The network.
          params: The parameters that training starts from.
        """
        return {}

    @abstractmethod
    def terms(self, asked: Asked) -> Terms:
        """Returns the loss of a step, and what it leaves behind."""


def penultimate_size(spec: CNNSpec, params: Mapping[str, Any]) -> int:
    """Returns the number of penultimate features of a network."""
    return int(params[f"fc{len(spec.fc) + 1}"]["kernel"].shape[0])
