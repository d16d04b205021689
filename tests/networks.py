"""Networks as one compiled program: called plainly, each of their operations is compiled alone."""

from functools import partial
from typing import Any

import jax

from mri_jax.models import CNN, CNNSpec


def apply(spec: CNNSpec, variables: Any, x: Any, **options: Any) -> Any:
    """Returns what `CNN.apply` does in evaluation: logits, or what ``options`` ask for."""
    return jax.jit(partial(CNN(spec).apply, train=False, **options))(variables, x)
