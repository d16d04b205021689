"""A batch split over devices: each holds as many of its volumes, in their order.

Functions take the name of the mapped axis that counts the parts, or None for a batch in one piece.
"""

from typing import Any

from jax import Array, lax


def parts(axis: str | None) -> int:
    """Returns how many devices share the batch."""
    return 1 if axis is None else lax.axis_size(axis)


def total(tree: Any, axis: str | None) -> Any:
    """Sum of every leaf over the parts."""
    return tree if axis is None else lax.psum(tree, axis)


def gathered(values: Array, axis: str | None) -> Array:
    """Of (N, ...) values of this part those of the whole batch, (N * parts, ...)."""
    return values if axis is None else lax.all_gather(values, axis, tiled=True)


def own(values: Array, axis: str | None) -> Array:
    """Of (N, ...) values for the whole batch those of this part, (N / parts, ...)."""
    if axis is None:
        return values
    size = values.shape[0] // parts(axis)
    return lax.dynamic_slice_in_dim(values, lax.axis_index(axis) * size, size)
