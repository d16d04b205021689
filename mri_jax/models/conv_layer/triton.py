"""The first block as one kernel each way, for NVIDIA GPUs: Pallas, by its Triton compiler.

The forward kernel reads a volume and writes the selected pre-activations, their offsets (a byte
each) and sums for the moments. The backward kernel computes the pre-activation again. At full
resolution nothing is written but the volume itself, with zeros around it.

A program takes blocks of windows, in the order of an array of windows, and eight filters. Triton
knows arrays whose sizes are powers of two, and loads by index: a window and the 4 x 4 x 4 voxels
that its eight outputs depend on are read by one index a voxel. Forward every output sums its 27
taps in one order, so that equal neighbourhoods tie to the last bit. On the way back, which decides
no tie, the eight outputs of windows are the product of two matrices, 64 voxels by 64 (place in the
window, filter), which tensor cores compute; and so is the kernel's gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from math import ceil, prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, ShapeDtypeStruct, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from mri_jax.models.conv_layer import volume
from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.gradient import Everywhere, Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, of_parts
from mri_jax.models.conv_layer.pooling import OFFSETS, Selection, select_first_maximum

FILTERS = 8  # Of a program.
# Windows of a block, forward and back: as many as leave an H100's registers enough.
_FORWARD, _BACKWARD = 128, 64
_PROGRAMS = 256  # At most so many share a volume on the way back, each with a sum of its own.
_PATCH = tuple(product(range(4), repeat=3))  # The voxels of a window's outputs.
_COMPILER = pltriton.CompilerParams(num_warps=4, num_stages=1)


@dataclass(frozen=True)
class _Cut:
    """How volumes are cut into windows of 2 x 2 x 2 voxels; the last of an odd axis is not whole.

    Attributes:
      size: (X, Y, Z) of a volume.
      block: Windows of a block.
    """

    size: tuple[int, int, int]
    block: int

    @property
    def windows(self) -> tuple[int, int, int]:
        """Returns the windows along each axis."""
        x, y, z = self.size
        return ceil(x / 2), ceil(y / 2), ceil(z / 2)

    @property
    def whole(self) -> tuple[int, int, int]:
        """Returns the whole windows along each axis."""
        x, y, z = self.size
        return x // 2, y // 2, z // 2

    @property
    def padded(self) -> tuple[int, int, int]:
        """Returns the size of a volume with the zeros that its windows' outputs read."""
        x, y, z = self.windows
        return 2 * x + 2, 2 * y + 2, 2 * z + 2

    @property
    def blocks(self) -> int:
        """Returns the blocks of a volume."""
        return ceil(prod(self.windows) / self.block)

    @property
    def voxels(self) -> np.ndarray:
        """Returns how many voxels of the volume each block has."""
        pairs = zip(self.size, self.windows, strict=True)
        along = [np.minimum(2, size - 2 * np.arange(count)) for size, count in pairs]
        of_windows = np.einsum("i,j,k->ijk", *along).ravel()
        return np.add.reduceat(of_windows, np.arange(0, len(of_windows), self.block))


def fits(x: Features, kernel: Array, *, pool: bool) -> bool:
    """Returns whether a layer is one that the kernels compute: a first block of 8k filters.

    Its numbers are counted in 32 bits, and float64 is not for these kernels.
    """
    first = pool and x.value.shape[-1] == 1 and x.norm is None
    n, *size, _ = x.value.shape
    numbers = n * kernel.shape[-1] * prod(_Cut((size[0], size[1], size[2]), _FORWARD).padded)
    known = kernel.shape[-1] % FILTERS == 0 and x.value.dtype != jnp.float64
    return first and known and numbers < 2**31


