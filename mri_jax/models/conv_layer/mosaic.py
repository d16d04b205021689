"""The first block as one kernel each way, for TPUs: Pallas, by its Mosaic compiler.

A volume is cut into windows of 2 x 2 x 2 voxels, and what stands at one place of them is an array
whose Y lies along sublanes and whose Z lies along lanes. A program takes the windows of one X: the
4 x 4 x 4 voxels that a window's eight outputs depend on are then 64 such arrays, each a slice that
is shifted by one at most, and an output is the sum of 27 of them, times a number each. Every output
sums its taps in one order, so that equal neighbourhoods tie to the last bit. The way back computes
the outputs again.
"""

from collections.abc import Callable
from functools import partial, reduce
from itertools import product
from math import ceil
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, ShapeDtypeStruct, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mri_jax.models.conv_layer import lanes
from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.gradient import Everywhere, Gradients, PreActivationGradient
from mri_jax.models.conv_layer.moments import Moments, of_parts
from mri_jax.models.conv_layer.pooling import OFFSETS, Selection, select_first_maximum

Size = tuple[int, int, int]

_TAPS = tuple(product(range(3), repeat=3))
_PATCH = tuple(product(range(4), repeat=3))
_MOST_NUMBERS = 2**15  # Of an array, in whole registers: 8 MiB in 64 of them.


