"""A model with networks that were never trained, for what does not depend on training."""

import functools

import jax
import numpy as np
import pandas as pd

from mri_jax.evaluation.intervals import wilson
from mri_jax.models import CNN, CNNSpec
from mri_jax.prediction.model import (
    ARGMAX,
    HELD_OUT,
    CohortRates,
    Distribution,
    Ensemble,
    FeatureReference,
    FigureReference,
    FoldNetwork,
    ModelProvenance,
    OperatingPoint,
    PortableModel,
    Rate,
    ScoreGroup,
    Tested,
    TrainingGroup,
    widths,
)
from mri_jax.seeding import generator
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.pipeline import PreprocessSettings
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.store import StoreInfo, StoreWriter
from mri_jax.volumes.templates import load_template

SPEC = CNNSpec(
    repetitions=(1, 1, 1),
    filters=(2, 3, 4),
    fc=(6,),
    dropout=(0.0, 0.0),
    attention="cbam",
    attention_blocks=(3,),
)
GRID = GRIDS["demo"]


@functools.cache
def _shapes() -> dict:
    volume = jax.ShapeDtypeStruct((1, *GRID.shape, 1), np.float32)
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    return jax.eval_shape(lambda k, x: CNN(SPEC).init(k, x, train=False), key, volume)


def _drawn(draw, leaf) -> np.ndarray:
    """Kernels around 0, as small as their many inputs ask for; scales and variances around 1."""
    if leaf.dtype != np.float32:
        return np.zeros(leaf.shape, leaf.dtype)
    if len(leaf.shape) == 1:
        return np.asarray(draw.normal(1.0, 0.1, leaf.shape), np.float32)
    return np.asarray(draw.normal(0.0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape), np.float32)


def ensemble(stage: str = "source", temperature: float | None = 1.7) -> Ensemble:
    def network(fold: int) -> FoldNetwork:
        draw = generator(fold, stage)
        variables = jax.tree.map(lambda leaf: _drawn(draw, leaf), _shapes())
        # A distance counts in units of 1e6: nothing that is asked of this model is far.
        near = {k: FeatureReference(np.zeros(n), np.eye(n), 1e6) for k, n in widths(SPEC).items()}
        return FoldNetwork(fold, variables, near, frozenset({f"{fold:032x}"}))

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
        distance_limits={"penultimate": 1.5, "layers": 1.25},
        distance_n=40,
    )


def model(**changes) -> PortableModel:
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
        "provenance": ModelProvenance("0.1.0"),
    }
    return PortableModel(**fields | changes)


def store(folder, count=11, simulated=True, settings=None, bad=()):
    """``count`` noisy brains on the demo grid; those of ``bad`` are constant, of no use."""
    info = StoreInfo(GRID, "float16", simulated, settings or {"simulation": {}}, {})
    writer = StoreWriter(folder, info)
    template = load_template()
    head = pull(Image(template.head, template.affine), GRID.affine, GRID.shape)
    mask = pull(Image(template.mask, template.affine), GRID.affine, GRID.shape) > 0.5
    rows = []
    for i in range(count):
        volume = head + np.random.default_rng(i).normal(0, 10, GRID.shape)
        if i in bad:
            volume[:] = 7
        rows.append(writer.add(f"S{i:03d}", "m00", "ADNI2", np.where(mask, volume, 0), mask))
    writer.write_index(pd.DataFrame(rows))
    return folder
