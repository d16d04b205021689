"""A table of a network: shapes, parameters, arithmetic and memory, layer by layer."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mri_jax.models.spec import CNNSpec, hidden_units
from mri_jax.problems import counted

# A training step holds about this many times the activations of the conv layers: they, their
# gradients and the temporaries of a convolution (CNN-5 at `paper`, batch 2: 2.1 GB).
_ACTIVATION_COPIES = 3.5
# Weights, their gradients, two moments of Adam, and the weights after the step.
_WEIGHT_COPIES = 5


class LayerSummary(NamedTuple):
    """One conv or FC layer with its norm, ReLU and pooling; or a projection, or a gate.

    Attributes:
      name: ``conv1``, ``proj1``, ``att5``, ``fc1``, ...
      output_shape: Shape of the output for one volume, after pooling: (X, Y, Z, C) or (features,).
      parameters: Parameters of the layer and its norm, running statistics not counted.
      multiply_adds: For one volume, convolutions and products alone.
      activation_bytes: Bytes of the output for one volume, in the spec's dtype.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int


def layers(spec: CNNSpec, shape: tuple[int, int, int]) -> tuple[LayerSummary, ...]:
    """Returns the layers of a network for volumes of ``shape`` (X, Y, Z).

    Raises:
      UserError: The volume is too small for the network.
    """
    spec.check_input((1, *shape, 1))
    width = 2 if spec.dtype == "bfloat16" else np.dtype(spec.dtype).itemsize
    found, size, channels = [], tuple(shape), 1
    outer = {last: (1, *spec.conv_filters)[first - 1] for first, last in spec.stretches}
    for i, (filters, pool, gate) in enumerate(
        zip(spec.conv_filters, spec.pool_after, spec.gate_after, strict=True), start=1
    ):
        kernel = 27 * channels * filters
        arithmetic = math.prod(size) * kernel
        whole = (*size, filters)
        size = tuple(s // 2 for s in size) if pool else size
        output = (*size, filters)
        found.append(
            LayerSummary(
                f"conv{i}", output, kernel + 2 * filters, arithmetic, math.prod(output) * width
            )
        )
        if name := spec.projection_after[i - 1]:
            product = outer[i] * filters
            found.append(
                LayerSummary(
                    name, whole, product, math.prod(whole) * outer[i], math.prod(whole) * width
                )
            )
        if gate:
            found.append(_gate(spec.attention, gate, output, width))
        channels = filters
    features = math.prod(size) * channels
    for i, units in enumerate((*spec.fc, spec.classes), start=1):
        product = features * units
        found.append(LayerSummary(f"fc{i}", (units,), product + units, product, units * width))
        features = units
    return tuple(found)


def _gate(kind: str, name: str, output: tuple[int, ...], width: int) -> LayerSummary:
    """Returns the summary of a gate on maps of (X, Y, Z, C)."""
    voxels, channels = math.prod(output[:3]), output[3]
    parameters = arithmetic = 0
    if kind in ("se", "cbam"):
        products = 2 * channels * hidden_units(channels)
        parameters += products
        arithmetic += products * (2 if kind == "cbam" else 1) + voxels * channels
    if kind in ("spatial", "cbam"):
        parameters += 2 * 27 + 1
        arithmetic += voxels * 2 * 27 + voxels * channels
    if kind == "map":
        parameters += voxels
        arithmetic += voxels * channels
    return LayerSummary(name, output, parameters, arithmetic, math.prod(output) * width)


def step_bytes(spec: CNNSpec, shape: tuple[int, ...], batch: int) -> int:
    """Returns the memory that a training step needs beside the volumes at hand, in bytes.

    It is an estimate by layers, made before anything is compiled.

    Args:
      spec: The network.
      shape: (X, Y, Z) of a volume.
      batch: Volumes a step.
    """
    size, floats, weights = list(shape), 0, 0
    channels = (1, *spec.conv_filters)
    each = zip(pairwise(channels), spec.pool_after, spec.gate_after, strict=True)
    for (before, wide), pooled, gate in each:
        # What joins a convolution is as large as its output.
        floats += math.prod(size) * wide * (2 if pooled and spec.residual else 1)
        weights += 27 * before * wide
        if pooled:
            size = [n // 2 for n in size]
        if gate:
            found = _gate(spec.attention, gate, (*size, wide), width=4)
            floats += math.prod(found.output_shape)
            weights += found.parameters
    units = (math.prod(size) * channels[-1], *spec.fc, spec.classes)
    weights += sum(a * b for a, b in pairwise(units))
    return int(4 * (floats * batch * _ACTIVATION_COPIES + weights * _WEIGHT_COPIES))


def table(spec: CNNSpec, shape: tuple[int, int, int], batch: int) -> str:
    """Returns the table of a network as text, with totals and the memory of a training step.

    Args:
      spec: The network.
      shape: (X, Y, Z) of a volume.
      batch: Volumes a training step.

    Returns:
      Lines of layer, output shape, parameters, multiply-adds and activation bytes of one volume.

    Raises:
      UserError: The volume is too small for the network.

    Example:
      >>> from mri_jax.models import CNNSpec
      >>> from mri_jax.models.summary import table
      >>> spec = CNNSpec(repetitions=(1, 1), filters=(8, 16), fc=(), dropout=(0.5,))
      >>> print(table(spec, (48, 56, 48), batch=2))
      layer                   output    parameters     multiply-adds           bytes
      conv1         24 x 28 x 24 x 8           232        27,869,184         516,096
      conv2        12 x 14 x 12 x 16         3,488        55,738,368         129,024
      fc1                          2        64,514            64,512               8
      total                                 68,234        83,672,064         645,128
      a training step of 2 volumes needs about 36 MiB, by estimate
    """
    rows = layers(spec, shape)
    lines = [f"{'layer':<8}{'output':>22}{'parameters':>14}{'multiply-adds':>18}{'bytes':>16}"]
    for row in rows:
        output = " x ".join(map(str, row.output_shape))
        numbers = f"{row.parameters:>14,}{row.multiply_adds:>18,}{row.activation_bytes:>16,}"
        lines.append(f"{row.name:<8}{output:>22}{numbers}")
    totals = [
        sum(row.parameters for row in rows),
        sum(row.multiply_adds for row in rows),
        sum(row.activation_bytes for row in rows),
    ]
    lines.append(f"{'total':<8}{'':>22}{totals[0]:>14,}{totals[1]:>18,}{totals[2]:>16,}")
    needed = step_bytes(spec, shape, batch) / 2**20
    lines.append(
        f"a training step of {counted(batch, 'volume')} needs about {needed:,.0f} MiB, by estimate"
    )
    return "\n".join(lines)
