"""A first layer that is not pooled, by kernels for NVIDIA GPUs: Pallas, by its Triton compiler.

With one channel the pre-activation is cheaper to compute than to read. One kernel sums up its
moments, another, which knows them, writes the maps after BatchNorm and ReLU, and on the way back a
third reads the gradient of the maps. The pre-activation itself is written by none.

A program takes blocks of voxels and eight filters. The 27 voxels around each, filled up to 32 taps,
times the filters, filled up to 16, are a matrix product, which tensor cores compute.
"""

from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, ShapeDtypeStruct, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from mri_jax.models.conv_layer.arguments import Features, Norm
from mri_jax.models.conv_layer.gradient import Everywhere
from mri_jax.models.conv_layer.moments import Moments, of_parts

FILTERS = 8  # Of a program.
_TAPS, _LANES = 32, 16  # Of a program's matrices.
_BLOCK = 128  # Voxels of a block.
_PROGRAMS = 1024  # At most so many share a volume on the way back, each with sums of its own.
_COMPILER = pltriton.CompilerParams(num_warps=4, num_stages=1)


@dataclass(frozen=True)
class _Cut:
    """How volumes are cut into blocks of voxels, in the order of an array.

    Attributes:
      size: (X, Y, Z) of a volume.
    """

    size: tuple[int, int, int]

    @property
    def padded(self) -> tuple[int, int, int]:
        """Returns the size of a volume with a plane of zeros on each side."""
        x, y, z = self.size
        return x + 2, y + 2, z + 2

    @property
    def blocks(self) -> int:
        """Returns the blocks of a volume."""
        return ceil(prod(self.size) / _BLOCK)

    @property
    def voxels(self) -> np.ndarray:
        """Returns how many voxels each block has."""
        return np.minimum(_BLOCK, prod(self.size) - _BLOCK * np.arange(self.blocks))


def fits(x: Features, kernel: Array, *, pool: bool) -> bool:
    """Returns whether a layer is one that the kernels compute: a first one of 8k filters, unpooled.

    Its numbers are counted in 32 bits, and float64 is not for these kernels.
    """
    first = not pool and x.value.shape[-1] == 1 and x.norm is None
    n, *size, _ = x.value.shape
    numbers = n * kernel.shape[-1] * prod(_Cut((size[0], size[1], size[2])).padded)
    known = kernel.shape[-1] % FILTERS == 0 and x.value.dtype != jnp.float64
    return first and known and numbers < 2**31


