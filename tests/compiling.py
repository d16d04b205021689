"""How programs of tests are compiled whose arithmetic is not what is tested.

LLVM and the emitters of fusions take most of the time of a program that runs once, on volumes of a
few voxels: without them a training step compiles in an eighth of the time.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import jax

QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Options of `jax.jit`."""
SOON = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
"""For programs of many filters, which `QUICKLY` makes compute for longer than these passes take."""
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""`QUICKLY` for the environment of a command."""


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Has what is given to `jax.jit` within the block compiled with `QUICKLY`."""
    with patch.object(jax, "jit", partial(jax.jit, compiler_options=QUICKLY)):
        yield
