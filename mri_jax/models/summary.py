"""A table of a network: shapes, parameters, arithmetic and memory, layer by layer."""

import math
from typing import NamedTuple

import numpy as np

from mri_jax.models.spec import CNNSpec


class LayerSummary(NamedTuple):
    """One conv or FC layer with what belongs to it (BatchNorm, ReLU, pooling).

    Attributes:
      name: ``conv1``, ``fc1``, ...
      output_shape: Of one volume, after pooling: (X, Y, Z, C) or (features,).
      parameters: Of the layer and its BatchNorm, running statistics not counted.
      multiply_adds: For one volume, the convolution or product alone.
      activation_bytes: Of the output for one volume, in the spec's dtype.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int


def layers(spec: CNNSpec, shape: tuple[int, int, int]) -> tuple[LayerSummary, ...]:
    """The layers of a network for volumes of ``shape`` (X, Y, Z).

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


def summary(spec: CNNSpec, shape: tuple[int, int, int]) -> str:
    """The table as text, with totals in its last line.

    Args:
      spec: The network.
      shape: (X, Y, Z) of a volume.

    Returns:
      Lines of layer, output shape, parameters, multiply-adds and activation bytes of one volume.
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
    return "\n".join(lines)
