"""Networks for tests: drawn by NumPy, and called as one compiled program.

JAX would compile a generator for the shape of every parameter, and called plainly it compiles each
operation alone.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from mri_jax.models import CNN, CNNSpec
from tests.compiling import QUICKLY


def apply(spec: CNNSpec, variables: Any, x: Any, forms: Any = None, **options: Any) -> Any:
    """Returns what `CNN.apply` does in evaluation: logits, or what ``options`` ask for."""
    ask = partial(CNN(spec, forms=forms).apply, train=False, **options)
    return jax.jit(ask, compiler_options=QUICKLY)(variables, x)


def drawn(spec: CNNSpec, shape: tuple[int, int, int], rng: np.random.Generator) -> Any:
    """Returns variables with every parameter and statistic drawn, scales of both signs, float64."""
    volume = jax.ShapeDtypeStruct((1, *shape, 1), np.float32)
    init = partial(CNN(spec).init, train=False)
    shapes = {"batch_stats": {}, **jax.eval_shape(init, jax.random.key(0), volume)}

    def draw(path: Any, array: Any) -> np.ndarray:
        if array.dtype == np.int32:  # steps that the statistics are of
            return np.full(array.shape, 7, np.int32)
        name, normal = path[-1].key, rng.normal(size=array.shape)
        if name.endswith("kernel"):
            return normal * np.sqrt(2 / np.prod(array.shape[:-1]))
        if name == "scale":
            return rng.choice([-1, 1], array.shape) * (1 + 0.3 * normal)
        return 0.3 * normal if name == "bias" else rng.uniform(0.5, 1.5, array.shape)

    return jax.tree_util.tree_map_with_path(draw, shapes)
