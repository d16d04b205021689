"""Forms of a layer are compared, timed and chosen; fakes are slow, wrong, or too large."""

import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.models import CNNSpec, measuring
from mri_jax.models.chosen import LayerKind, layers_of
from mri_jax.models.conv_layer import Setting, reference
from mri_jax.models.measuring import candidates, prepared
from tests.conftest import needs_compiler

FIRST = LayerKind("cpu", "0.10", (9, 7, 6), 1, 3, True, 2, "float32")
LATER = replace(FIRST, channels=3, filters=4)
DEVICE = jax.devices("cpu")[0]


def measured(layer, forms, tried=lambda form: None):
    return measuring.measured(prepared(layer, forms, DEVICE), DEVICE, tried)


def plain(x, parameters, setting):
    stages, stats = reference.conv_layer(x.activated(), parameters, None, setting)
    return stages.output, stats


def slow(x, parameters, setting):
    output, stats = plain(x, parameters, setting)
    wait = jax.pure_callback(
        lambda _: time.sleep(0.05) or np.float32(0),
        jax.ShapeDtypeStruct((), np.float32),
        jax.lax.stop_gradient(output.ravel()[0]),
    )
    return output + wait.astype(output.dtype), stats


def ties_shared(x, parameters, setting):
    """Shares the gradient of a maximum among all that tie; the output is right."""
    stages, stats = reference.conv_layer(x.activated(), parameters, None, setting)
    n, i, j, k, f = stages.output.shape
    maps = stages.feature_map[:, : 2 * i, : 2 * j, : 2 * k]
    return maps.reshape(n, i, 2, j, 2, k, 2, f).max((2, 4, 6)), stats


def last_plane_lost(x, parameters, setting):
    """Counts all planes but the last one in the statistics."""
    stages, _ = reference.conv_layer(x.activated(), parameters, None, setting)
    return stages.output, reference.of_whole_batch(
        reference.of_volumes(stages.pre_activation[:, :-1]), None
    )


def too_large(x, parameters, setting):
    output, stats = plain(x, parameters, setting)
    rows = jax.lax.broadcasted_iota(jnp.float32, (1 << 21, 1 << 23), 0)
    huge = jnp.sort(jnp.sin(rows * jax.lax.stop_gradient(output.ravel()[0])), axis=0)
    return output + huge[0, 0].astype(output.dtype), stats


def uncompilable(x, parameters, setting):
    raise NotImplementedError("no such instruction on this device")


@pytest.mark.parametrize(("layer", "dtype"), [(FIRST, "float32"), (LATER, "bfloat16")])
def test_the_fastest_form_that_agrees_is_taken(layer, dtype):
    forms = {
        "slow": slow,
        "ties": ties_shared,
        "plane": last_plane_lost,
        "large": too_large,
        "uncompilable": uncompilable,
        "plain": plain,
    }
    tried = []
    found = measured(replace(layer, dtype=dtype), forms, tried.append)
    assert tried == list(forms)
    assert found.form == "plain"
    assert found.layer == replace(layer, dtype=dtype)
    assert list(found.seconds) == ["slow", "plain"]
    assert found.seconds["slow"] >= 0.05 > found.seconds["plain"] > 0
    assert found.refused["large"] == "out of memory"
    assert found.refused["uncompilable"] == (
        "NotImplementedError: no such instruction on this device"
    )
    assert "gradient of the" in found.refused["ties"]
    assert "its mean is not the reference's" in found.refused["plane"]


def test_without_a_form_that_agrees_one_line_names_each():
    with pytest.raises(UserError) as told:
        measured(FIRST, {"large": too_large, "ties": ties_shared})
    assert str(told.value).startswith(
        "--forms=measure: a conv layer of 1 to 3 channels at 9 x 7 x 6 in float32, batch 2, cannot "
        "be computed on cpu: large: out of memory; ties: its gradient of the kernel is not the "
        "reference's ("
    )


def test_where_the_reference_has_no_room_forms_are_compared_on_smaller_volumes(monkeypatch):
    sizes, compute = [], measuring._by("reference")

    def small_alone(x, parameters, setting):
        sizes.append(x.value.shape[1:4])
        return (compute if x.value[0, ..., 0].size < 100 else too_large)(x, parameters, setting)

    monkeypatch.setattr(measuring, "_by", lambda form: small_alone)
    found = measured(replace(FIRST, size=(9, 8, 12)), {"plain": plain, "t": ties_shared})
    assert sizes == [(9, 8, 12), (4, 4, 6)]
    assert found.form == "plain"
    assert list(found.refused) == ["t"]
    assert found.layer.size == (9, 8, 12)

    def never(x, parameters, setting):
        return too_large(x, parameters, setting)

    monkeypatch.setattr(measuring, "_by", lambda form: never)
    with pytest.raises(UserError, match=r"the reference of .* on cpu \(out of memory\)$"):
        measured(FIRST, {"plain": plain})


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_candidate_of_a_cpu_agrees(dtype):
    layer = replace(LATER, channels=8, filters=8, dtype=dtype)
    found = measured(layer, candidates(layer, "cpu"))
    assert sorted(found.seconds) == ["native", "xla"]
    assert found.refused == {}


def test_each_platform_has_its_candidates():
    wide = replace(LATER, channels=64, filters=128)
    first = replace(LATER, channels=1, pool=True)
    assert list(candidates(first, "gpu")) == ["xla", "lanes", "pallas", "reference"]
    assert list(candidates(first, "tpu")) == ["xla", "pallas", "volume", "reference"]
    whole = replace(first, pool=False)
    assert list(candidates(whole, "gpu")) == ["xla", "lanes", "pallas", "reference"]
    assert list(candidates(whole, "tpu")) == ["xla", "volume", "reference"]
    assert list(candidates(LATER, "gpu")) == ["xla", "lanes", "reference"]
    assert list(candidates(wide, "gpu")) == ["xla", "reference"]
    assert list(candidates(LATER, "tpu")) == ["xla", "volume", "reference"]
    assert list(candidates(wide, "tpu")) == ["xla", "reference"]


@pytest.mark.parametrize(("platform", "key"), [("cuda", "gpu"), ("tpu", "tpu")])
def test_what_is_measured_can_be_lowered_for_a_card_that_is_not_there(platform, key):
    network = CNNSpec(repetitions=(1, 1), filters=(8, 16), fc=(), dropout=(0,), dtype="bfloat16")
    triton = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    kernels = set()
    for layer in layers_of(network, (9, 8, 11), 2, "card", "0.10"):
        inputs = measuring._inputs(layer)
        for name, compute in candidates(layer, key).items():
            program = jax.jit(
                lambda given, compute=compute, pool=layer.pool: measuring._results(
                    compute, Setting(pool, 1e-5), given
                )
            )
            lowered = jax.export.export(program, platforms=[platform], disabled_checks=[triton])
            text = lowered(inputs).mlir_module()
            own = "xla.gpu.triton" if key == "gpu" else "tpu_custom_call"
            kernels |= {name} if own in text else set()
    assert kernels == {"pallas"}