def moments(x: Array, kernel: Array, *, interpret: bool = False) -> Moments:
    """Returns the moments of the pre-activation in each volume, (N, F).

    Args:
      x: (N, X, Y, Z, 1).
      kernel: (3, 3, 3, 1, F), same dtype.
      interpret: Run the kernel without a GPU, slowly.
    """
    call = _Call(x, kernel, interpret)
    n, cut, filters, wide = call.volumes, call.cut, call.filters, call.wide
    sums = call(
        _moments_kernel,
        [ShapeDtypeStruct((n * filters * cut.blocks,), wide)] * 2,
        (cut.blocks, n, filters // FILTERS),
        jnp.asarray(cut.voxels, wide),
    )
    return of_parts(cut.voxels, *(of.reshape(n, filters, cut.blocks) for of in sums))


def maps(x: Array, kernel: Array, norm: Norm, *, interpret: bool = False) -> Array:
    """Returns the maps after BatchNorm and ReLU, (N, X, Y, Z, F); see `moments`."""
    call = _Call(x, kernel, interpret)
    n, cut, filters = call.volumes, call.cut, call.filters
    (found,) = call(
        _maps_kernel,
        [ShapeDtypeStruct((n * filters * prod(cut.size),), x.dtype)],
        (cut.blocks, n, filters // FILTERS),
        *(of.astype(call.wide) for of in norm),
    )
    return jnp.moveaxis(found.reshape(n, filters, *cut.size), 1, -1)


def maps_gradient(
    x: Array, kernel: Array, norm: Norm, given: Array, *, interpret: bool = False
) -> tuple[Array, Norm]:
    """Returns the gradients of kernel and norm, given that of the maps; see `maps`."""
    call = _Call(x, kernel, interpret)
    of_taps, *of_norm = call.backward(
        _maps_gradient_kernel,
        (_TAPS, 1, 1),
        *(of.astype(call.wide) for of in norm),
        jnp.moveaxis(given, -1, 1).ravel(),
    )
    of_bias, of_factor = (of[0] for of in of_norm)
    return call.of_kernel(of_taps), Norm(-norm.factor * of_bias, of_factor, of_bias)


def moments_gradient(
    x: Array, kernel: Array, everywhere: Everywhere, *, interpret: bool = False
) -> Array:
    """Returns the gradient of the kernel, given that of the pre-activation; see `moments`."""
    call = _Call(x, kernel, interpret)
    (of_taps,) = call.backward(
        _moments_gradient_kernel, (_TAPS,), *(of.astype(call.wide).ravel() for of in everywhere)
    )
    return call.of_kernel(of_taps)


class _Call:
    """Calls kernels on volumes.

    Args:
      x: (N, X, Y, Z, 1).
      kernel: (3, 3, 3, 1, F).
      interpret: As in `moments`.
    """

    def __init__(self, x: Array, kernel: Array, interpret: bool):
        self.volumes, *size, _ = x.shape
        self.cut, self.filters = _Cut((size[0], size[1], size[2])), kernel.shape[-1]
        self.wide = jnp.promote_types(x.dtype, jnp.float32)
        self._interpret, self._kernel = interpret, kernel
        # Behind a barrier: all kernels read one array.
        self._x = lax.optimization_barrier(jnp.pad(x[..., 0], [(0, 0), *[(1, 1)] * 3])).ravel()
        taps = jnp.moveaxis(kernel.reshape(27, -1, FILTERS), 1, 0)
        self._taps = jnp.pad(taps, [(0, 0), (0, _TAPS - 27), (0, _LANES - FILTERS)]).ravel()

    def __call__(
        self, kernel: Any, made: list[Any], grid: tuple[int, int, int], *given: Any
    ) -> Any:
        """Returns what a kernel makes of volumes, taps and what else it is given."""
        return pl.pallas_call(
            partial(kernel, cut=self.cut, filters=self.filters),
            made,
            grid=grid,
            interpret=self._interpret,
            compiler_params=_COMPILER,
            name=kernel.__name__.strip("_"),
        )(self._x, self._taps, *given)

    def backward(self, kernel: Any, rows: tuple[int, ...], *given: Any) -> list[Array]:
        """Returns sums over all voxels of all volumes, (rows, F) each."""
        groups = self.filters // FILTERS
        programs = ceil(self.cut.blocks / ceil(self.cut.blocks / _PROGRAMS))
        shapes = [(self.volumes * programs, groups, count, _LANES) for count in rows]
        made = [ShapeDtypeStruct((prod(shape),), self.wide) for shape in shapes]
        run = partial(kernel, programs=programs)
        run.__name__ = kernel.__name__  # type: ignore[attr-defined]
        sums = self(run, made, (programs, self.volumes, groups), *given)
        return [
            jnp.moveaxis(of.reshape(shape).sum(0)[..., :FILTERS], 0, 1).reshape(shape[2], -1)
            for of, shape in zip(sums, shapes, strict=True)
        ]

    def of_kernel(self, of_taps: Array) -> Array:
        """Returns the gradient of the kernel from that of its taps, (32, F)."""
        return of_taps[:27].reshape(self._kernel.shape).astype(self._kernel.dtype)


@dataclass(frozen=True)
class _Block:
    """A block of voxels of a volume, inside a kernel, with a group of filters.

    Attributes:
      there: (voxels, 1) whether there are such voxels.
      place: (voxels, lanes) where the numbers of voxels and filters stand.
      known: (voxels, lanes) whether there are such numbers.
      patch: (voxels, taps) the voxels around each; zeros around those that are not.
      z: (voxels, lanes) the pre-activation.
    """

    there: Array
    place: Array
    known: Array
    patch: Array
    z: Array


def _filters(group: Array) -> tuple[Array, Array]:
    """Returns the filters of a program's lanes, and which lanes have one."""
    lane = lax.iota(jnp.int32, _LANES)
    return group * FILTERS + jnp.minimum(lane, FILTERS - 1), lane < FILTERS


def _block(x: Any, taps: Any, cut: _Cut, filters: int, at: tuple[Array, Array, Array]) -> _Block:
    """Returns a block, with its pre-activation.

    Args:
      x: Reference to volumes.
      taps: Reference to the matrices of taps.
      cut: How volumes are cut.
      filters: F.
      at: Number of the block, of the volume, and of the group of filters.
    """
    block, volume, group = at
    asked = block * _BLOCK + lax.iota(jnp.int32, _BLOCK)
    there = (asked < prod(cut.size))[:, None]
    voxel = jnp.minimum(asked, prod(cut.size) - 1)
    row, k = _split(voxel, cut.size[2])
    i, j = _split(row, cut.size[1])
    _, y, z = cut.padded
    first = ((volume * cut.padded[0] + i) * y + j) * z + k
    tap = jnp.minimum(lax.iota(jnp.int32, _TAPS), 26)
    plane, rest = _split(tap, 9)
    line, along = _split(rest, 3)
    patch = pltriton.load(x.at[first[:, None] + ((plane * y + line) * z + along)[None]])
    matrix = lax.iota(jnp.int32, _TAPS)[:, None] * _LANES + lax.iota(jnp.int32, _LANES)[None]
    weights = pltriton.load(taps.at[group * _TAPS * _LANES + matrix])
    of, lanes = _filters(group)
    place = (volume * filters + of)[None] * prod(cut.size) + voxel[:, None]
    wide = jnp.promote_types(patch.dtype, jnp.float32)
    multiplied = lax.dot_general(
        patch, weights, (((1,), (0,)), ((), ())), preferred_element_type=wide
    )
    return _Block(there, place, there & lanes[None], patch, multiplied)


def _split(numbers: Array, size: int) -> tuple[Array, Array]:
    """Returns quotient and remainder of numbers that are not negative."""
    by = np.int32(size)
    return lax.div(numbers, by), lax.rem(numbers, by)


def _moments_kernel(*refs: Any, cut: _Cut, filters: int) -> None:
    """Sums up the pre-activations of a block, and the squared distances from their mean.

    Args:
      refs: References to volumes, taps, the voxels of blocks; to the sums.
      cut: How volumes are cut.
      filters: F.
    """
    x, taps, voxels, *sums = refs
    block, volume, group = (pl.program_id(axis) for axis in range(3))
    found = _block(x, taps, cut, filters, (block, volume, group))
    summed = jnp.where(found.there, found.z, 0).sum(0)
    mean = (summed / pltriton.load(voxels.at[block]))[None]
    squares = jnp.where(found.there, jnp.square(found.z - mean), 0).sum(0)
    of, lanes = _filters(group)
    to = jnp.where(lanes, (volume * filters + of) * cut.blocks + block, 2**31 - 1)
    for ref, numbers in zip(sums, (summed, squares), strict=True):
        pltriton.store(ref.at[to], numbers, mask=lanes)


def _normalised(found: _Block, norm: list[Array]) -> tuple[Array, Array]:
    """Returns distances from the mean, and the maps before ReLU."""
    mean, factor, bias = norm
    rest = found.z - mean
    return rest, factor * rest + bias


def _maps_kernel(*refs: Any, cut: _Cut, filters: int) -> None:
    """Writes the maps of a block.

    Args:
      refs: References to volumes, taps, mean, factor and bias; to the maps.
      cut: How volumes are cut.
      filters: F.
    """
    x, taps, *norm, made = refs
    at = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    found = _block(x, taps, cut, filters, at)
    of, _ = _filters(at[2])
    _, before = _normalised(found, [pltriton.load(ref.at[of])[None] for ref in norm])
    to = jnp.where(found.known, found.place, 2**31 - 1)
    pltriton.store(made.at[to], jnp.maximum(before, 0).astype(made.dtype), mask=found.known)


def _maps_gradient_kernel(*refs: Any, cut: _Cut, filters: int, programs: int) -> None:
    """Sums up the gradients of taps, bias and factor over every ``programs``-th block.

    Args:
      refs: References to volumes, taps, mean, factor, bias, the gradient of the maps; to the sums.
      cut: How volumes are cut.
      filters: F.
      programs: How many share a volume.
    """
    x, taps, *norm_refs, given, of_taps, of_bias, of_factor = refs
    program, volume, group = (pl.program_id(axis) for axis in range(3))
    of, _ = _filters(group)
    norm = [pltriton.load(ref.at[of])[None] for ref in norm_refs]

    def add(step: Array, totals: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        found = _block(x, taps, cut, filters, (step * programs + program, volume, group))
        rest, before = _normalised(found, norm)
        to = jnp.where(found.known, found.place, 2**31 - 1)
        gradient = pltriton.load(given.at[to], mask=found.known, other=0).astype(before.dtype)
        gradient = jnp.where(before > 0, gradient, 0)
        return (
            totals[0] + _of_taps(found, norm[1] * gradient),
            totals[1] + gradient.sum(0),
            totals[2] + (gradient * rest).sum(0),
        )

    zeros = [jnp.zeros(shape, of_taps.dtype) for shape in ((_TAPS, _LANES), _LANES, _LANES)]
    steps = np.int32(ceil(cut.blocks / programs))
    totals = lax.fori_loop(np.int32(0), steps, add, tuple(zeros))
    _store_sums(
        (of_taps, of_bias, of_factor), totals, (volume * programs + program, group), filters
    )


def _moments_gradient_kernel(*refs: Any, cut: _Cut, filters: int, programs: int) -> None:
    """Sums up the gradient of taps over every ``programs``-th block.

    Args:
      refs: References to volumes, taps, the constant and the slope of `gradient.Everywhere`; to the
        sums.
      cut: How volumes are cut.
      filters: F.
      programs: How many share a volume.
    """
    x, taps, constant, slope, of_taps = refs
    program, volume, group = (pl.program_id(axis) for axis in range(3))
    of, _ = _filters(group)
    added, factor = (pltriton.load(r.at[volume * filters + of])[None] for r in (constant, slope))

    def add(step: Array, total: Array) -> Array:
        found = _block(x, taps, cut, filters, (step * programs + program, volume, group))
        return total + _of_taps(found, jnp.where(found.there, added + factor * found.z, 0))

    total = jnp.zeros((_TAPS, _LANES), of_taps.dtype)
    steps = np.int32(ceil(cut.blocks / programs))
    total = lax.fori_loop(np.int32(0), steps, add, total)
    _store_sums((of_taps,), (total,), (volume * programs + program, group), filters)


def _of_taps(found: _Block, dz: Array) -> Array:
    """Returns what a block adds to the gradient of taps, (taps, lanes).

    In float32: what is the same all over the background would be rounded the same way.
    """
    return lax.dot_general(
        found.patch.astype(dz.dtype),
        dz,
        (((0,), (0,)), ((), ())),
        preferred_element_type=dz.dtype,
    )


def _store_sums(
    refs: tuple[Any, ...], totals: tuple[Array, ...], at: tuple[Array, Array], filters: int
) -> None:
    """Writes a program's sums, (rows, lanes) or (lanes,) each."""
    program, group = at
    lane = lax.iota(jnp.int32, _LANES)
    for ref, total in zip(refs, totals, strict=True):
        rows = _TAPS if total.ndim == 2 else 1
        to = (program * (filters // FILTERS) + group) * rows * _LANES + lane
        if total.ndim == 2:
            to = lax.iota(jnp.int32, _TAPS)[:, None] * _LANES + to[None]
        pltriton.store(ref.at[to], total)
