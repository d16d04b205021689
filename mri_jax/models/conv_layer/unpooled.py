"""A first layer that is not pooled, without its pre-activation: its moments, and its maps.

On NVIDIA GPUs both are computed from the volumes by `triton_whole`, as are their gradients, but for
that of the volumes, which explanations alone want. Other platforms compute the pre-activation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from mri_jax.models.conv_layer import triton_whole
from mri_jax.models.conv_layer.arguments import Norm, activated
from mri_jax.models.conv_layer.gradient import everywhere_of, instantiated
from mri_jax.models.conv_layer.moments import Moments

Plain = Callable[[Array, Array], tuple[Array, Moments]]
"""Returns the pre-activation of volumes and kernel, (N, X, Y, Z, F), and its moments, (N, F)."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def moments(plain: Plain, x: Array, kernel: Array) -> Moments:
    """Returns the moments of the pre-activation in each volume, (N, F).

    Args:
      plain: What other platforms compute it by.
      x: (N, X, Y, Z, 1), of a layer that `triton_whole.fits`.
      kernel: (3, 3, 3, 1, F), same dtype.
    """
    return lax.platform_dependent(
        x, kernel, cuda=triton_whole.moments, default=lambda *given: plain(*given)[1]
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def maps(plain: Plain, x: Array, kernel: Array, norm: Norm) -> Array:
    """Returns the maps after BatchNorm and ReLU, (N, X, Y, Z, F); see `moments`."""
    return lax.platform_dependent(
        x, kernel, norm, cuda=triton_whole.maps, default=partial(_plain_maps, plain)
    )


def _plain_maps(plain: Plain, x: Array, kernel: Array, norm: Norm) -> Array:
    return activated(plain(x, kernel)[0], norm)


@jax.tree_util.register_static
class _OfVolumes(int):
    """Whether the gradient of the volumes is wanted, known while tracing."""


def _given(inputs: Any) -> tuple[Any, _OfVolumes]:
    def is_input(node: Any) -> bool:
        return hasattr(node, "perturbed")

    values = jax.tree.map(lambda p: p.value, inputs, is_leaf=is_input)
    return values, _OfVolumes(inputs[0].perturbed)


def _moments_forward(plain: Plain, *inputs: Any) -> tuple[Moments, Any]:
    values, of_volumes = _given(inputs)
    each = moments(plain, *values)
    return each, (values, of_volumes, each)


def _moments_backward(plain: Plain, kept: Any, cotangent: Any) -> tuple[Array | None, Array]:
    (x, kernel), of_volumes, each = kept
    through = _whole(cotangent)

    def plainly(x: Array, kernel: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda *given: plain(*given)[1], x, kernel)[1](through)

    if of_volumes:
        return plainly(x, kernel)
    everywhere = everywhere_of(through, each, x[0].size)
    return None, lax.platform_dependent(
        x,
        kernel,
        cuda=partial(triton_whole.moments_gradient, everywhere=everywhere),
        default=lambda x, kernel: plainly(x, kernel)[1],
    )


def _maps_forward(plain: Plain, *inputs: Any) -> tuple[Array, Any]:
    values, of_volumes = _given(inputs)
    return maps(plain, *values), (values, of_volumes)


def _maps_backward(plain: Plain, kept: Any, cotangent: Any) -> tuple[Array | None, Array, Norm]:
    (x, kernel, norm), of_volumes = kept
    given = instantiated(cotangent)

    def plainly(x: Array, kernel: Array, norm: Norm, given: Array) -> tuple[Array, Array, Norm]:
        return jax.vjp(partial(_plain_maps, plain), x, kernel, norm)[1](given)

    if of_volumes:
        return plainly(x, kernel, norm, given)
    of_kernel, of_norm = lax.platform_dependent(
        x,
        kernel,
        norm,
        given,
        cuda=triton_whole.maps_gradient,
        default=lambda x, kernel, norm, given: plainly(x, kernel, norm, given)[1:],
    )
    return None, of_kernel, of_norm


def _whole(cotangent: Any) -> Any:
    return jax.tree.map(
        instantiated, cotangent, is_leaf=lambda node: isinstance(node, SymbolicZero)
    )


moments.defvjp(_moments_forward, _moments_backward, symbolic_zeros=True)
maps.defvjp(_maps_forward, _maps_backward, symbolic_zeros=True)
