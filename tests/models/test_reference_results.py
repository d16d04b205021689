"""Against float64 results of an independent implementation (see ../shared/reference)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mri_jax.models import CNN, CNNSpec
from tests.compiling import QUICKLY
from tests.conftest import needs_compiler

CASES = {
    "cnn5_w1_32x32x32": ("cnn5", 1.0),
    "cnn10_w05_32x64x32": ("cnn10", 0.5),
    "cnn5_w1_background_32x40x37": ("cnn5", 1.0),
}


def read(name, reference_results):
    """Arrays of a case, the variables among them, and its spec's member and width."""
    with np.load(reference_results / f"{name}.npz") as file:
        arrays = dict(file)
    variables = {"params": {}, "batch_stats": {}}
    for path, array in arrays.items():
        if path.startswith(("conv", "bn", "fc")):
            layer, leaf = path.split("/")
            collection = "batch_stats" if leaf in ("mean", "var") else "params"
            variables[collection].setdefault(layer, {})[leaf] = array
    return arrays, variables, *CASES[name]


FORMS = {
    ("reference", "float64"): (),
    ("xla", "float64"): (),
    ("xla", "float32"): (),
    ("native", "float64"): (needs_compiler,),
    ("native", "float32"): (needs_compiler,),
}


# XLA compiles CNN-5 for ten seconds and CNN-10 for half a minute: one shape of CNN-5 stands for the
# others, in each form and precision.
FAST = {
    ("cnn5_w1_32x32x32", "xla", "float32"),
    ("cnn5_w1_background_32x40x37", "xla", "float64"),
    ("cnn5_w1_background_32x40x37", "reference", "float64"),
}


def marks(name, forms, dtype):
    slow = forms != "native" and (name, forms, dtype) not in FAST
    return (*FORMS[forms, dtype], *[pytest.mark.slow] * slow)


@pytest.mark.parametrize(
    ("name", "forms", "dtype"),
    [pytest.param(n, f, d, marks=marks(n, f, d)) for n in CASES for f, d in FORMS],
)
def test_logits_loss_and_every_gradient(name, forms, dtype, reference_results):
    tolerance = {"float64": 1e-6, "float32": 2e-4}[dtype]
    arrays, variables, preset, width = read(name, reference_results)
    with jax.enable_x64(dtype == "float64"):
        spec = CNNSpec.preset(preset, width=width, dtype=dtype, dropout=(0, 0, 0))
        variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)
        x, model = jnp.asarray(arrays["x"], dtype), CNN(spec, forms=forms)
        assert spec.pool_after == tuple(arrays["pool_after"].astype(bool))

        def loss_of(variables):
            params = variables["params"]
            logits, _ = model.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                x,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, arrays["y"])
            return losses.mean(), (logits, model.apply(variables, x, train=False))

        # The plain form is here to be compared with; the others are compiled as users compile them.
        options = QUICKLY if forms == "reference" else None
        run = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options=options)
        (loss, (logits, evaluated)), gradients = run(variables)
        gradient = gradients["params"]
        ours = {
            "logits_eval": evaluated,
            "logits_train_no_dropout": logits,
            "loss_train_no_dropout": loss,
        }
        for layer, leaves in gradient.items():
            ours |= {f"grad/{layer}/{leaf}": values for leaf, values in leaves.items()}
        expected = [k for k in arrays if k.startswith(("grad/", "logits", "loss"))]
        assert set(expected) == set(ours)
        for array, result in ours.items():
            largest = np.abs(arrays[array]).max()
            error = np.abs(np.asarray(result, np.float64) - arrays[array]).max()
            assert error <= tolerance * largest, array


@pytest.mark.parametrize("name", list(CASES))
def test_bfloat16_stays_near(name, reference_results):
    arrays, variables, preset, width = read(name, reference_results)
    spec = CNNSpec.preset(preset, width=width, dtype="bfloat16")
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), variables)
    apply = jax.jit(partial(CNN(spec).apply, train=False))
    logits = apply(variables, jnp.asarray(arrays["x"], jnp.float32))
    assert logits.dtype == jnp.float32
    error = np.abs(np.asarray(logits) - arrays["logits_eval"]).max()
    # bfloat16 keeps 8 bits: exact agreement would mean that nothing was computed in it.
    assert 1e-6 < error / np.abs(arrays["logits_eval"]).max() < 0.02
