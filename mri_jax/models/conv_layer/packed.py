"""Convolution and selection of maxima in one, for the first layer: few channels, full resolution.

Each 2 x 2 x 2 cell of voxels sees a 4 x 4 x 4 neighbourhood. Gathering it into a row of 64 C
numbers makes the convolution at the cell's eight positions one matrix product, (cells, 64 C) times
(64 C, 8 F), and pooling a maximum over eight groups of columns. Cells are worked through in slabs
of planes that stay in cache; the full-resolution pre-activation is never held. The backward pass
computes it again.

Cells cover odd axes too: a position beyond the volume is left out of the statistics and of the
gradients, and the last plane of an odd axis is left out of pooling.
"""

from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments
from mri_jax.models.conv_layer.planes import planes_per_slab
from mri_jax.models.conv_layer.pooling import OFFSETS, Selection, select_first_maximum

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

    @property
    def slabs(self) -> int:
        """How many slabs there are in the batch."""
        return self.batch * self.cells[0] // self.planes_per_slab

    @property
    def scratch(self) -> tuple[int, ...]:
        """Shape of a slab's rows, before they are flattened."""
        return (self.planes_per_slab, *self.cells[1:], _COLUMNS * self.channels)


def _geometry(x: Array, filters: int) -> _Geometry:
    n, *shape, channels = x.shape
    cells = [-(-size // 2) for size in shape]
    numbers = cells[1] * cells[2] * (_COLUMNS * channels + 8 * filters)
    planes = planes_per_slab(cells[0], numbers)
    return _Geometry(n, tuple(shape), tuple(cells), channels, planes)


def _windows_along_z(x: Array, g: _Geometry) -> Array:
    """Returns the four voxels each cell sees along Z.

    (N, X, Y, Z, C) to (N, 2 Xc + 2, 2 Yc + 2, Zc, 4 C).
    """
    pads = [(1, 2 * cells + 1 - size) for cells, size in zip(g.cells, g.shape, strict=True)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    pairs = x.reshape(*x.shape[:3], g.cells[2] + 1, 2 * g.channels)
    return jnp.concatenate([pairs[..., :-1, :], pairs[..., 1:, :]], axis=-1)


def _slab_of(windows: Array, g: _Geometry, at: Array) -> Array:
    """Returns the planes that one slab's cells see: (2 P + 2, 2 Yc + 2, Zc, 4 C)."""
    volume, slab = jnp.divmod(at, g.cells[0] // g.planes_per_slab)
    start = (volume, 2 * g.planes_per_slab * slab, 0, 0, 0)
    size = (1, 2 * g.planes_per_slab + 2, *windows.shape[2:])
    return lax.dynamic_slice(windows, start, size)[0]


def _fill_rows(scratch: Array, slab: Array, g: _Geometry) -> Array:
    """Write the neighbourhoods of a slab's cells into (P, Yc, Zc, 72 C); the last 8 C stay zeros.

    A row runs along Y, then X, then Z. At each of the cell's eight positions the taps then come in
    the same order, so that equal neighbourhoods give equal sums to the last bit, and ties are ties.
    This holds for multiples of eight filters, as all networks of the family have: the matrix
    product sums its last columns in another order where their number does not fill its blocks.
    Pieces are written into place because XLA on CPUs computes a concatenation number by number.
    """
    p, yc = g.planes_per_slab, g.cells[1]
    for column, (j, i) in enumerate(product(range(4), repeat=2)):
        piece = slab[i : i + 2 * p : 2, j : j + 2 * yc : 2]
        scratch = lax.dynamic_update_slice_in_dim(scratch, piece, column * 4 * g.channels, axis=3)
    return scratch


def _flat(rows: Array) -> Array:
    """Returns (P, Yc, Zc, 72 C) as (rows, 72 C)."""
    return rows.reshape(-1, rows.shape[-1])


def _pack_kernel(kernel: Array) -> Array:
    """(3, 3, 3, C, F) to (72 C, 8 F): row order of `_fill_rows`, column order of `OFFSETS`."""
    *_, channels, filters = kernel.shape
    shifted = [
        jnp.pad(kernel, [(o, 1 - o) for o in offset] + [(0, 0), (0, 0)]) for offset in OFFSETS
    ]
    whole = jnp.stack(shifted, axis=4)
    packed = whole.transpose(1, 0, 2, 3, 4, 5).reshape(64 * channels, 8 * filters)
    return jnp.pad(packed, ((0, (_COLUMNS - 64) * channels), (0, 0)))


def _inside(g: _Geometry) -> tuple[Array, Array] | None:
    """Returns which of the eight positions of each cell lie in the volume; None where all do.

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
    """Returns (rows, 8) bool of one slab."""
    x, plane = inside
    return (x[slab_index][:, None] & plane[None]).reshape(-1, 8)


def select(
    x: Array, kernel: Array, sign: Array, with_moments: bool
) -> tuple[Selection, Moments | None]:
    """Convolve and select the maximum of every whole 2 x 2 x 2 window.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).
      sign: (F,) of 1, -1 or 0; see `pooling.select_first_maximum`.
      with_moments: Whether moments are computed.

    Returns:
      The selection (N, X // 2, Y // 2, Z // 2, F), and the moments (F,) over all voxels, or None.
    """
    filters = kernel.shape[-1]
    g = _geometry(x, filters)
    weights, inside = _pack_kernel(kernel), _inside(g)
    windows = _windows_along_z(x, g)

    def work(scratch: Array, at: Array) -> tuple[Array, tuple[Selection, Any]]:
        scratch = _fill_rows(scratch, _slab_of(windows, g, at), g)
        z = (_flat(scratch) @ weights).reshape(-1, 8, filters)
        selection = select_first_maximum([z[:, i] for i in range(8)], sign)
        if not with_moments:
            return scratch, (selection, None)
        return scratch, (selection, _sums(z, None if inside is None else _mask_of(inside, at)))

    scratch = jnp.zeros(g.scratch, x.dtype)
    _, (selection, sums) = lax.scan(work, scratch, jnp.arange(g.slabs))
    whole = tuple(size // 2 for size in g.shape)

    def to_windows(values: Array) -> Array:
        values = values.reshape(g.batch, *g.cells, filters)
        return values[:, : whole[0], : whole[1], : whole[2]]

    found = _combine(sums) if with_moments else None
    return Selection(*map(to_windows, selection)), found


class _Sums(NamedTuple):
    """Of one slab: how many positions (), their sum, and their squares around the mean, (F,)."""

    positions: Array
    total: Array
    squares: Array


def _sums(z: Array, mask: Array | None) -> _Sums:
    """Sums over the positions of one slab: (rows, 8, F) to `_Sums`."""
    filters = z.shape[-1]
    # Rows of 8 F numbers, because XLA sums long rows faster than short ones.
    wide = z.reshape(-1, 8 * filters).astype(jnp.promote_types(z.dtype, jnp.float32))
    counts = None if mask is None else jnp.repeat(mask, filters, axis=1)

    def over_positions(values: Array) -> Array:
        kept = values if counts is None else jnp.where(counts, values, 0)
        return kept.sum(0).reshape(8, filters).sum(0)

    positions = jnp.asarray(z.size // filters if mask is None else mask.sum(), wide.dtype)
    total = over_positions(wide)
    squares = over_positions(jnp.square(wide - jnp.tile(total / positions, 8)))
    return _Sums(positions, total, squares)


def _combine(sums: _Sums) -> Moments:
    """Moments from the sums of slabs, (S,) and (S, F), without cancellation (Chan et al. 1983)."""
    positions = sums.positions[:, None]
    mean = sums.total.sum(0) / positions.sum()
    apart = jnp.square(sums.total / positions - mean) * positions
    return Moments(mean, (sums.squares.sum(0) + apart.sum(0)) / positions.sum())


def gradients(
    x: Array, kernel: Array, given: PreActivationGradient, *, for_input: bool, for_kernel: bool
) -> Gradients:
    """Returns gradients with respect to input and kernel; the pre-activation is computed again.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F).
      given: Gradient of the pre-activation; its ``z`` is not used.
      for_input: Whether the input's gradient is wanted.
      for_kernel: Whether the kernel's gradient is wanted.
    """
    filters = kernel.shape[-1]
    g = _geometry(x, filters)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    weights, inside = _pack_kernel(kernel), _inside(g)
    windows = _windows_along_z(x, g)
    beyond = [(0, c - s // 2) for c, s in zip(g.cells, g.shape, strict=True)]

    def to_slabs(values: Array) -> Array:
        values = jnp.pad(values, ((0, 0), *beyond, (0, 0)))
        return values.reshape(g.slabs, -1, filters)

    offset = jnp.arange(8, dtype=jnp.int8)[:, None]

    def work(
        carry: tuple[Array, Array], item: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], Array | None]:
        total, scratch = carry
        chosen, pooled, at = item
        slab = _slab_of(windows, g, at)
        scratch = _fill_rows(scratch, slab, g)
        rows = _flat(scratch)
        dz = jnp.where(chosen[:, None] == offset, pooled[:, None], 0)
        if given.everywhere is not None:
            z = (rows @ weights).reshape(-1, 8, filters)
            everywhere = given.everywhere.constant + given.everywhere.slope * z
            if inside is not None:
                everywhere = jnp.where(_mask_of(inside, at)[..., None], everywhere, 0)
            dz = dz + everywhere
        dz = dz.reshape(-1, 8 * filters).astype(x.dtype)
        if for_kernel:
            total = total + lax.dot_general(
                rows, dz, (((0,), (0,)), ((), ())), preferred_element_type=wide
            )
        if not for_input:
            return (total, scratch), None
        spread = jax.linear_transpose(lambda s: _flat(_fill_rows(empty, s, g)), slab)
        return (total, scratch), spread(dz @ weights.T)[0]

    empty = jnp.zeros(g.scratch, x.dtype)
    zero = jnp.zeros((_COLUMNS * g.channels, 8 * filters), wide)
    items = (to_slabs(given.offset), to_slabs(given.selected), jnp.arange(g.slabs))
    (total, _), spread = lax.scan(work, (zero, empty), items)
    dx = None if spread is None else _spread_to_input(x, spread, g)
    if not for_kernel:
        return dx, None
    unpack = jax.linear_transpose(_pack_kernel, jax.ShapeDtypeStruct(kernel.shape, wide))
    return dx, unpack(total)[0]


def _spread_to_input(x: Array, spread: Array, g: _Geometry) -> Array:
    """Add up what the slabs' planes (S, 2 P + 2, ...) give the input: transpose of the slicing."""

    def all_slabs(volumes: Array) -> Array:
        windows = _windows_along_z(volumes, g)
        return jax.vmap(lambda at: _slab_of(windows, g, at))(jnp.arange(g.slabs))

    return jax.linear_transpose(all_slabs, x)(spread)[0]
