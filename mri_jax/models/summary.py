"""A table of a network: shapes, parameters, arithmetic and memory, layer by layer."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mri_jax.models.spec import CNNSpec
from mri_jax.problems import counted

# A training step holds about this many times the activations of the conv layers: they, their
# gradients and the temporaries of a convolution (CNN-5 at `paper`, batch 2: 2.1 GB).
_ACTIVATION_COPIES = 3.5
# Weights, their gradients, two moments of Adam, and the weights after the step.
_WEIGHT_COPIES = 5


class LayerSummary(NamedTuple):
    """One conv or FC layer with what belongs to it (BatchNorm, ReLU, pooling).

    Attributes:
      name: ``conv1``, ``fc1``, ...
      output_shape: Shape of the output for one volume, after pooling: (X, Y, Z, C) or (features,).
      parameters: Parameters of the layer and its BatchNorm, running statistics not counted.
      multiply_adds: For one volume, the convolution or product alone.
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
    for i, (filters, pool) in enumerate(
        zip(spec.conv_filters, spec.pool_after, strict=True), start=1
    ):
        kernel = 27 * channels * filters
        arithmetic = math.prod(size) * kernel
        size = tuple(s // 2 for s in size) if pool else size
        output = (*size, filters)
        found.append(
            LayerSummary(
                f"conv{i}", output, kernel + 2 * filters, arithmetic, math.prod(output) * width
            )
        )
        channels = filters
    features = math.prod(size) * channels
    for i, units in enumerate((*spec.fc, spec.classes), start=1):
        product = features * units
        found.append(LayerSummary(f"fc{i}", (units,), product + units, product, units * width))
        features = units
    return tuple(found)


def step_bytes(spec: CNNSpec, shape: tuple[int, ...], batch: int) -> int:
    """Returns the memory that a training step needs beside the volumes at hand, in bytes.

    It is an estimate by layers, made before anything is compiled.

    Args:
      spec: The network.
      shape: (X, Y, Z) of a volume.
      batch: Volumes a step.
    """
    size, floats = list(shape), 0
    for wide, pooled in zip(spec.conv_filters, spec.pool_after, strict=True):
        floats += math.prod(size) * wide
        if pooled:
            size = [n // 2 for n in size]
    channels = (1, *spec.conv_filters)
    units = (math.prod(size) * channels[-1], *spec.fc, spec.classes)
    weights = sum(27 * a * b for a, b in pairwise(channels))
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