def forward(
    x: Features,
    kernel: Array,
    sign: Array,
    *,
    pool: bool,
    with_moments: bool,
    keep_z: bool,
    interpret: bool = False,
) -> tuple[Selection, Moments | None, Array | None]:
    """Returns what `forms.Forward` holds; see `forms.forward`.

    The layer is one that `fits`. ``interpret`` runs the kernel without a GPU, slowly.
    """
    assert pool
    assert not keep_z  # A first block keeps none.
    n, *size, _ = x.value.shape
    cut, filters = _Cut((size[0], size[1], size[2]), _FORWARD), kernel.shape[-1]
    wide = jnp.promote_types(x.value.dtype, jnp.float32)
    chosen = n * filters * prod(cut.whole)
    sums = [ShapeDtypeStruct((n * cut.blocks * filters,), wide)] * (2 if with_moments else 0)
    value, offset, *found = pl.pallas_call(
        partial(_forward_kernel, cut=cut, filters=filters),
        [ShapeDtypeStruct((chosen,), x.value.dtype), ShapeDtypeStruct((chosen,), jnp.int8), *sums],
        grid=(cut.blocks, n, filters // FILTERS),
        interpret=interpret,
        compiler_params=_COMPILER,
        name="first_block_forward",
    )(
        _padded(x.value, cut),
        kernel.astype(wide).ravel(),
        sign.astype(wide),
        jnp.asarray(cut.voxels, wide),
    )

    def shaped(numbers: Array) -> Array:
        return jnp.moveaxis(numbers.reshape(n, filters, *cut.whole), 1, -1)

    moments = None
    if with_moments:
        moments = of_parts(cut.voxels, *(of.reshape(n, filters, cut.blocks) for of in found))
    return Selection(shaped(value), shaped(offset)), moments, None


def gradients(
    x: Features,
    kernel: Array,
    given: PreActivationGradient,
    *,
    pool: bool,
    for_input: bool,
    for_kernel: bool,
    interpret: bool = False,
) -> Gradients:
    """Returns what `forms.backward` does, of a layer that `fits`; the input's as `volume` does."""
    of_input = volume.gradients(
        x, kernel, given, pool=pool, for_input=for_input, for_kernel=False
    ).x
    if not for_kernel:
        return Gradients(of_input, None)
    n, *size, _ = x.value.shape
    cut, filters = _Cut((size[0], size[1], size[2]), _BACKWARD), kernel.shape[-1]
    groups = filters // FILTERS
    wide = jnp.promote_types(x.value.dtype, jnp.float32)
    everywhere = given.everywhere
    if everywhere is None:
        everywhere = Everywhere(*[jnp.zeros((n, filters), wide)] * 2)
    programs = ceil(cut.blocks / ceil(cut.blocks / _PROGRAMS))
    side = len(_PATCH)
    sums = pl.pallas_call(
        partial(_backward_kernel, cut=cut, filters=filters, programs=programs),
        ShapeDtypeStruct((n * programs * groups * side * side,), wide),
        grid=(programs, n, groups),
        interpret=interpret,
        compiler_params=_COMPILER,
        name="first_block_backward",
    )(
        _padded(x.value, cut),
        _as_matrices(kernel).ravel(),
        jnp.moveaxis(given.selected, -1, 1).ravel(),
        jnp.moveaxis(given.offset, -1, 1).ravel(),
        *(of.astype(wide).ravel() for of in everywhere),
    )
    sums = sums.reshape(-1, groups, side, len(OFFSETS), FILTERS).sum(0)
    return Gradients(of_input, _of_taps(sums).reshape(kernel.shape).astype(kernel.dtype))


def _padded(maps: Array, cut: _Cut) -> Array:
    """Returns the numbers of volumes, (N, X, Y, Z, 1), with the zeros that windows read."""
    behind = [p - s - 1 for p, s in zip(cut.padded, cut.size, strict=True)]
    padded = jnp.pad(maps[..., 0], [(0, 0), *((1, b) for b in behind)])
    # Behind a barrier: both passes read one array.
    return lax.optimization_barrier(padded).ravel()


def _tap(voxel: int, place: int) -> int | None:
    """Returns by which of 27 taps a place in the window reads a voxel of the patch, if at all."""
    along = [a - o for a, o in zip(_PATCH[voxel], OFFSETS[place], strict=True)]
    return int(np.dot(along, (9, 3, 1))) if all(0 <= tap < 3 for tap in along) else None


_TAPS = [[_tap(voxel, place) for place in range(8)] for voxel in range(64)]


def _as_matrices(kernel: Array) -> Array:
    """Returns the kernel as matrices, (groups, voxels of a patch, places x filters of a group)."""
    by_group = jnp.moveaxis(kernel.reshape(27, -1, FILTERS), 0, 1)
    read = np.array([[tap is not None for tap in taps] for taps in _TAPS])
    taps = np.array([[tap or 0 for tap in taps] for taps in _TAPS])
    return jnp.where(read[..., None], by_group[:, taps], 0)


def _of_taps(sums: Array) -> Array:
    """Returns the transpose of `_as_matrices`, (27, F) of (groups, 64, 8, filters of a group)."""
    pairs = [
        [(v, p) for p in range(8) for v in range(64) if _TAPS[v][p] == tap] for tap in range(27)
    ]
    voxels, places = np.moveaxis(np.array(pairs), 2, 0)
    return jnp.moveaxis(sums[:, voxels, places].sum(2), 0, 1).reshape(27, -1)


def _windows(cut: _Cut, block: Array) -> tuple[Array, list[Array]]:
    """Returns whether there are the windows of a block, and their place along each axis."""
    _, y, z = cut.windows
    asked = block * cut.block + lax.iota(jnp.int32, cut.block)
    window = jnp.minimum(asked, prod(cut.windows) - 1)
    row, at_z = _split(window, z)
    return asked < prod(cut.windows), [*_split(row, y), at_z]


def _split(numbers: Array, size: int) -> tuple[Array, Array]:
    """Returns quotient and remainder of numbers that are not negative."""
    by = np.int32(size)
    return lax.div(numbers, by), lax.rem(numbers, by)


def _selected(cut: _Cut, of: Array, at: list[Array], there: Array) -> tuple[Array, Array]:
    """Returns where what windows select stands, of each filter and volume, and whether it is.

    What is not stands behind all that is: the interpreter would write what it read there.

    Args:
      cut: The windows.
      of: (1, filters) places of filters, volume by volume.
      at: The windows' places.
      there: Whether there are such windows.
    """
    x, y, z = cut.whole
    whole = reduce(jnp.logical_and, (a < s for a, s in zip(at, cut.whole, strict=True)), there)
    to = of * (x * y * z) + ((at[0] * y + at[1]) * z + at[2])[:, None]
    return jnp.where(whole[:, None], to, 2**31 - 1), whole[:, None]


def _inside(cut: _Cut, at: list[Array], place: Sequence[Any], there: Array) -> Array:
    """Returns whether the voxels at a place in windows are in the volume."""
    along = (2 * a + p < size for a, p, size in zip(at, place, cut.size, strict=True))
    return reduce(jnp.logical_and, along, there)


def _first_voxels(cut: _Cut, volume: Array, at: list[Array]) -> Array:
    """Returns where the patches of windows begin in the numbers of `_padded`."""
    x, y, z = cut.padded
    return ((volume * x + 2 * at[0]) * y + 2 * at[1]) * z + 2 * at[2]


def _forward_kernel(*refs: Any, cut: _Cut, filters: int) -> None:
    """Selects of a block of windows, and sums up its pre-activations where sums are wanted.

    Args:
      refs: References to volumes, the kernel's taps, signs, the voxels of blocks; to what is
        selected and its offsets; and where sums are wanted, to the sums of blocks and the squared
        distances from their mean.
      cut: The windows.
      filters: F.
    """
    x, kernel, sign, voxels, value, offset, *sums = refs
    block, n, group = (pl.program_id(axis) for axis in range(3))
    of = group * FILTERS + lax.iota(jnp.int32, FILTERS)
    there, at = _windows(cut, block)
    first = _first_voxels(cut, n, at)
    _, y, z = cut.padded
    taps = [pltriton.load(kernel.at[tap * filters + of])[None] for tap in range(27)]
    places = [jnp.zeros((cut.block, FILTERS), kernel.dtype)] * len(OFFSETS)
    for voxel, (i, j, k) in enumerate(_PATCH):
        numbers = pltriton.load(x.at[first + ((i * y + j) * z + k)]).astype(kernel.dtype)[:, None]
        for place, tap in enumerate(_TAPS[voxel]):
            if tap is not None:
                places[place] = places[place] + numbers * taps[tap]
    selection = select_first_maximum(places, pltriton.load(sign.at[of])[None])
    to, whole = _selected(cut, (n * filters + of)[None], at, there)
    pltriton.store(value.at[to], selection.value.astype(value.dtype), mask=whole)
    pltriton.store(offset.at[to], selection.offset, mask=whole)
    if sums:
        inside = [_inside(cut, at, place, there)[:, None] for place in OFFSETS]

        def total(numbers: list[Array]) -> Array:
            within = (jnp.where(i, n, 0) for i, n in zip(inside, numbers, strict=True))
            return reduce(jnp.add, within).sum(0)

        summed = total(places)
        mean = (summed / pltriton.load(voxels.at[block]))[None]
        squares = total([jnp.square(of_place - mean) for of_place in places])
        to = (n * filters + of) * cut.blocks + block
        for ref, found in zip(sums, (summed, squares), strict=True):
            pltriton.store(ref.at[to], found)


def _backward_kernel(*refs: Any, cut: _Cut, filters: int, programs: int) -> None:
    """Sums up a kernel's gradient over every ``programs``-th block of windows, from the program's.

    Args:
      refs: References to volumes, kernel as matrices, selected gradients, offsets, the constant and
        the slope of `gradient.Everywhere`; and to the sums, (64, 64) of each program.
      cut: The windows.
      filters: F.
      programs: How many share a volume.
    """
    x, matrices, selected, offset, constant, slope, sums = refs
    program, n, group = (pl.program_id(axis) for axis in range(3))
    side = len(_PATCH)
    lane = lax.iota(jnp.int32, side)
    _, y, z = cut.padded
    # A lane is a voxel of the patch, or a place in the window and a filter.
    i, plane = _split(lane, 16)
    j, k = _split(plane, 4)
    voxel = (i * y + j) * z + k
    place, filter_ = _split(lane, FILTERS)
    of = group * FILTERS + filter_
    half, quarter = _split(place, 4)
    within = [half, *_split(quarter, 2)]
    square = lane[:, None] * side + lane[None]
    weights = pltriton.load(matrices.at[group * side * side + square])
    added, factor = (pltriton.load(ref.at[n * filters + of])[None] for ref in (constant, slope))
    multiply = partial(lax.dot_general, preferred_element_type=sums.dtype)

    def add(step: Array, total: Array) -> Array:
        block = step * programs + program
        there, at = _windows(cut, block)
        patch = pltriton.load(x.at[_first_voxels(cut, n, at)[:, None] + voxel[None]])
        z = multiply(patch, weights, (((1,), (0,)), ((), ())))
        inside = _inside(cut, [a[:, None] for a in at], within, there[:, None])
        to, whole = _selected(cut, (n * filters + of)[None], at, there)
        given = pltriton.load(selected.at[to], mask=whole, other=0).astype(sums.dtype)
        stands = pltriton.load(offset.at[to], mask=whole, other=-1).astype(jnp.int32)
        dz = jnp.where(stands == place[None], given, 0)
        dz = dz + jnp.where(inside, added + factor * z, 0)
        return total + multiply(patch, dz.astype(patch.dtype), (((0,), (0,)), ((), ())))

    steps = ceil(cut.blocks / programs)
    total = lax.fori_loop(np.int32(0), np.int32(steps), add, jnp.zeros((side, side), sums.dtype))
    to = ((n * programs + program) * (filters // FILTERS) + group) * side * side
    pltriton.store(sums.at[to + square], total)
