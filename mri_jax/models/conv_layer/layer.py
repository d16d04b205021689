"""A conv layer: the same function as `reference.conv_layer`, faster, and its gradients.

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

from mri_jax.models import split
from mri_jax.models.conv_layer import forms
from mri_jax.models.conv_layer.gradient import Everywhere, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, of_whole_batch


class _How(NamedTuple):
    """What is fixed before the arrays are known."""

    layer: forms.Layer
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
    native: bool = False,
) -> tuple[Array, Moments]:
    """One conv layer with BatchNorm, ReLU and, where it follows, max pooling.

    Arguments and results as in `reference.conv_layer`, without the stages in between. Running
    statistics are constants: no gradient reaches them. With ``native``, CPUs take the native
    kernels where there are any for the layer.

    Returns:
      The output, and the statistics used.
    """
    how = _How(forms.Layer(pool, kernel.shape[3], native), running is None, epsilon, batch_axis)
    given = None if running is None else jax.lax.stop_gradient(running)
    output, stats = _layer(how, x, kernel, scale, bias, given)
    return output, jax.lax.stop_gradient(stats)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(
    how: _How, x: Array, kernel: Array, scale: Array, bias: Array, running: Moments | None
) -> tuple[Array, Moments]:
    output, stats, _ = _forward(how, x, kernel, scale, bias, running, keep_z=False)
    return output, stats


def _forward(
    how: _How,
    x: Array,
    kernel: Array,
    scale: Array,
    bias: Array,
    running: Moments | None,
    keep_z: bool,
) -> tuple[Array, Moments, forms.Forward]:
    """Output, statistics, and what the form computed."""
    sign = jnp.sign(scale).astype(x.dtype)
    found = forms.forward(
        how.layer, x, kernel.astype(x.dtype), sign, with_moments=running is None, keep_z=keep_z
    )
    if running is None:
        assert found.moments is not None
        stats = of_whole_batch(found.moments, how.batch_axis)
    else:
        stats = running
    factor = scale * jax.lax.rsqrt(stats.variance + how.epsilon)
    value = found.selection.value
    output = jax.nn.relu(value * factor + (bias - stats.mean * factor)).astype(x.dtype)
    return output, stats, found


def _forward_rule(how: _How, *inputs: Any) -> tuple[tuple[Array, Moments], tuple]:
    x, kernel, scale, bias, running = jax.tree.map(
        lambda p: p.value, inputs, is_leaf=lambda p: hasattr(p, "perturbed")
    )
    names = ("x", "kernel", "scale", "bias")
    wanted = _Wanted(n for n, p in zip(names, inputs[:4], strict=True) if p.perturbed)
    keep_z = how.uses_batch and bool(wanted & {"x", "kernel"})
    output, stats, found = _forward(how, x, kernel, scale, bias, running, keep_z)
    kept = (found.z, found.selection, output > 0)
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
    everywhere = None
    if how.uses_batch:
        # Gradients of parameters stay those of this device's part; the caller adds them up.
        through_scale, through_bias = split.total((d_scale, d_bias), how.batch_axis)
        count = x.size // x.shape[-1] * split.parts(how.batch_axis)
        slope = -factor * inverse * through_scale / count
        constant = -factor * through_bias / count - slope * stats.mean
        everywhere = Everywhere(constant, slope)
    dx, dk = forms.backward(
        how.layer,
        x,
        kernel.astype(x.dtype),
        PreActivationGradient(g * factor, selection.offset, everywhere, z),
        for_input="x" in wanted,
        for_kernel="kernel" in wanted,
    )
    dx = None if dx is None else dx.astype(x.dtype)
    dk = None if dk is None else dk.astype(kernel.dtype)
    return dx, dk, d_scale, d_bias, None


_layer.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)
