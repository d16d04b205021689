"""Convolution and selection of maxima in one, for the first layer: few channels, full resolution.

Each 2 x 2 x 2 cell of voxels sees a 4 x 4 x 4 neighbourhood. Gathering it into a row of 64 C
numbers makes the convolution at the cell's eight positions one matrix product, (cells, 64 C) times
(64 C, 8 F), and pooling a maximum over eight groups of columns. Cells are worked through in slabs
of planes that stay in cache; the full-resolution pre-activation is never held. The backward pass
computes it again.

Cells cover odd axes too: a position beyond the volume is left out of the statistics and of the
gradients, and the last plane of an odd axis is left out of pooling.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mri_jax.models.pooling import OFFSETS, Selection, select_first_maximum
from mri_jax.models.reference import Moments

# Rows of the matrix product in one slab: its operands then fit a core's second-level cache.
SLAB_ROWS = 4096
# A neighbourhood's row has this many columns a channel: its 64 voxels and 8 zeros. With 64 the rows
# of both operands of the gradient's matrix product lie a power of two apart, which the cache's sets
# punish (33 against 24 ms; docs/performance.md).
_COLUMNS = 72


class _Geometry(NamedTuple):
    """Sizes of the packed problem: cells along each axis, voxels, and the slabs."""

    batch: int
    shape: tuple[int, ...]
    cells: tuple[int, ...]
    channels: int
    planes_per_slab: int


def _geometry(x: Array) -> _Geometry:
    n, *shape, channels = x.shape
    cells = [-(-size // 2) for size in shape]
    planes = n * cells[0]
    wanted = max(1, SLAB_ROWS // (cells[1] * cells[2]))
    fitting = max(p for p in range(1, min(wanted, planes) + 1) if planes % p == 0)
    return _Geometry(n, tuple(shape), tuple(cells), channels, fitting)


def _pack(x: Array, g: _Geometry) -> Array:
    """(N, X, Y, Z, C) to slabs of cell planes (S, P, Yc + 1, Zc, 36 C).

    Of each cell a plane holds the four voxels it sees along X and along Z, and its own two along
    Y; the other two along Y are its neighbour's. The last 4 C of the 36 C are zeros.
    """
    pads = [(1, 2 * cells + 1 - size) for cells, size in zip(g.cells, g.shape, strict=True)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    xc, yc, zc = g.cells
    seen = jnp.stack([x[:, i : i + 2 * xc : 2] for i in range(4)], axis=4)
    seen = jnp.stack([seen[:, :, :, i : i + 2 * zc : 2] for i in range(4)], axis=4)
    seen = seen.reshape(g.batch * xc, yc + 1, 2, zc, 16 * g.channels)
    packed = jnp.moveaxis(seen, 2, 3).reshape(g.batch * xc, yc + 1, zc, -1)
    packed = jnp.pad(packed, ((0, 0),) * 3 + ((0, (_COLUMNS // 2 - 32) * g.channels),))
    return packed.reshape(-1, g.planes_per_slab, yc + 1, zc, _COLUMNS // 2 * g.channels)


def _rows(slab: Array, g: _Geometry) -> Array:
    """The neighbourhoods of a slab's cells: (P, Yc + 1, Zc, 36 C) to (rows, 72 C).

    A row runs along Y, then Z, then X. At each of the cell's eight positions the taps then come in
    the same order, so that equal neighbourhoods give equal sums to the last bit, and ties are ties.
    """
    pair = jnp.concatenate([slab[:, :-1], slab[:, 1:]], axis=-1)
    return pair.reshape(-1, _COLUMNS * g.channels)


def _pack_kernel(kernel: Array) -> Array:
    """(3, 3, 3, C, F) to (72 C, 8 F): row order of `_rows`, column order of `OFFSETS`."""
    *_, channels, filters = kernel.shape
    shifted = [
        jnp.pad(kernel, [(o, 1 - o) for o in offset] + [(0, 0), (0, 0)]) for offset in OFFSETS
    ]
    whole = jnp.stack(shifted, axis=4)
    packed = whole.transpose(1, 2, 0, 3, 4, 5).reshape(2, 32 * channels, 8 * filters)
    packed = jnp.pad(packed, ((0, 0), (0, (_COLUMNS // 2 - 32) * channels), (0, 0)))
    return packed.reshape(_COLUMNS * channels, 8 * filters)


def _inside(g: _Geometry) -> tuple[Array, Array] | None:
    """Which of the eight positions of each cell lie in the volume; None where all do.

    Returns:
      Along X, (slabs, P, 8) bool, and in the plane, (Yc * Zc, 8) bool.
    """
    if all(size % 2 == 0 for size in g.shape):
        return None
    offsets = jnp.array(OFFSETS)
    along = [
        2 * jnp.arange(cells)[:, None] + offsets[:, axis] < size
        for axis, (cells, size) in enumerate(zip(g.cells, g.shape, strict=True))
    ]
    x = jnp.tile(along[0], (g.batch, 1)).reshape(-1, g.planes_per_slab, 8)
    plane = along[1][:, None] & along[2][None]
    return x, plane.reshape(-1, 8)


def _mask_of(inside: tuple[Array, Array], slab_index: Array) -> Array:
    """(rows, 8) bool of one slab."""
    x, plane = inside
    return (x[slab_index][:, None] & plane[None]).reshape(-1, 8)


def select(
    x: Array, kernel: Array, sign: Array, running: Moments | None
) -> tuple[Selection, Moments]:
    """Convolve and select the maximum of every whole 2 x 2 x 2 window.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).
      sign: (F,) of 1, -1 or 0; see `pooling.select_first_maximum`.
      running: Statistics to use instead of the batch's, which then are not computed.

    Returns:
      The selection (N, X // 2, Y // 2, Z // 2, F), and the moments (F,) over all voxels or
      ``running``.
    """
    g = _geometry(x)
    filters = kernel.shape[-1]
    weights, inside = _pack_kernel(kernel), _inside(g)
    slabs = _pack(x, g)

    def work(_: None, item: tuple[Array, Array]) -> tuple[None, tuple[Selection, Any]]:
        slab, at = item
        z = (_rows(slab, g) @ weights).reshape(-1, 8, filters)
        selection = select_first_maximum([z[:, i] for i in range(8)], sign)
        if running is not None:
            return None, (selection, None)
        return None, (selection, _sums(z, None if inside is None else _mask_of(inside, at)))

    _, (selection, sums) = lax.scan(work, None, (slabs, jnp.arange(len(slabs))))
    whole = tuple(size // 2 for size in g.shape)

    def to_windows(values: Array) -> Array:
        values = values.reshape(g.batch, *g.cells, filters)
        return values[:, : whole[0], : whole[1], : whole[2]]

    stats = _combine(sums) if running is None else running
    return Selection(*map(to_windows, selection)), stats


class _Sums(NamedTuple):
    """Of one slab: how many positions (), their sum, and their squares around the mean, (F,)."""

    positions: Array
    total: Array
    squares: Array


def _sums(z: Array, mask: Array | None) -> _Sums:
    """Sums over the positions of one slab: (rows, 8, F) to `_Sums`."""
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    filters = z.shape[-1]

    def over_positions(values: Array) -> Array:
        if mask is not None:
            values = jnp.where(mask[..., None], values, 0)
        return values.reshape(len(values), -1).sum(0).reshape(8, filters).sum(0)

    positions = jnp.asarray(z.size // filters if mask is None else mask.sum(), wide.dtype)
    total = over_positions(wide)
    squares = over_positions(jnp.square(wide - total / positions))
    return _Sums(positions, total, squares)


def _combine(sums: _Sums) -> Moments:
    """Moments from the sums of slabs, (S,) and (S, F), without cancellation (Chan et al. 1983)."""
    positions = sums.positions[:, None]
    mean = sums.total.sum(0) / positions.sum()
    apart = jnp.square(sums.total / positions - mean) * positions
    return Moments(mean, (sums.squares.sum(0) + apart.sum(0)) / positions.sum())


def gradients(
    x: Array,
    kernel: Array,
    index: Array,
    gradient: Array,
    constant: Array,
    slope: Array,
    *,
    through_statistics: bool,
    for_input: bool,
    for_kernel: bool,
) -> tuple[Array | None, Array | None]:
    """Gradients with respect to input and kernel.

    The gradient of the pre-activation is ``gradient`` at the selected voxels, plus
    ``constant + slope * z`` at every voxel where the statistics are those of the batch.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).
      index: (N, X', Y', Z', F) int8 from `select`.
      gradient: (N, X', Y', Z', F).
      constant: (F,).
      slope: (F,).
      through_statistics: Whether the second term exists.
      for_input: Whether the input's gradient is wanted.
      for_kernel: Whether the kernel's gradient is wanted.

    Returns:
      Gradients of ``x`` and ``kernel``; None where not wanted.
    """
    g = _geometry(x)
    filters = kernel.shape[-1]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    weights, inside = _pack_kernel(kernel), _inside(g)
    slabs = _pack(x, g)
    beyond = [(0, c - s // 2) for c, s in zip(g.cells, g.shape, strict=True)]

    def to_slabs(values: Array) -> Array:
        values = jnp.pad(values, ((0, 0), *beyond, (0, 0)))
        return values.reshape(len(slabs), -1, 1, filters)

    offset = jnp.arange(8, dtype=jnp.int8)[:, None]

    def work(total: Array, item: tuple[Array, ...]) -> tuple[Array, Array | None]:
        slab, chosen, pooled, at = item
        rows = _rows(slab, g)
        dz = jnp.where(chosen == offset, pooled, 0)
        if through_statistics:
            z = (rows @ weights).reshape(-1, 8, filters)
            everywhere = constant + slope * z
            if inside is not None:
                everywhere = jnp.where(_mask_of(inside, at)[..., None], everywhere, 0)
            dz = dz + everywhere
        dz = dz.reshape(-1, 8 * filters).astype(x.dtype)
        if for_kernel:
            total = total + lax.dot_general(
                rows, dz, (((0,), (0,)), ((), ())), preferred_element_type=wide
            )
        if not for_input:
            return total, None
        spread = jax.linear_transpose(lambda s: _rows(s, g), slab)
        return total, spread(dz @ weights.T)[0]

    zero = jnp.zeros((_COLUMNS * g.channels, 8 * filters), wide)
    items = (slabs, to_slabs(index), to_slabs(gradient), jnp.arange(len(slabs)))
    total, spread = lax.scan(work, zero, items)
    dx = jax.linear_transpose(lambda v: _pack(v, g), x)(spread)[0] if for_input else None
    if not for_kernel:
        return dx, None
    unpack = jax.linear_transpose(_pack_kernel, jax.ShapeDtypeStruct(kernel.shape, wide))
    return dx, unpack(total)[0]
