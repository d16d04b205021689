"""The fast form of a conv layer: the same function as `reference.conv_layer`, and its gradients.

Pooling comes before BatchNorm and ReLU (see `pooling`), the batch statistics still come from every
voxel, and the backward pass is written out: with ``y = relu(a * z + b)`` at the selected voxels,
``a = scale / sqrt(variance + epsilon)`` and ``g`` the gradient there, the gradient of the
pre-activation is ``a * g`` at the selected voxels and, where the statistics are those of the batch,
``-a / M * (sum(g) + z_hat * sum(g * z_hat))`` at all ``M`` voxels (Ioffe & Szegedy 2015).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from mri_jax.models import convolution, packed, split
from mri_jax.models.moments import Moments, moments, of_whole_batch
from mri_jax.models.pooling import Selection, scatter_windows, select_windows

# Up to how many input channels the packed form pays (docs/performance.md).
PACKED_CHANNELS = 3


class _How(NamedTuple):
    """What is fixed before the arrays are known."""

    pool: bool
    packed: bool
    uses_batch: bool
    epsilon: float
    batch_axis: str | None


@jax.tree_util.register_static
class _Wanted(frozenset):
    """Names of the inputs whose gradient is wanted, known while tracing."""


def conv_layer(
    x: Array,
    kernel: Array,
    scale: Array,
    bias: Array,
    running: Moments | None,
    *,
    pool: bool,
    epsilon: float,
    batch_axis: str | None = None,
) -> tuple[Array, Moments]:
    """One conv layer with BatchNorm, ReLU and, where it follows, max pooling.

    Arguments and results as in `reference.conv_layer`, without the stages in between. Running
    statistics are constants: no gradient reaches them.

    Returns:
      The output, and the statistics used.
    """
    packs = pool and kernel.shape[3] <= PACKED_CHANNELS and convolution.on_cpu()
    how = _How(pool, packs, running is None, epsilon, batch_axis)
    given = None if running is None else jax.lax.stop_gradient(running)
    output, stats = _layer(how, x, kernel, scale, bias, given)
    return output, jax.lax.stop_gradient(stats)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(
    how: _How, x: Array, kernel: Array, scale: Array, bias: Array, running: Moments | None
) -> tuple[Array, Moments]:
    output, stats, _ = _forward(how, x, kernel, scale, bias, running)
    return output, stats


def _forward(
    how: _How, x: Array, kernel: Array, scale: Array, bias: Array, running: Moments | None
) -> tuple[Array, Moments, tuple[Array | None, Selection]]:
    """Output, statistics, and for the backward pass the pre-activation and the selection.

    Without pooling every voxel is selected, and the offset is not used.
    """
    sign = jnp.sign(scale).astype(x.dtype)
    weights = kernel.astype(x.dtype)
    z = None
    if how.packed:
        selection, stats = packed.select(x, weights, sign, running)
    else:
        z = convolution.convolve(x, weights)
        selection = select_windows(z, sign) if how.pool else Selection(z, jnp.zeros((), jnp.int8))
        stats = moments(z) if running is None else running
    if how.uses_batch:
        stats = of_whole_batch(stats, how.batch_axis)
    factor = scale * jax.lax.rsqrt(stats.variance + how.epsilon)
    output = jax.nn.relu(selection.value * factor + (bias - stats.mean * factor)).astype(x.dtype)
    return output, stats, (z, selection)


def _forward_rule(how: _How, *inputs: Any) -> tuple[tuple[Array, Moments], tuple]:
    x, kernel, scale, bias, running = jax.tree.map(
        lambda p: p.value, inputs, is_leaf=lambda p: hasattr(p, "perturbed")
    )
    names = ("x", "kernel", "scale", "bias")
    wanted = _Wanted(n for n, p in zip(names, inputs[:4], strict=True) if p.perturbed)
    output, stats, (z, selection) = _forward(how, x, kernel, scale, bias, running)
    needs_z = how.uses_batch and not how.packed and wanted & {"x", "kernel"}
    kept = (z if needs_z else None, selection, output > 0)
    return (output, stats), (wanted, x, kernel, scale, stats, *kept)


def _backward_rule(how: _How, residuals: tuple, cotangents: Any) -> tuple:
    wanted, x, kernel, scale, stats, z, selection, active = residuals
    gradient = cotangents[0]
    nothing = (None, None, None, None, None)
    if isinstance(gradient, SymbolicZero):
        return nothing
    wide = scale.dtype
    inverse = jax.lax.rsqrt(stats.variance + how.epsilon)
    g = jnp.where(active, gradient, 0).astype(wide)
    axes = tuple(range(g.ndim - 1))
    d_bias = g.sum(axes)
    d_scale = (g * ((selection.value - stats.mean) * inverse)).sum(axes)
    if not wanted & {"x", "kernel"}:
        return None, None, d_scale, d_bias, None
    factor = scale * inverse
    slope = constant = jnp.zeros_like(factor)
    if how.uses_batch:
        # Gradients of parameters stay those of this device's part; the caller adds them up.
        through_scale, through_bias = split.total((d_scale, d_bias), how.batch_axis)
        count = x.size // x.shape[-1] * split.parts(how.batch_axis)
        slope = -factor * inverse * through_scale / count
        constant = -factor * through_bias / count - slope * stats.mean
    weights = kernel.astype(x.dtype)
    selected = g * factor
    if how.packed:
        dx, dk = packed.gradients(
            x,
            weights,
            selection.offset,
            selected,
            constant,
            slope,
            through_statistics=how.uses_batch,
            for_input="x" in wanted,
            for_kernel="kernel" in wanted,
        )
    else:
        dz = selected
        if how.pool:
            shape = (*x.shape[:-1], kernel.shape[-1])
            dz = scatter_windows(selected, selection.offset, shape)
        if how.uses_batch:
            dz = dz + (constant + slope * z)
        dz = dz.astype(x.dtype)
        dx = convolution.input_gradient(dz, weights) if "x" in wanted else None
        dk = convolution.kernel_gradient(x, dz) if "kernel" in wanted else None
    dx = None if dx is None else dx.astype(x.dtype)
    dk = None if dk is None else dk.astype(kernel.dtype)
    return dx, dk, d_scale, d_bias, None


_layer.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)
