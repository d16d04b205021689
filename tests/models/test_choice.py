"""Which forms compute, and what is said where native kernels cannot be had."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.conv_layer import kernels
from tests.conftest import ROOT, needs_compiler
from tests.networks import drawn

SPEC = CNNSpec(repetitions=(1,), filters=(8,), fc=(), dropout=(0,))
SHAPE = (6, 5, 7)


@pytest.fixture
def unbuilt(monkeypatch):
    """Nothing may be built, and nobody has chosen yet."""

    def refuse():
        raise UserError("native kernels: no C++ compiler")

    monkeypatch.setattr(kernels, "register", refuse)
    choice.of_this_machine.cache_clear()
    yield
    choice.of_this_machine.cache_clear()


@needs_compiler
def test_a_cpu_with_a_compiler_takes_the_kernels(capsys):
    choice.of_this_machine.cache_clear()
    assert choice.resolved(None) == choice.required(None) == "native"
    assert choice.kernel_library("native") == kernels.built().name
    assert choice.kernel_library("xla") is None
    assert capsys.readouterr().err.count("note") == 0


def test_without_kernels_one_line_says_what_it_costs(unbuilt, capsys):
    assert [choice.resolved(None) for _ in range(3)] == ["xla"] * 3
    told = capsys.readouterr().err
    assert told == (
        "note: native kernels: no C++ compiler; until then XLA computes, which takes about 6 "
        "times as long (a step at 2 mm)\n"
    )
    assert choice.required("xla") == "xla"
    with pytest.raises(UserError, match=r"^--forms=native: native kernels: no C\+\+ compiler$"):
        choice.required("native")


def test_a_machine_that_computes_on_a_gpu_builds_nothing(unbuilt, monkeypatch, capsys, rng):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choice.resolved(None) == "xla"
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"^--forms: native kernels are for CPUs; .* on a GPU$"):
        choice.required("native")
    # Its CPU computes all the same.
    x, variables = rng.normal(size=(2, *SHAPE, 1)).astype(np.float32), drawn(SPEC, SHAPE, rng)
    found = [CNN(SPEC, forms=f).apply(variables, x, train=False) for f in (None, "reference")]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


def test_drawing_parameters_needs_no_kernels(unbuilt):
    variables = CNN(SPEC, forms="native").lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, *SHAPE, 1), np.float32), train=False
    )
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 3, 1, 8)


def test_other_forms_are_refused_by_name():
    with pytest.raises(
        UserError, match=r"^forms: 'fast' must be one of native, xla, lanes, reference$"
    ):
        choice.resolved("fast")


def test_a_command_line_names_the_forms_without_jax():
    code = (
        "import sys; from mri_jax.models import choice; print(choice.FORMS, 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "('native', 'xla', 'lanes', 'reference') False\n"
