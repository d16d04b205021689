"""A model with networks that were never trained, for what does not depend on training."""

import jax
import numpy as np
import pandas as pd

from mri_jax.evaluation.intervals import wilson
from mri_jax.models import CNNSpec
from mri_jax.prediction.model import (
    ARGMAX,
    HELD_OUT,
    CohortRates,
    Distribution,
    Ensemble,
    FeatureReference,
    FigureReference,
    FoldNetwork,
    Model,
    OperatingPoint,
    Rate,
    ScoreGroup,
    Tested,
    TrainingGroup,
)
from mri_jax.training.state import random_key
from mri_jax.training.step import init_variables
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.pipeline import PreprocessSettings
from mri_jax.volumes.store import StoreInfo, StoreWriter

SPEC = CNNSpec(repetitions=(1, 1, 1), filters=(2, 3, 4), fc=(6,), dropout=(0.0, 0.0))
GRID = GRIDS["demo"]


def ensemble(stage: str = "source", temperature: float | None = 1.7) -> Ensemble:
    def network(fold: int) -> FoldNetwork:
        variables = init_variables(SPEC, GRID.shape, random_key(fold, stage))
        plain = jax.tree.map(np.array, dict(variables))
        # A distance counts in units of 1e6: nothing that is asked of this model is far.
        return FoldNetwork(fold, plain, FeatureReference(np.zeros(6), np.eye(6), 1e6))

    half = wilson(5, 10)
    rates = (CohortRates("ADNI2", Rate(10, half), Rate(10, wilson(9, 10))),)
    rng = np.random.default_rng(4)
    return Ensemble(
        stage=stage,
        networks=tuple(map(network, range(3))),
        temperature=temperature,
        calibration="Temperature 1.7, fitted on the held-out source folds (40 scans).",
        points=(
            OperatingPoint(ARGMAX, 0.0, "The more probable class.", rates),
            OperatingPoint(HELD_OUT, -30.0, "Highest balanced accuracy.", rates),
        ),
        groups=tuple(
            ScoreGroup(cohort, name, label, held, Distribution.of(rng.normal(label, 1, 20)))
            for cohort, held in (("ADNI1", True), ("ADNI2", False))
            for label, name in enumerate(("CN", "AD"))
        ),
        tested=(Tested("ADNI2", 10, 10, half),),
        distance_limit=1.5,
        distance_n=40,
    )


def model(**changes) -> Model:
    fields = {
        "name": "cnn3-w1",
        "simulated": True,
        "negative": "CN",
        "positive": "AD",
        "spec": SPEC,
        "grid": GRID,
        "settings": PreprocessSettings(grid="demo", n4=False),
        "never_raw": True,
        "normalisation": Normalisation(),
        "ensembles": (ensemble(), ensemble("tuned-high", None)),
        "quality": {"correlation": FigureReference(40, 0.7, 0.5, np.inf)},
        "training": (TrainingGroup("ADNI1", "AD", 20, (60.0, 70.0, 80.0)),),
        "notes": ("SIMULATED: made by a program.",),
        "provenance": {"mri_jax": "0.1.0"},
    }
    return Model(**fields | changes)


def store(folder, count=11, simulated=True, settings=None, bad=()):
    """``count`` volumes on the demo grid; those of ``bad`` are constant and cannot be used."""
    info = StoreInfo(GRID, "float16", simulated, settings or {"simulation": {}}, {})
    writer = StoreWriter(folder, info)
    mask = np.zeros(GRID.shape, bool)
    mask[8:40, 10:44, 9:38] = True
    rows = []
    for i in range(count):
        volume = np.random.default_rng(i).normal(100, 10, GRID.shape)
        if i in bad:
            volume[:] = 7
        rows.append(writer.add(f"S{i:03d}", "m00", "ADNI2", np.where(mask, volume, 0), mask))
    writer.write_index(pd.DataFrame(rows))
    return folder
