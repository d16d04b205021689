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
from mri_jax.models.conv_layer.arguments import Parameters, Setting
from mri_jax.models.conv_layer.gradient import Everywhere, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, of_whole_batch
from mri_jax.models.conv_layer.reference import affine_of


class _How(NamedTuple):
    """What is fixed before the arrays are known."""

    setting: Setting
    uses_batch: bool

    def kind(self, x: Array) -> forms.Layer:
        """Returns what the forms distinguish layers by."""
        return forms.Layer(self.setting.pool, x.shape[-1], self.setting.native)


@jax.tree_util.register_static
class _Wanted(frozenset):
    """Names of the inputs whose gradient is wanted, known while tracing."""


def conv_layer(
    x: Array, parameters: Parameters, running: Moments | None, setting: Setting
) -> tuple[Array, Moments]:
    """Computes a conv layer with BatchNorm, ReLU and, where it follows, max pooling.

    Running statistics are constants: no gradient reaches them.

    Args:
      x: (N, X, Y, Z, C).
      parameters: Kernel, and BatchNorm's scale and bias.
      running: Statistics to normalise with; None takes those of the batch.
      setting: What is fixed.

    Returns:
      The output, (N, X, Y, Z, F) or with pooling (N, X // 2, Y // 2, Z // 2, F), and the statistics
      used.
    """
    given = None if running is None else jax.lax.stop_gradient(running)
    output, stats = _layer(_How(setting, running is None), x, parameters, given)
    return output, jax.lax.stop_gradient(stats)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(
    how: _How, x: Array, parameters: Parameters, running: Moments | None
) -> tuple[Array, Moments]:
    output, stats, _ = _forward(how, x, parameters, running, keep_z=False)
    return output, stats


def _forward(
    how: _How, x: Array, parameters: Parameters, running: Moments | None, keep_z: bool
) -> tuple[Array, Moments, forms.Forward]:
    """Returns output, statistics, and what the form computed."""
    kernel, scale, bias = parameters
    sign, kernel = jnp.sign(scale).astype(x.dtype), kernel.astype(x.dtype)
    found = forms.forward(how.kind(x), x, kernel, sign, with_moments=running is None, keep_z=keep_z)
    if running is None:
        assert found.moments is not None
        stats = of_whole_batch(found.moments, how.setting.batch_axis)
    else:
        stats = running
    factor, offset = affine_of(scale, bias, stats, how.setting.epsilon)
    output = jax.nn.relu(found.selection.value * factor + offset).astype(x.dtype)
    return output, stats, found


def _forward_rule(how: _How, *inputs: Any) -> tuple[tuple[Array, Moments], tuple]:
    x, parameters, running = jax.tree.map(
        lambda p: p.value, inputs, is_leaf=lambda p: hasattr(p, "perturbed")
    )
    perturbed = {"x": inputs[0], **inputs[1]._asdict()}
    wanted = _Wanted(name for name, p in perturbed.items() if p.perturbed)
    keep_z = how.uses_batch and bool(wanted & {"x", "kernel"})
    output, stats, found = _forward(how, x, parameters, running, keep_z)
    return (output, stats), (wanted, x, parameters, stats, found.z, found.selection, output > 0)


def _backward_rule(how: _How, residuals: tuple, cotangents: Any) -> tuple:
    wanted, x, parameters, stats, z, selection, active = residuals
    kernel, scale, _ = parameters
    gradient = cotangents[0]
    if isinstance(gradient, SymbolicZero):
        return None, None, None
    wide, axis = scale.dtype, how.setting.batch_axis
    inverse = jax.lax.rsqrt(stats.variance + how.setting.epsilon)
    g = jnp.where(active, gradient, 0).astype(wide)
    axes = tuple(range(g.ndim - 1))
    d_bias = g.sum(axes)
    d_scale = (g * ((selection.value - stats.mean) * inverse)).sum(axes)
    if not wanted & {"x", "kernel"}:
        return None, parameters._replace(kernel=None, scale=d_scale, bias=d_bias), None
    factor = scale * inverse
    everywhere = None
    if how.uses_batch:
        # Gradients of parameters stay those of this device's part; the caller adds them up.
        through_scale, through_bias = split.total((d_scale, d_bias), axis)
        count = x.size // x.shape[-1] * split.parts(axis)
        slope = -factor * inverse * through_scale / count
        constant = -factor * through_bias / count - slope * stats.mean
        everywhere = Everywhere(constant, slope)
    dx, dk = forms.backward(
        how.kind(x),
        x,
        kernel.astype(x.dtype),
        PreActivationGradient(g * factor, selection.offset, everywhere, z),
        for_input="x" in wanted,
        for_kernel="kernel" in wanted,
    )
    dx = None if dx is None else dx.astype(x.dtype)
    dk = None if dk is None else dk.astype(kernel.dtype)
    return dx, parameters._replace(kernel=dk, scale=d_scale, bias=d_bias), None


_layer.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)
