"""Selecting the maximum of each 2 x 2 x 2 window before BatchNorm, and its exact transpose.

BatchNorm is affine in each channel and ReLU is monotone, so pooling can come first: the maximum of
``relu(a * z + b)`` lies where ``sign(a) * z`` is largest. BatchNorm and ReLU then touch one voxel
in eight. Skull-stripped volumes are mostly constant and ties are everywhere: the first maximum in
row-major order takes the gradient, as in `flax.linen.max_pool`.
"""

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.models.conv_layer.arguments import Features, normalised

OFFSETS = tuple(product((0, 1), repeat=3))


class Selection(NamedTuple):
    """What pooling selects.

    Attributes:
      value: The pre-activation of each selected voxel, (..., F).
      offset: (..., F) int8, which of the eight `OFFSETS` of its window it stands at.
    """

    value: Array
    offset: Array


def select_first_maximum(candidates: list[Array], sign: Array) -> Selection:
    """Select the first of eight candidates that maximises ``sign * z``.

    Args:
      candidates: Eight arrays (..., F), in the order of `OFFSETS`.
      sign: (F,) of 1, -1, or 0 (where everything ties and the first is selected).

    Returns:
      The selection.
    """
    # A tournament of comparisons: `jnp.maximum` costs twice as much on CPUs. The left one wins a
    # tie and has the smaller index; NaN wins, as in `max_pool`.
    rivals = [(c * sign, jnp.full(c.shape, i, jnp.int32)) for i, c in enumerate(candidates)]
    while len(rivals) > 1:
        rivals = [
            _winner(left, right) for left, right in zip(rivals[::2], rivals[1::2], strict=True)
        ]
    best, index = rivals[0]
    return Selection(jnp.where(sign == 0, candidates[0], best * sign), index.astype(jnp.int8))


def _winner(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
    wins = (right[0] > left[0]) | jnp.isnan(right[0])
    return jnp.where(wins, right[0], left[0]), jnp.where(wins, right[1], left[1])


def select_windows(z: Array, sign: Array) -> Selection:
    """Select in every whole 2 x 2 x 2 window; the last plane of an odd axis is in none.

    Args:
      z: (N, X, Y, Z, F) pre-activations.
      sign: (F,) as in `select_first_maximum`.

    Returns:
      The selection, (N, X // 2, Y // 2, Z // 2, F) each.
    """
    x, y, w = (size // 2 * 2 for size in z.shape[1:4])
    candidates = [z[:, i:x:2, j:y:2, k:w:2] for i, j, k in OFFSETS]
    return select_first_maximum(candidates, sign)


def scatter_windows(gradient: Array, index: Array, shape: tuple[int, ...]) -> Array:
    """Transpose of `select_windows`: put each value where its maximum stood, zero elsewhere.

    Args:
      gradient: (N, X', Y', Z', F).
      index: (N, X', Y', Z', F) int8 from `select_windows`.
      shape: (N, X, Y, Z, F) of the pre-activations.

    Returns:
      An array of ``shape``.
    """
    n, x, y, w, f = gradient.shape
    offset = np.arange(8, dtype=np.int8).reshape(1, 1, 2, 1, 2, 1, 2, 1)
    spread = (n, x, 1, y, 1, w, 1, f)
    windows = jnp.where(index.reshape(spread) == offset, gradient.reshape(spread), 0)
    whole = windows.reshape(n, 2 * x, 2 * y, 2 * w, f)
    rest = [(0, size - even) for size, even in zip(shape, whole.shape, strict=True)]
    return jnp.pad(whole, rest) if any(r != (0, 0) for r in rest) else whole


def joined(x: Features, shortcut: Array) -> Array:
    """Returns the maxima of ``relu(norm(value) + shortcut)``, as a residual block ends.

    No pooling comes first here: which voxel is largest depends on both. But norm, sum and ReLU are
    taken of the largest alone, so that their gradients are of a voxel in eight.

    Args:
      x: Of (N, X, Y, Z, F), with its norm.
      shortcut: (N, X, Y, Z, F).

    Returns:
      (N, X // 2, Y // 2, Z // 2, F).
    """
    assert x.norm is not None
    total = jax.lax.stop_gradient(normalised(x.value, x.norm) + shortcut)
    value, beside = _at_largest(x.value, shortcut, total)
    return jax.nn.relu(normalised(value, x.norm) + beside).astype(value.dtype)


@jax.custom_vjp
def _at_largest(value: Array, shortcut: Array, total: Array) -> tuple[Array, Array]:
    """Returns ``value`` and ``shortcut`` where ``total`` is largest in each 2 x 2 x 2 window."""
    return _at_largest_forward(value, shortcut, total)[0]


# Volume by volume: what a loop gave is there. Of anything else XLA computes all that comes before
# anew wherever a number of it is read, on CPUs behind barriers too.
def _at_largest_forward(
    value: Array, shortcut: Array, total: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    sign = jnp.ones(total.shape[-1], total.dtype)

    def of_volume(volume: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, shortcut, total = (array[None] for array in volume)
        offset = select_windows(total, sign).offset
        i, j, k = (2 * size for size in offset.shape[1:4])

        def there(array: Array) -> Array:
            corners = [array[:, a:i:2, b:j:2, c:k:2] for a, b, c in OFFSETS]
            return jax.lax.select_n(offset.astype(jnp.int32), *corners)[0]

        return there(value), there(shortcut), offset[0]

    *found, offset = jax.lax.map(of_volume, (value, shortcut, total))
    return (found[0], found[1]), (offset, value)


def _at_largest_backward(
    kept: tuple[Array, Array], gradients: tuple[Array, Array]
) -> tuple[Array, Array, None]:
    offset, like = kept

    def of_volume(volume: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        offset, *selected = (array[None] for array in volume)
        shape = (1, *like.shape[1:])
        spread = (scatter_windows(gradient, offset, shape)[0] for gradient in selected)
        return next(spread), next(spread)

    return *jax.lax.map(of_volume, (offset, *gradients)), None


_at_largest.defvjp(_at_largest_forward, _at_largest_backward)
