"""A small training: two conv layers on volumes of 9 x 12 x 10 voxels."""

import numpy as np

from mri_jax.keys import random_key
from mri_jax.models import CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.job import FitSettings, Job
from mri_jax.training.step import OptimizerSettings, StepSettings
from mri_jax.training.stopping import StoppingSettings

SHAPE = (9, 12, 10)
SPEC = CNNSpec(repetitions=(1, 1), filters=(4, 8), fc=(8,), dropout=(0.5, 0.0))
LABELS = np.arange(26) % 2


def settings(max_epochs: int = 4, augment: AugmentSettings | None = None) -> FitSettings:
    return FitSettings(
        step=StepSettings(SPEC, OptimizerSettings(learning_rate=2e-3)),
        batch=2,
        stopping=StoppingSettings(min_epochs=2, max_epochs=max_epochs, patience=1),
        augment=augment or AugmentSettings(),
    )


def volumes() -> np.ndarray:
    """Half of every volume is constant, as behind a skull-stripped brain."""
    rng = np.random.default_rng(5)
    array = rng.normal(size=(len(LABELS), *SHAPE, 1)).astype(np.float32)
    array[:, 2:6, 3:9, 2:6] += LABELS[:, None, None, None, None]
    array[:, :, :, 5:] = 0.0
    return array


def job(fold: int) -> Job:
    rows = np.arange(len(LABELS))
    return Job(
        seed=7,
        purpose=("source", fold),
        variables=fresh_variables(SPEC, SHAPE, random_key(7, "init", fold)),
        train=rows[rows % 5 != fold],
        validation=rows[rows % 5 == fold],
        labels=LABELS,
        weights=np.ones(len(LABELS), np.float32),
    )
