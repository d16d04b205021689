"""Which form of a conv layer is the fastest on a device, by running each of them.

A candidate is compiled, compared with the reference in float32 and timed as a layer of a training
step: the forward pass with the statistics of the batch, and every gradient that training needs. The
volumes are small whole numbers, half of them a constant background, so that no form rounds a sum of
the convolution, in bfloat16 either: equal voxels tie in every form, and a form that breaks ties
otherwise than by the first maximum is found out.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import SingleDeviceSharding

from mri_jax.backend import FEW_PASSES
from mri_jax.device_faults import reason
from mri_jax.errors import UserError
from mri_jax.models import choice
from mri_jax.models.chosen import Choice, LayerKind
from mri_jax.models.conv_layer import (
    Features,
    Moments,
    Parameters,
    Setting,
    conv_layer,
    lanes,
)
from mri_jax.models.conv_layer.arguments import Norm

# Largest distance from the reference, as a share of its length (Euclidean). A wrong plane at the
# edge of 200 is 7e-2.
_TOLERANCE = 1e-2
# In bfloat16, and in float32 on accelerators, which multiply fewer digits, a form may be so many
# times as far as the reference itself: the gradient of the pre-activation is rounded, all over the
# background in the same direction. What the norm gets is a sum over all voxels that nearly cancels:
# there rounding may be half of it.
_AS_FAR, _CANCELLED = 4.0, 0.5
# A form is run again until it was timed so often, or for so many seconds.
_RUNS, _SECONDS = 5, 0.5
# A form whose first run takes so many times as long as the fastest one so far is run once.
_HOPELESS = 4.0
_EPSILON = 1e-5

Program = jax.stages.Compiled | Exception
Compute = Callable[[Features, Parameters, Setting], tuple[Array, Moments]]
"""A form of the layer: returns the activated output, (N, X', Y', Z', F), and the statistics."""


def candidates(layer: LayerKind, platform: str) -> dict[str, Compute]:
    """Returns the forms that a platform may compute a layer by.

    ``xla`` is ``lanes`` on TPUs where that pays, and ``volume`` on GPUs. On CPUs only ``native``
    and ``xla`` have a chance.

    Args:
      layer: The layer.
      platform: ``cpu``, ``gpu`` or ``tpu``.
    """
    pays = lanes.pays((3, 3, 3, layer.channels, layer.filters))
    first = layer.channels == 1
    names = {
        choice.NATIVE: platform == "cpu" and choice.of_this_machine() == choice.NATIVE,
        choice.XLA: True,
        choice.LANES: platform == "gpu" and pays,
        choice.PALLAS: first and (platform == "gpu" or (platform == "tpu" and layer.pool)),
        choice.VOLUME: platform == "tpu" and pays,
        choice.REFERENCE: platform != "cpu",
    }
    return {name: _by(name) for name, may in names.items() if may}


class Prepared(NamedTuple):
    """A layer's programs, compiled for a device; what could not be compiled is its error.

    Attributes:
      layer: The layer.
      forms: What may compute it, by name.
      programs: Of each form.
      expected: The reference in float32 with all digits, by which forms are judged.
      own: The reference as rounded as the forms are; None where nothing is.
    """

    layer: LayerKind
    forms: Mapping[str, Compute]
    programs: Mapping[str, Program]
    expected: Program
    own: Program | None


def prepared(layer: LayerKind, forms: Mapping[str, Compute], device: jax.Device) -> Prepared:
    """Returns the programs of a layer; several layers may be prepared side by side."""
    programs = {form: _tried(compute, layer, device) for form, compute in forms.items()}
    expected, own = _references(layer, device, programs.get(choice.REFERENCE))
    return Prepared(layer, forms, programs, expected, own)


def measured(
    found: Prepared, device: jax.Device, tried: Callable[[str], None] = lambda form: None
) -> Choice:
    """Returns the form of a layer that agrees with the reference and takes the least time.

    Args:
      found: The layer's programs.
      device: What they were compiled for.
      tried: Called with the name of each form before it is tried.

    Raises:
      UserError: No form agrees, or none can be computed; each is named with the reason.
    """
    layer = found.layer
    check = _Check(found, device)
    inputs = jax.device_put(_inputs(layer), device)
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for form, compute in found.forms.items():
        tried(form)
        try:
            program = _usable(found.programs[form])
            wrong = check.fault(compute, program, inputs)
            if wrong:
                refused[form] = wrong
            else:
                seconds[form] = _seconds(program, inputs, min(seconds.values(), default=np.inf))
        except Exception as error:  # compilers and drivers raise many kinds
            refused[form] = reason(error)
    if not seconds:
        each = "; ".join(f"{form}: {why}" for form, why in refused.items())
        raise UserError(
            f"--forms={choice.MEASURE}: a conv layer of {layer} in {layer.dtype}, batch "
            f"{layer.batch}, cannot be computed on {layer.device}: {each}"
        )
    return Choice(layer, min(seconds, key=seconds.__getitem__), seconds, refused)


class _Inputs(NamedTuple):
    """What a layer is given: maps, their norm, parameters, the gradient of the output."""

    value: Any
    norm: Norm | None
    parameters: Parameters
    weight: Any


def _by(form: str) -> Compute:
    def compute(x: Features, parameters: Parameters, setting: Setting) -> tuple[Array, Moments]:
        features, stats = conv_layer(x, parameters, None, setting._replace(form=form))
        return features.activated(), stats

    return compute


def _inputs(layer: LayerKind) -> _Inputs:
    """Returns whole numbers whose convolution, of at most some 200, is exact in bfloat16."""
    rng = np.random.default_rng(0)
    c, f, shape = layer.channels, layer.filters, (layer.batch, *layer.size)
    value = rng.integers(-1, 3, (*shape, c), dtype=np.int8)
    value[:, : layer.size[0] // 2] = 1  # the background
    # So few taps that are not 0 that the sum has a standard deviation of at most 40.
    share = min(2 / 3, 1000 / (27 * c))
    kernel = rng.choice(3, (3, 3, 3, c, f), p=(share / 2, 1 - share, share / 2)) - 1.0
    scale = rng.choice((-1.0, 1.0), f) * rng.uniform(0.5, 1.5, f)
    halved = tuple(n // 2 for n in layer.size) if layer.pool else layer.size
    weight = rng.integers(-2, 3, (layer.batch, *halved, f), dtype=np.int8)
    plain = np.float64 if layer.dtype == "float64" else np.float32

    def small(*arrays: Any) -> tuple[Any, ...]:
        return tuple(array.astype(plain) for array in arrays)

    # Of the first layer's input, a volume, no gradient is wanted, and nothing is applied to it.
    norm = None if c == 1 else Norm(*small(np.zeros(c), np.ones(c), np.zeros(c)))
    parameters = Parameters(*small(kernel, scale, rng.normal(size=f)))
    dtype = jnp.dtype(layer.dtype)
    return _Inputs(value.astype(dtype), norm, parameters, weight.astype(dtype))


def _shapes(layer: LayerKind, device: jax.Device) -> _Inputs:
    """Returns the shapes of `_inputs` on a device."""
    few = _inputs(replace(layer, batch=1, size=(2, 2, 2)))
    sides = tuple(n // 2 for n in layer.size) if layer.pool else layer.size
    placed = SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=placed), few)

    def whole(given: Any, size: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        shape = (layer.batch, *size, given.shape[-1])
        return jax.ShapeDtypeStruct(shape, given.dtype, sharding=placed)

    return shapes._replace(value=whole(few.value, layer.size), weight=whole(few.weight, sides))


def _results(compute: Compute, setting: Setting, inputs: _Inputs) -> dict[str, Any]:
    value, norm, parameters, weight = inputs

    def of_volume(parameters: Parameters) -> Any:
        return compute(Features(value), parameters, setting)

    def of_maps(parameters: Parameters, x: Features) -> Any:
        return compute(x, parameters, setting)

    (output, stats), pull = (
        jax.vjp(of_volume, parameters)
        if norm is None
        else jax.vjp(of_maps, parameters, Features(value, norm))
    )
    gradients = pull((weight, jax.tree.map(jnp.zeros_like, stats)))
    found = {"output": output, **stats._asdict()}
    found |= {f"gradient of the {k}": g for k, g in gradients[0]._asdict().items()}
    if norm is not None:
        found["gradient of the input"] = gradients[1].value
        found |= {f"gradient of the norm's {k}": g for k, g in gradients[1].norm._asdict().items()}
    return found


def _references(
    layer: LayerKind, device: jax.Device, own: Program | None = None
) -> tuple[Program, Program | None]:
    """Returns the reference with all digits, and as rounded as forms are, where they are.

    Args:
      layer: The layer.
      device: Where.
      own: The latter, where it was compiled as a candidate.
    """
    form, on_cpu = _by(choice.REFERENCE), device.platform == "cpu"
    few = FEW_PASSES if on_cpu else None
    exact = layer if layer.dtype == "float64" else replace(layer, dtype="float32")
    with jax.default_matmul_precision("highest"):
        expected = _tried(form, exact, device, few)
    if on_cpu and exact == layer:
        return expected, None
    return expected, own or _tried(form, layer, device, few)


def _compiled(
    compute: Compute, layer: LayerKind, device: jax.Device, options: Any = None
) -> jax.stages.Compiled:
    setting = Setting(layer.pool, _EPSILON)
    program = jax.jit(lambda given: _results(compute, setting, given), compiler_options=options)
    return program.lower(_shapes(layer, device)).compile()


def _tried(compute: Compute, layer: LayerKind, device: jax.Device, options: Any = None) -> Program:
    try:
        return _compiled(compute, layer, device, options)
    except Exception as error:  # compilers raise many kinds
        return error


def _usable(program: Program) -> jax.stages.Compiled:
    if isinstance(program, Exception):
        raise program
    return program


class _Check:
    """Compares forms with the reference, computed once in float32.

    Where the device has no room for the reference, all are compared on smaller volumes.
    """

    def __init__(self, found: Prepared, device: jax.Device):
        layer, self._device = found.layer, device
        self._layer = layer
        programs: tuple[Program, Program | None] = found.expected, found.own
        while True:
            try:
                self._compute(*programs)
                break
            except Exception as error:  # compilers and drivers raise many kinds
                if min(self._layer.size) < 4:
                    raise UserError(
                        f"--forms={choice.MEASURE}: the reference of a conv layer of {layer} "
                        f"cannot be computed on {layer.device} ({reason(error)})"
                    ) from None
            x, y, z = self._layer.size
            self._layer = replace(layer, size=(x // 2, y // 2, z // 2))
            programs = _references(self._layer, device)
        self._smaller = self._layer != layer

    def _compute(self, expected: Program, own: Program | None) -> None:
        """Sets what forms are compared with, and how far they may be apart."""
        exact = self._layer
        if exact.dtype == "bfloat16":
            exact = replace(exact, dtype="float32")
        self._expected = _run(expected, exact, self._device)
        self._allowed = dict.fromkeys(self._expected, _TOLERANCE)
        if own is not None:
            rounded = self._distances(_run(own, self._layer, self._device))
            for name, apart in rounded.items():
                least = _CANCELLED if "norm's" in name else _TOLERANCE
                self._allowed[name] = max(least, _AS_FAR * apart)

    def fault(self, compute: Compute, program: jax.stages.Compiled, inputs: _Inputs) -> str:
        """Returns in what a form differs from the reference; nothing where it agrees.

        Args:
          compute: The form.
          program: Compiled for the layer.
          inputs: The layer's.
        """
        if self._smaller:
            found = _run(_compiled(compute, self._layer, self._device), self._layer, self._device)
        else:
            found = _on_host(program(inputs))
        for name, apart in self._distances(found).items():
            if not apart <= self._allowed[name]:
                return f"its {name} is not the reference's ({apart:.2g} apart)"
        return ""

    def _distances(self, found: dict[str, np.ndarray]) -> dict[str, float]:
        return {
            name: float(np.linalg.norm(found[name] - expected) / (np.linalg.norm(expected) or 1))
            for name, expected in self._expected.items()
        }


def _run(program: Program, layer: LayerKind, device: jax.Device) -> dict[str, np.ndarray]:
    return _on_host(_usable(program)(jax.device_put(_inputs(layer), device)))


def _on_host(found: dict[str, Any]) -> dict[str, np.ndarray]:
    arrays = jax.device_get(found)
    return {name: np.asarray(array, np.float32).ravel() for name, array in arrays.items()}


def _seconds(program: jax.stages.Compiled, inputs: _Inputs, fastest: float) -> float:
    """Returns the least seconds of a few runs, once it ran for the check."""
    times: list[float] = []
    while len(times) < _RUNS and sum(times) < _SECONDS:
        asked = time.perf_counter()
        jax.block_until_ready(program(inputs))
        times.append(time.perf_counter() - asked)
        if times[0] > _HOPELESS * fastest:
            break
    return min(times)
