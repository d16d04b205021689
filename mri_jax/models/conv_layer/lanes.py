"""The convolution with Z in the lanes: blocks of planes as the channels of a 2D convolution.

A TPU lays the last axis of an array along 128 lanes, so that 1 to 64 channels leave most of them
empty, in memory as in arithmetic. Here Z is cut into blocks of ``b`` planes. A block and one plane
on either side are the ``(b + 2) * C`` channels of an image over X and Y, and a kernel whose taps
along Z lie in a band makes of it the ``b * F`` channels of the block's outputs. Where pooling
follows, a window of 4 x 4 makes the outputs of 2 x 2 voxels at once: the output lanes are eight
groups in the order of `pooling.OFFSETS`, each (window along Z, filter), and the selection of maxima
compares whole groups.

The sums are the same: the band is filled up with zeros. Their order depends on the place in a
block, so that equal neighbourhoods tie to the last bit only where no sum is rounded. A voxel that
is not finite makes every output of its blocks so whose window holds it.
"""

from dataclasses import dataclass
from functools import reduce
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.gradient import Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments
from mri_jax.models.conv_layer.pooling import Selection, select_first_maximum

LANES = 128
_MOST_WINDOWS = 16  # Along Z in a block: more would fill no further lanes of 8 filters.


@dataclass(frozen=True)
class Cut:
    """How a layer's volumes are cut into blocks.

    Attributes:
      size: (X, Y, Z) of a volume.
      channels: C.
      filters: F.
      side: Of a pooling window: 2, or 1 where nothing is pooled.
      windows: Pooling windows along Z in a block.
    """

    size: tuple[int, int, int]
    channels: int
    filters: int
    side: int
    windows: int

    @property
    def planes(self) -> int:
        """Returns how many planes a block has."""
        return self.side * self.windows

    @property
    def counts(self) -> tuple[int, int, int]:
        """Returns the windows along X and along Y, and the blocks along Z."""
        x, y, z = self.size
        return ceil(x / self.side), ceil(y / self.side), ceil(z / self.planes)

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns the zeros before and behind X, and Y."""
        (x, y, _), (windows_x, windows_y, _) = self.size, self.counts
        return (1, self.side * windows_x + 1 - x), (1, self.side * windows_y + 1 - y)


def pays(kernel: tuple[int, ...]) -> bool:
    """Returns whether a kernel of (3, 3, 3, C, F) would leave most lanes empty otherwise."""
    return min(kernel[-2:]) < LANES // 2


def cut_of(size: tuple[int, ...], kernel: tuple[int, ...], *, pool: bool) -> Cut:
    """Returns the smallest blocks that leave hardly more numbers empty than the best do.

    Args:
      size: (X, Y, Z) of a volume.
      kernel: The kernel's shape, (3, 3, 3, C, F).
      pool: Whether 2 x 2 x 2 max pooling follows.
    """
    side, filters = (2 if pool else 1), kernel[-1]
    along_z = ceil(size[2] / side)

    def numbers(windows: int) -> int:
        """Returns the numbers along Z of a group, empty lanes included."""
        return ceil(along_z / windows) * ceil(windows * filters / LANES) * LANES

    choices = range(1, min(_MOST_WINDOWS, along_z) + 1)
    enough = 1.05 * min(map(numbers, choices))
    windows = min(n for n in choices if numbers(n) <= enough)
    return Cut((size[0], size[1], size[2]), kernel[-2], filters, side, windows)


def forward(
    x: Features, kernel: Array, sign: Array, *, pool: bool, with_moments: bool, keep_z: bool
) -> tuple[Selection, Moments | None, Array | None]:
    """Returns what `forms.Forward` holds; see `forms.forward`."""
    maps = x.activated()
    cut = cut_of(maps.shape[1:4], kernel.shape, pool=pool)
    z = _convolve(_blocks(maps, cut), banded(kernel, cut), cut)
    if pool:
        found = select_first_maximum(jnp.split(z, 8, axis=-1), jnp.tile(sign, cut.windows))
        selection = Selection(*(_whole(p, cut) for p in found))
    else:
        selection = Selection(_whole(z, cut), jnp.zeros((), jnp.int8))
    moments = _moments(z, maps, kernel, cut) if with_moments else None
    return selection, moments, _unpacked(z, cut) if keep_z else None


def gradients(
    x: Features,
    kernel: Array,
    given: PreActivationGradient,
    *,
    pool: bool,
    for_input: bool,
    for_kernel: bool,
) -> Gradients:
    """Returns what `forms.backward` does; ``z`` is computed again as blocks."""
    maps, back = jax.vjp(Features.activated, x)
    cut = cut_of(maps.shape[1:4], kernel.shape, pool=pool)
    blocks, wide_kernel = _blocks(maps, cut), banded(kernel, cut)
    dz = _windows(given.selected, cut)
    if pool:
        dz = _in_groups(dz, _windows(given.offset, cut))
    if given.everywhere is not None:
        constant, slope = (_of_blocks(p, cut) for p in given.everywhere)
        z = _convolve(blocks, wide_kernel, cut)
        dz = jnp.where(_inside(z, cut), dz + (constant + slope * z), 0)
    dz = dz.astype(maps.dtype)
    dx = back(_together(_convolve_back(dz, wide_kernel, cut), cut))[0] if for_input else None
    dk = None
    if for_kernel:
        wide = jax.ShapeDtypeStruct(kernel.shape, jnp.promote_types(maps.dtype, jnp.float32))
        sums = jax.linear_transpose(lambda k: banded(k, cut), wide)
        dk = sums(_kernel_gradient(blocks, dz, cut))[0].astype(kernel.dtype)
    return Gradients(dx, dk)


def banded(kernel: Array, cut: Cut) -> Array:
    """Returns the kernel of the 2D convolution, linear in the given one.

    Args:
      kernel: (3, 3, 3, C, F).
      cut: The blocks.

    Returns:
      (W, W, (b + 2) * C, groups * windows * F), W being 4 where windows are pooled, else 3; the
      groups are in the order of `pooling.OFFSETS`.
    """

    def spread(kernel: Array, axis: int, count: int, places: list[int]) -> Array:
        """Returns the kernel at each place of ``count + 2`` along an axis, before the filters."""
        rest = [(0, 0)] * kernel.ndim
        stands = []
        for place in places:
            rest[axis] = (place, count - 1 - place)
            stands.append(jnp.pad(kernel, rest))
        return jnp.stack(stands, axis=4)

    along_z = [p + cut.side * w for p in range(cut.side) for w in range(cut.windows)]
    kernel = spread(kernel, 2, cut.planes, along_z)
    for axis in (1, 0):
        kernel = spread(kernel, axis, cut.side, list(range(cut.side)))
    taps = cut.side + 2
    return kernel.reshape(taps, taps, (cut.planes + 2) * cut.channels, -1)


def _blocks(maps: Array, cut: Cut) -> Array:
    """Returns the blocks of maps with a plane on either side.

    Args:
      maps: (N, X, Y, Z, C).
      cut: The blocks.

    Returns:
      (X, Y, M, (b + 2) * C), M being N times the blocks of a volume: the order in which a TPU
      convolves.
    """
    n, x, y, z, _ = maps.shape
    count = cut.counts[2]
    behind = count * cut.planes - z + 1
    padded = jnp.pad(jnp.moveaxis(maps, 0, 2), ((0, 0),) * 3 + ((1, behind), (0, 0)))
    starts = range(0, count * cut.planes, cut.planes)
    parts = [padded[:, :, :, s : s + cut.planes + 2].reshape(x, y, n, -1) for s in starts]
    return jnp.stack(parts, axis=3).reshape(x, y, n * count, -1)


def _together(blocks: Array, cut: Cut) -> Array:
    """Returns the transpose of `_blocks`: planes that two blocks share are added."""
    x, y = blocks.shape[:2]
    count, planes = cut.counts[2], cut.planes
    parts = blocks.reshape(x, y, -1, count, planes + 2, cut.channels)
    none = ((0, 0),) * 3
    after = (*none, (1, 0), (0, planes - 1), (0, 0))
    before = (*none, (0, 1), (planes - 1, 0), (0, 0))
    whole = (
        parts[..., 1:-1, :]
        + jnp.pad(parts[:, :, :, :-1, -1:], after)
        + jnp.pad(parts[:, :, :, 1:, :1], before)
    )
    whole = whole.reshape(x, y, -1, count * planes, cut.channels)
    return jnp.moveaxis(whole[:, :, :, : cut.size[2]], 2, 0)


def _whole(windows: Array, cut: Cut) -> Array:
    """Returns the maps, (N, X', Y', Z', F), of the windows (X', Y', M, windows * F) of blocks."""
    x, y, z = (size // cut.side for size in cut.size)
    count = cut.counts[2] * cut.windows
    apart = windows.reshape(*windows.shape[:2], -1, count, cut.filters)
    return jnp.moveaxis(apart[:x, :y, :, :z], 2, 0)


def _windows(maps: Array, cut: Cut) -> Array:
    """Returns what `_whole` was given: zero where there is no whole window."""
    full = (len(maps), *cut.counts[:2], cut.counts[2] * cut.windows, cut.filters)
    rest = [(0, new - old) for old, new in zip(maps.shape, full, strict=True)]
    padded = jnp.moveaxis(jnp.pad(maps, rest), 0, 2)
    return padded.reshape(*full[1:3], -1, cut.windows * cut.filters)


def _in_groups(values: Array, offset: Array) -> Array:
    """Returns windows' values in the group of their offset, zero in the seven others."""
    lanes = values.shape[-1]

    def group(i: int) -> Array:
        around = [(0, 0)] * 3 + [(i * lanes, (7 - i) * lanes)]
        return jnp.pad(jnp.where(offset == i, values, 0), around)

    # A sum of padded arrays is computed where it is read; a concatenation would be written.
    return reduce(jnp.add, map(group, range(8)))


def _unpacked(z: Array, cut: Cut) -> Array:
    """Returns the pre-activation, (N, X, Y, Z, F), of blocks."""
    x, y = z.shape[:2]
    side, count = cut.side, cut.counts[2]
    apart = z.reshape(x, y, -1, count, side, side, side, cut.windows, cut.filters)
    whole = apart.transpose(2, 0, 4, 1, 5, 3, 7, 6, 8)
    whole = whole.reshape(-1, x * side, y * side, count * cut.planes, cut.filters)
    return whole[:, : cut.size[0], : cut.size[1], : cut.size[2]]


def _of_blocks(values: Array, cut: Cut) -> Array:
    """Returns the numbers (N, F) of volumes as those of blocks, (M, lanes)."""
    return jnp.tile(jnp.repeat(values, cut.counts[2], axis=0), cut.side**2 * cut.planes)


def _inside(z: Array, cut: Cut) -> Array:
    """Returns which numbers of the blocks' ``z`` belong to voxels of the volume."""
    offsets = np.indices((cut.side, cut.side, cut.side, cut.windows)).reshape(4, -1)
    *of_xy, of_z, window = np.repeat(offsets, cut.filters, axis=1)
    first = np.tile(cut.planes * np.arange(cut.counts[2]), z.shape[2] // cut.counts[2])
    inside = jnp.asarray(first[:, None] + cut.side * window + of_z < cut.size[2])
    # Compared where they are used: an array of truth values would be as long as z.
    for axis, offset in enumerate(of_xy):
        position = cut.side * lax.broadcasted_iota(jnp.int32, z.shape, axis)
        inside = inside & (position + jnp.asarray(offset, jnp.int32) < cut.size[axis])
    return inside


def _moments(z: Array, maps: Array, kernel: Array, cut: Cut) -> Moments:
    """Returns the moments of each volume, (N, F), in at least float32.

    One pass suffices without cancellation: the squares are taken around the mean but for the
    volume's faces, which the mean of the input gives.
    """
    wide = jnp.promote_types(z.dtype, jnp.float32)
    level = jnp.einsum(
        "nc,cf->nf",
        maps.astype(wide).mean((1, 2, 3)),
        kernel.astype(wide).sum((0, 1, 2)),
        precision=lax.Precision.HIGHEST,
    )
    rest = jnp.where(_inside(z, cut), z.astype(wide) - _of_blocks(level, cut), 0)

    def mean(values: Array) -> Array:
        sums = values.sum((0, 1)).reshape(len(level), -1, cut.filters).sum(1)
        return sums / np.prod(cut.size)

    shift = mean(rest)
    return Moments(level + shift, mean(jnp.square(rest)) - jnp.square(shift))


def _convolve(blocks: Array, kernel: Array, cut: Cut) -> Array:
    """Returns the pre-activation of blocks, (X / side, Y / side, M, lanes)."""
    return lax.conv_general_dilated(
        blocks, kernel, (cut.side,) * 2, cut.padding, dimension_numbers=("HWNC", "HWIO", "HWNC")
    )


def _convolve_back(dz: Array, kernel: Array, cut: Cut) -> Array:
    """Returns the gradient of `_convolve` with respect to the blocks."""
    padding = [
        (cut.side, size - cut.side * (count - 1))
        for size, count in zip(cut.size[:2], cut.counts[:2], strict=True)
    ]
    return lax.conv_general_dilated(
        dz,
        kernel[::-1, ::-1],
        (1, 1),
        padding,
        lhs_dilation=(cut.side,) * 2,
        dimension_numbers=("HWNC", "HWOI", "HWNC"),
    )


def _kernel_gradient(blocks: Array, dz: Array, cut: Cut) -> Array:
    """Returns the gradient of `_convolve` with respect to its kernel, in at least float32."""
    return lax.conv_general_dilated(
        blocks,
        dz,
        (1, 1),
        cut.padding,
        rhs_dilation=(cut.side,) * 2,
        dimension_numbers=("HWCN", "HWIO", "HWNC"),
        preferred_element_type=jnp.promote_types(blocks.dtype, jnp.float32),
    )
