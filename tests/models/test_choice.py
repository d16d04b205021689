"""Which forms compute, and what is said where native kernels cannot be had."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.chosen import Choice, layers_of, of_layer, recorded
from mri_jax.models.conv_layer import kernels
from tests.compiling import QUICKLY
from tests.conftest import ROOT, needs_compiler
from tests.networks import apply, drawn

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
    found = [apply(SPEC, variables, x, forms=f) for f in (None, "reference")]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


def test_drawing_parameters_needs_no_kernels(unbuilt):
    variables = CNN(SPEC, forms="native").lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, *SHAPE, 1), np.float32), train=False
    )
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 3, 1, 8)


def test_other_forms_are_refused_by_name():
    with pytest.raises(
        UserError,
        match=r"^forms: 'fast' must be one of native, xla, lanes, volume, pallas, reference$",
    ):
        choice.resolved("fast")


def test_each_layer_may_have_a_form_of_its_own(rng):
    spec = CNNSpec(repetitions=(1, 2), filters=(8, 16), fc=(), dropout=(0,))
    layers = layers_of(spec, SHAPE, 2, "cpu", "0.10")
    assert [(x.size, x.channels, x.filters, x.pool) for x in layers] == [
        ((6, 5, 7), 1, 8, True), ((3, 2, 3), 8, 16, False), ((3, 2, 3), 16, 16, True),
    ]  # fmt: skip
    forms = tuple(
        Choice(layer, form, {})
        for layer, form in zip(layers, ("xla", "reference", "lanes"), strict=True)
    )
    for layer, form in zip(layers, ("xla", "reference", "lanes"), strict=True):
        shape = (8, *layer.size, layer.channels)
        assert of_layer(forms, shape, layer.filters, layer.pool, layer.dtype) == form
    assert recorded(forms, layers) == "xla,reference,lanes"
    assert choice.name(forms) == "measure"
    x, variables = rng.normal(size=(2, *SHAPE, 1)).astype(np.float32), drawn(spec, SHAPE, rng)

    def results(forms):
        def loss(params):
            logits, _ = CNN(spec, forms=forms).apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return (logits**2).sum(), logits

        run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICKLY)
        (_, logits), gradient = run(variables["params"])
        return jax.tree.leaves((logits, gradient))

    for found, expected in zip(results(forms), results("reference"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_batch_takes_the_choice_of_the_nearest_and_a_layer_without_one_is_an_error():
    few, many = (layers_of(SPEC, SHAPE, batch, "cpu", "0.10")[0] for batch in (2, 16))
    forms = (Choice(many, "xla", {}), Choice(few, "native", {}))
    about = (8, True, "float32")
    assert of_layer(forms, (1, *SHAPE, 1), *about) == "native"
    assert of_layer(forms, (9, *SHAPE, 1), *about) == "native"
    assert of_layer(forms, (10, *SHAPE, 1), *about) == "xla"
    with pytest.raises(ValueError, match="no form was chosen for a conv layer"):
        of_layer(forms, (1, *SHAPE, 1), 8, True, "bfloat16")


def test_a_form_of_accelerators_alone_is_refused_where_a_cpu_computes(monkeypatch):
    with pytest.raises(UserError, match=r"^--forms: pallas kernels are for GPUs and TPUs; "):
        choice.required("pallas")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choice.required("pallas") == "pallas"


def test_gpus_measure_unless_a_form_is_named_and_cpus_where_they_are_asked(unbuilt, monkeypatch):
    assert choice.required("measure") == "measure"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [choice.required(forms) for forms in (None, "xla")] == ["measure", "xla"]


def test_a_command_line_names_the_forms_without_jax():
    code = (
        "import sys; from mri_jax.models import choice; print(choice.FORMS, 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "('native', 'xla', 'lanes', 'volume', 'pallas', 'reference') False\n"
