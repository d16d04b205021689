"""Against float64 results of an independent implementation (see ../shared/reference)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mri_jax.models import CNN, CNNSpec
from tests.conftest import needs_compiler

CASES = {
    "cnn5_w1_32x32x32": ("cnn5", 1.0),
    "cnn10_w05_32x64x32": ("cnn10", 0.5),
    "cnn5_w1_background_32x40x37": ("cnn5", 1.0),
}


@pytest.fixture(params=list(CASES))
def case(request, reference_results):
    with np.load(reference_results / f"{request.param}.npz") as file:
        arrays = dict(file)
    variables = {"params": {}, "batch_stats": {}}
    for path, array in arrays.items():
        if path.startswith(("conv", "bn", "fc")):
            layer, name = path.split("/")
            collection = "batch_stats" if name in ("mean", "var") else "params"
            variables[collection].setdefault(layer, {})[name] = array
    preset, width = CASES[request.param]
    return arrays, variables, preset, width


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("reference", "float64"),
        ("fast", "float64"),
        ("fast", "float32"),
        pytest.param("native", "float64", marks=needs_compiler),
        pytest.param("native", "float32", marks=needs_compiler),
    ],
)
def test_logits_loss_and_every_gradient(case, form, dtype):
    tolerance = {"float64": 1e-6, "float32": 2e-4}[dtype]
    arrays, variables, preset, width = case
    with jax.enable_x64(dtype == "float64"):
        spec = CNNSpec.preset(preset, width=width, dtype=dtype, form=form, dropout=(0, 0, 0))
        variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)
        x, model = jnp.asarray(arrays["x"], dtype), CNN(spec)
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

        run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
        (loss, (logits, evaluated)), gradients = run(variables)
        gradient = gradients["params"]
        ours = {
            "logits_eval": evaluated,
            "logits_train_no_dropout": logits,
            "loss_train_no_dropout": loss,
        }
        for layer, leaves in gradient.items():
            ours |= {f"grad/{layer}/{name}": leaf for name, leaf in leaves.items()}
        expected = [k for k in arrays if k.startswith(("grad/", "logits", "loss"))]
        assert set(expected) == set(ours)
        for name, result in ours.items():
            largest = np.abs(arrays[name]).max()
            error = np.abs(np.asarray(result, np.float64) - arrays[name]).max()
            assert error <= tolerance * largest, name


def test_bfloat16_stays_near(case):
    arrays, variables, preset, width = case
    spec = CNNSpec.preset(preset, width=width, dtype="bfloat16")
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), variables)
    apply = jax.jit(partial(CNN(spec).apply, train=False))
    logits = apply(variables, jnp.asarray(arrays["x"], jnp.float32))
    assert logits.dtype == jnp.float32
    error = np.abs(np.asarray(logits) - arrays["logits_eval"]).max()
    # bfloat16 keeps 8 bits: exact agreement would mean that nothing was computed in it.
    assert 1e-6 < error / np.abs(arrays["logits_eval"]).max() < 0.02