def fits(x: Features, kernel: Array, *, pool: bool) -> bool:
    """Returns whether a layer is one that the kernels compute: a first block.

    Its patch, 64 arrays in float32, must leave room in a core's memory of 16 MiB.
    """
    first = pool and x.value.shape[-1] == 1 and x.norm is None
    _, *size, _ = x.value.shape
    _, rows, columns = _windows((size[0], size[1], size[2]))
    small = ceil(rows / 8) * 8 * ceil(columns / 128) * 128 <= _MOST_NUMBERS
    return first and small and x.value.dtype != jnp.float64


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

    The layer is one that `fits`. ``interpret`` runs the kernel without a TPU, slowly.
    """
    assert pool
    assert not keep_z  # A first block keeps none.
    n, *of, _ = x.value.shape
    size, filters = (of[0], of[1], of[2]), kernel.shape[-1]
    wide = jnp.promote_types(x.value.dtype, jnp.float32)
    a, b, c = _windows(size)
    chosen, row = (n, a, filters, b, c), (n, a, filters, 1, c)
    shapes = [ShapeDtypeStruct(chosen, x.value.dtype), ShapeDtypeStruct(chosen, jnp.int8)]
    shapes += [ShapeDtypeStruct(row, wide)] * 2
    value, offset, sums, squares = pl.pallas_call(
        partial(_forward_kernel, size=size),
        shapes,
        grid=(n, a),
        in_specs=[_numbers(), _numbers(), *_volumes(size)],
        out_specs=[_of_program(shape.shape) for shape in shapes],
        scratch_shapes=[pltpu.VMEM((len(_PATCH), b, c), wide)],
        interpret=interpret,
        name="first_block_forward",
    )(kernel.astype(wide).reshape(27, filters), sign.astype(wide), *[_parted(x.value)] * 2)

    def shaped(windows: Array) -> Array:
        halves = (s // 2 for s in size)
        return jnp.moveaxis(windows, 2, -1)[(slice(None), *map(slice, halves))]

    moments = None
    if with_moments:
        parts = (jnp.moveaxis(of, 2, 1).reshape(n, filters, -1) for of in (sums, squares))
        moments = of_parts(_voxels(size), *parts)
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
    """Returns what `forms.backward` does, of a layer that `fits`; the input's as `lanes` does."""
    of_input = lanes.gradients(x, kernel, given, pool=pool, for_input=for_input, for_kernel=False).x
    if not for_kernel:
        return Gradients(of_input, None)
    n, *of, _ = x.value.shape
    size, filters = (of[0], of[1], of[2]), kernel.shape[-1]
    wide = jnp.promote_types(x.value.dtype, jnp.float32)
    a, b, c = _windows(size)
    everywhere = given.everywhere
    if everywhere is None:
        everywhere = Everywhere(*[jnp.zeros((n, filters), wide)] * 2)

    def windows(maps: Array) -> Array:
        behind = [(0, 0), *((0, w - s // 2) for w, s in zip((a, b, c), size, strict=True)), (0, 0)]
        return jnp.moveaxis(jnp.pad(maps, behind), -1, 2)

    chosen = _of_program((n, a, filters, b, c))
    sums = pl.pallas_call(
        partial(_backward_kernel, size=size),
        ShapeDtypeStruct((n, filters, 27, c), wide),
        grid=(n, a),
        in_specs=[_numbers(), _numbers(), _numbers(), *_volumes(size), chosen, chosen],
        # The programs of a volume add to one block.
        out_specs=pl.BlockSpec((1, filters, 27, c), lambda volume, at: (volume, 0, 0, 0)),
        scratch_shapes=[pltpu.VMEM((len(_PATCH), b, c), wide)],
        interpret=interpret,
        name="first_block_backward",
    )(
        kernel.astype(wide).reshape(27, filters),
        *(of.astype(wide) for of in everywhere),
        *[_parted(x.value)] * 2,
        windows(given.selected),
        windows(given.offset),
    )
    dk = sums.sum((0, 3)).T.reshape(kernel.shape).astype(kernel.dtype)
    return Gradients(of_input, dk)


def _windows(size: Size) -> Size:
    """Returns the windows along each axis; the last of an odd axis is not whole."""
    x, y, z = size
    return -(-x // 2), -(-y // 2), -(-z // 2)


def _parted(maps: Array) -> Array:
    """Returns volumes with zeros around, place by place: (N, X', 2, 2, 2, Y', Z')."""
    n, *size, _ = maps.shape
    counts = [w + 1 for w in _windows((size[0], size[1], size[2]))]
    around = [(1, 2 * w - s - 1) for w, s in zip(counts, size, strict=True)]
    padded = jnp.pad(maps[..., 0], [(0, 0), *around])
    parts = [padded[:, i::2, j::2, k::2] for i, j, k in OFFSETS]
    # Behind a barrier: both passes read one array.
    return lax.optimization_barrier(jnp.stack(parts, 2).reshape(n, counts[0], 2, 2, 2, *counts[1:]))


def _numbers() -> pl.BlockSpec:
    return pl.BlockSpec(memory_space=pltpu.SMEM)


def _volumes(size: Size) -> list[pl.BlockSpec]:
    """Returns the two pairs of planes that the windows of an X read."""
    _, y, z = (w + 1 for w in _windows(size))
    shape = (1, 1, 2, 2, 2, y, z)
    return [
        pl.BlockSpec(shape, lambda volume, at, pair=pair: (volume, at + pair, 0, 0, 0, 0, 0))
        for pair in range(2)
    ]


def _of_program(shape: tuple[int, ...]) -> pl.BlockSpec:
    return pl.BlockSpec((1, 1, *shape[2:]), lambda volume, at: (volume, at, 0, 0, 0))


def _voxels(size: Size) -> np.ndarray:
    """Returns how many voxels of a volume are in each part that is summed along Y, (X' x Z',)."""
    a, _, c = _windows(size)
    of_x, of_z = (np.minimum(2, s - 2 * np.arange(w)) for s, w in ((size[0], a), (size[2], c)))
    return np.outer(of_x, of_z).ravel() * size[1]


def _begin(low: Any, high: Any, patch: Any, size: Size) -> list[Array]:
    """Writes the 64 arrays of a patch, and returns which voxels of each place are in the volume."""
    _, y, z = _windows(size)
    for voxel, (i, j, k) in enumerate(_PATCH):
        of = (0, 0, i % 2, j % 2, k % 2, pl.ds(j // 2, y), pl.ds(k // 2, z))
        patch[voxel] = (high if i // 2 else low)[of].astype(patch.dtype)
    at = [pl.program_id(1), *(lax.broadcasted_iota(jnp.int32, (y, z), axis) for axis in (0, 1))]
    return [
        reduce(jnp.logical_and, (2 * a + p < s for a, p, s in zip(at, place, size, strict=True)))
        for place in OFFSETS
    ]


def _reads(place: tuple[int, ...], tap: tuple[int, ...]) -> int:
    """Returns which voxel of the patch a place reads by a tap."""
    return int(np.dot(np.add(place, tap), (16, 4, 1)))


def _pre_activations(kernel: Any, patch: Any, of: Array) -> list[Array]:
    """Returns the pre-activation of a filter at each of the eight places."""
    return [
        reduce(jnp.add, (kernel[t, of] * patch[_reads(place, tap)] for t, tap in enumerate(_TAPS)))
        for place in OFFSETS
    ]


def _each_filter(filters: int, run: Callable[[Array], None]) -> None:
    def step(of: Array, carry: None) -> None:
        run(of)

    lax.fori_loop(np.int32(0), np.int32(filters), step, None)


def _forward_kernel(*refs: Any, size: Size) -> None:
    """Selects of the windows of an X, and sums up their pre-activations along Y.

    Args:
      refs: References to the kernel's taps, signs, both pairs of planes; to what is selected, its
        offsets, sums and squared distances from their mean; to the patch.
      size: (X, Y, Z) of a volume.
    """
    kernel, sign, low, high, value, offset, sums, squares, patch = refs
    inside = _begin(low, high, patch, size)

    def total(numbers: list[Array]) -> Array:
        within = (jnp.where(i, n, 0) for i, n in zip(inside, numbers, strict=True))
        return reduce(jnp.add, within).sum(0, keepdims=True)

    count = total([jnp.ones(inside[0].shape, patch.dtype)] * len(OFFSETS))

    def of_filter(of: Array) -> None:
        places = _pre_activations(kernel, patch, of)
        selection = select_first_maximum(places, sign[of])
        value[0, 0, of] = selection.value.astype(value.dtype)
        offset[0, 0, of] = selection.offset
        sums[0, 0, of] = summed = total(places)
        squares[0, 0, of] = total([jnp.square(z - summed / count) for z in places])

    _each_filter(value.shape[2], of_filter)


def _backward_kernel(*refs: Any, size: Size) -> None:
    """Adds the windows of an X to the sums of a kernel's gradient, (F, 27, Z') of a volume.

    Args:
      refs: References to the kernel's taps, the constant and the slope of `gradient.Everywhere`,
        both pairs of planes, selected gradients and offsets; to the sums; to the patch.
      size: (X, Y, Z) of a volume.
    """
    kernel, constant, slope, low, high, selected, offset, sums, patch = refs
    inside = _begin(low, high, patch, size)
    volume = pl.program_id(0)

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        sums[...] = jnp.zeros(sums.shape, sums.dtype)

    def of_filter(of: Array) -> None:
        given = selected[0, 0, of].astype(patch.dtype)
        stands = offset[0, 0, of].astype(jnp.int32)
        dz = [
            jnp.where(stands == place, given, 0)
            + jnp.where(inside[place], constant[volume, of] + slope[volume, of] * z, 0)
            for place, z in enumerate(_pre_activations(kernel, patch, of))
        ]
        rows = [
            reduce(
                jnp.add,
                (patch[_reads(place, tap)] * dz[i] for i, place in enumerate(OFFSETS)),
            ).sum(0, keepdims=True)
            for tap in _TAPS
        ]
        sums[0, of] += jnp.concatenate(rows)

    _each_filter(selected.shape[2], of_filter)
