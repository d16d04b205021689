"""What a study does to its process."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mri_jax.training.devices import after_compiling
from tests.conftest import ROOT, needs_compiler


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


@pytest.mark.parametrize(
    ("forms", "folds"), [pytest.param("native", 1, marks=needs_compiler), ("xla", 3)]
)
def test_a_cpu_is_a_device_for_each_fold(tmp_path, forms, folds):
    code = f"""
import jax
from etils import epath
from mri_jax.training import devices
wave = devices.start(epath.Path({str(tmp_path)!r}), cpu_folds={folds}, forms={forms!r})
print(wave.folds, len(wave.devices), len(jax.devices()), jax.numpy.ones(3).sum())
print(devices.described(wave, devices.memory_of(wave)))
"""
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=alone, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    numbers, line = done.stdout.splitlines()
    assert numbers == f"{folds} {folds} {folds} 3.0"
    how = {"native": "compiled kernels", "xla": "XLA's own convolutions"}[forms]
    at_once = "one fold at a time" if folds == 1 else f"{folds} folds at once"
    assert line.startswith(f"computing on the CPU with {how}, {at_once}, ")
    assert line.endswith(" GiB free" if folds == 1 else " GiB free for each")
