"""A small network with every parameter drawn, BatchNorm's scales of both signs, and a volume."""

import jax
import numpy as np

from mri_jax.explanation.methods import Background
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.models import CNNSpec
from mri_jax.volumes.grids import Grid
from tests.networks import drawn

GRID = Grid("tiny", (17, 22, 15), 8.0, (-60.0, -90.0, -50.0))
SPEC = CNNSpec(repetitions=(1, 2), filters=(3, 4), fc=(6,), dropout=(0.0, 0.0))


def network(spec: CNNSpec = SPEC, shape=GRID.shape, seed: int = 4) -> ScoredNetwork:
    # With this seed the scores of the volumes here differ by more than 1, as tests of shares need.
    variables = drawn(spec, shape, np.random.default_rng(seed))
    return ScoredNetwork.of(
        spec, jax.tree.map(lambda a: np.asarray(a, np.float32), variables), None
    )


def volume(seed: int = 5, shape=GRID.shape) -> np.ndarray:
    """Constant outside a box, as behind a skull-stripped brain."""
    rng = np.random.default_rng(seed)
    array = np.zeros((*shape, 1), np.float32)
    inside = brain(shape)
    array[inside] = rng.normal(size=(int(inside.sum()), 1))
    return array


def brain(shape=GRID.shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[3:-2, 2:-5, 1:-3] = True
    return mask


def background(shape=GRID.shape) -> Background:
    mean = np.mean([volume(seed, shape) for seed in range(4)], axis=0, dtype=np.float32)
    return Background(mean, brain(shape), brain(shape), 0.0)
