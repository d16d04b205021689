"""What a study does to its process."""

import jax
import jax.numpy as jnp

from mri_jax.training.devices import after_compiling


def test_what_follows_compilation_is_called_once_a_program():
    calls = []
    after_compiling(lambda: calls.append(1))
    double = jax.jit(lambda x: 2 * x + 17)
    argument = jnp.ones(3)
    before = len(calls)
    double(argument)
    assert len(calls) == before + 1
    double(argument)
    assert len(calls) == before + 1
