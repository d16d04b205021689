"""A conv layer: the same function as `reference.conv_layer`, faster, and its gradients.

Pooling comes before BatchNorm and ReLU (see `pooling`), and these two are left to the next layer,
which applies them while it reads (`arguments.Features`). What is between is one function with a
backward pass written out: from the input's maps, their norm and the kernel to the selected
pre-activations and the moments of each volume. The gradient of the pre-activation ``z`` is that of
the selected voxels where they stand, and through the moments, at all ``V`` voxels of a volume,
``d_mean / V + 2 * d_variance / V * (z - mean)``. The batch statistics, and the norm made of them,
are plain JAX on a few numbers (Ioffe & Szegedy 2015). Where each volume is normalised by its own
statistics, pooling still comes first: these scale a channel by a positive number too. But the forms
read one norm for all volumes, so such a norm is applied before they do.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from mri_jax.models import choice
from mri_jax.models.conv_layer import forms, reference, triton_whole, unpooled
from mri_jax.models.conv_layer.arguments import (
    Features,
    Norm,
    Parameters,
    Setting,
    norm_of,
)
from mri_jax.models.conv_layer.gradient import (
    PreActivationGradient,
    everywhere_of,
    instantiated,
)
from mri_jax.models.conv_layer.moments import Moments, of_groups, of_whole_batch


class _How(NamedTuple):
    """What is fixed before the arrays are known."""

    layer: forms.Layer
    with_moments: bool


@jax.tree_util.register_static
class _Wanted(frozenset):
    """Names of the inputs whose gradient is wanted, known while tracing."""


def conv_layer(
    x: Features, parameters: Parameters, running: Moments | None, setting: Setting
) -> tuple[Features, Moments]:
    """Computes a conv layer with BatchNorm, ReLU and, where it follows, max pooling.

    Running statistics are constants: no gradient reaches them.

    Args:
      x: Of (N, X, Y, Z, C).
      parameters: Kernel, and BatchNorm's scale and bias.
      running: Statistics to normalise with; None takes those of the batch, or of each volume where
        ``setting`` has a ``group``.
      setting: What is fixed.

    Returns:
      The output, of (N, X, Y, Z, F) or with pooling (N, X // 2, Y // 2, Z // 2, F), its norm still
      to be applied but in the reference, and the statistics used.
    """
    if setting.form == choice.REFERENCE:
        stages, stats = reference.conv_layer(x.activated(), parameters, running, setting)
        return Features(stages.output), stats
    if x.norm is not None and x.norm.mean.ndim > 1:
        x = Features(x.activated())
    unwritten = triton_whole.fits(x, parameters.kernel, pool=setting.pool) and not setting.group
    if setting.form == choice.PALLAS and unwritten:
        return _without_pre_activation(x.value, parameters, running, setting)
    dtype = x.value.dtype
    sign = jax.lax.stop_gradient(jnp.sign(parameters.scale).astype(dtype))
    how = _How(forms.Layer(setting.pool, setting.form), running is None)
    value, each = _convolved(how, x, parameters.kernel.astype(dtype), sign)
    norm, stats = _normalising(each, parameters, running, setting)
    return Features(value, norm), jax.lax.stop_gradient(stats)


def _normalising(
    each: Moments | None, parameters: Parameters, running: Moments | None, setting: Setting
) -> tuple[Norm, Moments]:
    """Returns the norm and its statistics: running ones, or those of these volumes."""
    if running is not None:
        stats = jax.lax.stop_gradient(running)
    else:
        assert each is not None
        if setting.group:
            stats = of_groups(each, setting.group)
        else:
            stats = of_whole_batch(each, setting.batch_axis)
    return norm_of(stats, parameters, setting.epsilon), stats


def _without_pre_activation(
    x: Array, parameters: Parameters, running: Moments | None, setting: Setting
) -> tuple[Features, Moments]:
    """Does what `conv_layer` does, by `unpooled`; the maps are normalised."""
    kernel = parameters.kernel.astype(x.dtype)
    each = unpooled.moments(_plainly, x, kernel) if running is None else None
    norm, stats = _normalising(each, parameters, running, setting)
    maps = unpooled.maps(_plainly, x, kernel, norm)
    return Features(maps), jax.lax.stop_gradient(stats)


def _plainly(x: Array, kernel: Array) -> tuple[Array, Moments]:
    """Returns what `unpooled.Plain` does."""
    how = _How(forms.Layer(pool=False), with_moments=True)
    z, each = _convolved(how, Features(x), kernel, jnp.ones(kernel.shape[-1], kernel.dtype))
    assert each is not None
    return z, each


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolved(how: _How, x: Features, kernel: Array, sign: Array) -> tuple[Array, Moments | None]:
    """Returns the selected pre-activations, and the moments of each volume where asked for."""
    found = forms.forward(how.layer, x, kernel, sign, with_moments=how.with_moments, keep_z=False)
    return found.selection.value, found.moments


def _forward_rule(how: _How, *inputs: Any) -> tuple[tuple[Array, Moments | None], tuple]:
    x, kernel, sign = jax.tree.map(
        lambda p: p.value, inputs, is_leaf=lambda p: hasattr(p, "perturbed")
    )
    perturbed = {"x": jax.tree.leaves(inputs[0], is_leaf=lambda p: hasattr(p, "perturbed"))}
    perturbed["kernel"] = [inputs[1]]
    wanted = _Wanted(name for name, leaves in perturbed.items() if any(p.perturbed for p in leaves))
    found = forms.forward(
        how.layer, x, kernel, sign, with_moments=how.with_moments, keep_z=how.with_moments
    )
    outputs = found.selection.value, found.moments
    return outputs, (wanted, x, kernel, found.z, found.selection, found.moments)


def _backward_rule(how: _How, residuals: tuple, cotangents: Any) -> tuple:
    wanted, x, kernel, z, selection, each = residuals
    selected, through = jax.tree.map(
        instantiated, cotangents, is_leaf=lambda p: isinstance(p, SymbolicZero)
    )
    everywhere = None
    if each is not None:
        everywhere = everywhere_of(through, each, x.value[0, ..., 0].size)
    given = PreActivationGradient(selected, selection.offset, everywhere, z)
    found = forms.backward(
        how.layer, x, kernel, given, for_input="x" in wanted, for_kernel="kernel" in wanted
    )
    return found.x, found.kernel, None


_convolved.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)
