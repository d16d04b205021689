"""The presets of ``configs/base.py``: which fields they set to another value than the default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mri_jax.volumes.grids import GRIDS


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
      about: What it is for, one line.
      fields: Values by the field's name (``train.batch``).
      fine_tuning: The same for experiments about fine-tuning alone.
      grid: Name of the grid of the volumes that it is meant for; empty: of any.
    """

    about: str
    fields: Mapping[str, Any]
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    grid: str = ""


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
            "search.folds": 2,
        },
        {"targets": ("ADNI2",)},
        grid="demo",
    ),
    "dev": Preset(
        "2 mm",
        {
            "simulation.grid": "dev",
            "simulation.subjects_per_class": 100,
            "model.dtype": "auto",
            "train.min_steps": 2400,  # of 80 an epoch
            "train.patience_steps": 800,
        },
        grid="dev",
    ),
    "paper": Preset(
        "1 mm, what the paper states plus the assumptions listed in BUILD_NOTES.md",
        {
            "simulation.grid": "paper",
            "simulation.paper_counts": True,
            "model.dtype": "auto",
        },
        grid="paper",
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
            "search.folds": 2,
        },
    ),
}


def unmeant(preset: str, spacing: float) -> str:
    """Returns what to say of volumes at other millimetres than a preset is meant for, or nothing.

    Args:
      preset: Its name; that of no preset is meant for any volumes.
      spacing: Edge of the volumes' voxels, mm.

    >>> unmeant("paper", 4.0), unmeant("smoke", 4.0)
    ('preset paper is meant for volumes at 1 mm, and these are at 4 mm', '')
    """
    grid = GRIDS.get(PRESETS[preset].grid) if preset in PRESETS else None
    if grid is None or grid.spacing == spacing:
        return ""
    meant = f"preset {preset} is meant for volumes at {grid.spacing:g} mm"
    return f"{meant}, and these are at {spacing:g} mm"
