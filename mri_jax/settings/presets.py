"""The presets of ``configs/base.py``: which fields they set to another value than the default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
      about: What it is for, one line.
      fields: Values by the field's name (``train.batch``).
      fine_tuning: The same for experiments about fine-tuning alone.
    """

    about: str
    fields: Mapping[str, Any]
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "demo": Preset(
        "4 mm, minutes on two cores",
        {
            # A quarter of the paper's subjects make a quarter of its steps an epoch: a higher rate.
            "train.learning_rate": 3e-4,
            "train.min_epochs": 12,
            "train.max_epochs": 20,
            "train.patience": 5,
            # Smaller cohorts take as many steps as this preset's own (48 an epoch) at least.
            "train.min_steps": 576,
            "train.patience_steps": 240,
            "finetune.epochs": 10,
            "finetune.inner_folds": 3,
        },
        {"targets": ("ADNI2",)},
    ),
    "dev": Preset(
        "2 mm",
        {
            "simulation.grid": "dev",
            "simulation.subjects_per_class": 100,
            "train.min_steps": 2400,  # of 80 an epoch
            "train.patience_steps": 800,
        },
    ),
    "paper": Preset(
        "1 mm, what the paper states plus the assumptions listed in BUILD_NOTES.md",
        {"simulation.grid": "paper", "simulation.paper_counts": True},
    ),
    "smoke": Preset(
        "a few subjects and epochs: does everything run? its scores mean nothing",
        {
            "simulation.subjects_per_class": 12,
            "train.min_epochs": 8,
            "train.max_epochs": 8,
            "train.patience": 8,
            "finetune.epochs": 4,
            "finetune.inner_folds": 2,
        },
    ),
}
