"""What a training step minimises beside, or instead of, the cross-entropy of labelled scans.

An objective is a frozen dataclass of numbers, in a file with the name of the method that it serves
(`mri_jax.adaptation`); a step asks it for the loss of a batch. `CROSS_ENTROPY` is that of source
networks and of fine-tuning.
"""

from collections.abc import Mapping
from importlib import import_module

from mri_jax.training.objectives.cross_entropy import CrossEntropy
from mri_jax.training.objectives.interface import (
    LABELLED,
    PAIRED,
    UNLABELLED,
    Asked,
    Objective,
    Pass,
    Terms,
)

CROSS_ENTROPY = CrossEntropy()


def of_method(module: str, rates: Mapping[str, float], steps: int) -> Objective:
    """Returns the objective of a method, made by its module's ``make``.

    Args:
      module: As `mri_jax.adaptation.Method.objective` names it; empty: cross-entropy.
      rates: The numbers that the method needs, by name.
      steps: Steps of the longest training.
    """
    if not module:
        return CROSS_ENTROPY
    return import_module(f"{__name__}.{module}").make(rates, steps)


__all__ = [
    "CROSS_ENTROPY",
    "LABELLED",
    "PAIRED",
    "UNLABELLED",
    "Asked",
    "Objective",
    "Pass",
    "Terms",
    "of_method",
]
