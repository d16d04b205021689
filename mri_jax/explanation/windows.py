"""Occlusion of patches, where the first blocks are computed anew only where a patch reaches.

A 3 x 3 x 3 convolution carries a change one voxel further, pooling halves its extent. So the clean
input of every early layer is kept, the changed window is carried through the layers alone, and is
put into the clean map before the remaining layers, which run on the whole (small) map. Patches
start at multiples of their size, a multiple of the pooling, so that every window has one shape and
all patches share one program. The result is that of `occlusion.drops`, up to rounding.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mri_jax.explanation.occlusion import in_chunks
from mri_jax.explanation.score import ScoredNetwork, difference
from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.chosen import of_layer
from mri_jax.models.conv_layer import (
    Features,
    Moments,
    Parameters,
    Setting,
    conv_layer,
    max_pool,
)
from mri_jax.models.spec import BATCH


@dataclass(frozen=True)
class LayerWindow:
    """What one conv layer computes anew.

    Attributes:
      layer: From 1.
      offset: Start of the changed input, relative to the patch's start at this resolution.
      before: Voxels added before the changed output so that pooling windows are whole.
      output: Edge of the computed output, before pooling.
    """

    layer: int
    offset: int
    before: int
    output: int


def plan_windows(spec: CNNSpec, size: int) -> tuple[LayerWindow, ...]:
    """Returns the layers worth computing in windows: those before pooling halves the patch to 1.

    Args:
      spec: The architecture.
      size: Edge of the patch in voxels.

    Returns:
      A window for each of the first layers, up to a gate, which sees the whole map. There is none
      for a patch of odd size, and none where blocks are residual or a volume is normalised by its
      own statistics: such patches go through the whole network.
    """
    if spec.residual or spec.norm != BATCH:
        return ()
    windows: list[LayerWindow] = []
    whole: tuple[LayerWindow, ...] = ()
    offset, extent, shrink = 0, size, 1
    for layer, pools in enumerate(spec.pool_after, start=1):
        if spec.gate_after[layer - 1]:
            break
        first, last = offset - 1, offset + extent + 1
        before = first % 2 if pools else 0
        after = last % 2 if pools else 0
        output = last + after - (first - before)
        windows.append(LayerWindow(layer, offset, before, output))
        offset, extent = first - before, output
        if pools:
            if size % (2 * shrink):
                break
            whole = tuple(windows)
            offset, extent, shrink = offset // 2, extent // 2, 2 * shrink
            if size == shrink:
                break
    return whole


def patch_drops(
    asked: ScoredNetwork,
    x: np.ndarray,
    fill: np.ndarray,
    starts: np.ndarray,
    size: int,
    chunk: int,
) -> np.ndarray:
    """Returns the score of the volume minus its score with each patch filled.

    Args:
      asked: The network.
      x: (X, Y, Z, C).
      fill: (X, Y, Z, C) what replaces a patch, the mean volume of the cohort.
      starts: (P, 3) first voxels of the patches, multiples of ``size``.
      size: Edge of a patch in voxels.
      chunk: Patches computed together, which bounds the memory.

    Returns:
      (P,) float64; positive where the patch speaks for the positive class.
    """
    network, variables = asked
    inputs, clean = _clean(network, variables, jnp.asarray(x), size)
    filled = _padded(jnp.asarray(fill), _margin(network.spec, size))
    found = [
        np.asarray(_occluded(network, variables, inputs, filled, part, size))
        for part in in_chunks(starts, chunk)
    ]
    return float(clean) - np.concatenate(found)[: len(starts)].astype(np.float64)


def _margin(spec: CNNSpec, size: int) -> int:
    """Returns how far outside a volume a window may reach, in voxels of its layer."""
    ends = [(w.before + 2 - w.offset, w.offset + w.output + 1) for w in plan_windows(spec, size)]
    return max(size, *(reach for pair in ends for reach in pair)) if ends else size


def _padded(volume: Array, margin: int) -> Array:
    """Zeros around a (X, Y, Z, C) volume."""
    return jnp.pad(volume, ((margin, margin),) * 3 + ((0, 0),))


def _unpadded(volume: Array, margin: int) -> Array:
    """Inverse of `_padded`."""
    return volume[tuple(slice(margin, n - margin) for n in volume.shape[:3])]


@partial(jax.jit, static_argnames=("network", "size"))
def _clean(network: CNN, variables: Any, x: Array, size: int) -> tuple[list[Array], Array]:
    """Returns the padded input of every windowed layer, the map after them, and the score."""
    spec = network.spec
    features, inputs = x[None].astype(spec.dtype), []
    count = len(plan_windows(spec, size))
    for layer in range(1, count + 1):
        inputs.append(_padded(features[0], _margin(spec, size)))
        features = network.apply(
            variables, features, train=False, first=layer, last=layer, method="trunk"
        )
    inputs.append(features[0])
    logits = network.apply(variables, features, train=False, first=count + 1)
    return inputs, difference(logits)[0]


@partial(jax.jit, static_argnames=("network", "size"))
def _occluded(
    network: CNN, variables: Any, inputs: list[Array], fill: Array, starts: Array, size: int
) -> Array:
    """Returns (B,) scores with each patch filled."""
    spec = network.spec
    margin, plan = _margin(spec, size), plan_windows(spec, size)
    changed = jax.vmap(lambda start: _cut(fill, start + margin, size))(starts)
    first, shape = starts, tuple(n - 2 * margin for n in fill.shape[:3])
    for window in plan:
        around = partial(_cut, inputs[window.layer - 1], size=window.output + 2)
        lead = 2 + window.before
        context = jax.vmap(around)(first + margin - lead)
        context = lax.dynamic_update_slice(context, changed, (0, lead, lead, lead, 0))
        changed = _conv_layer(network, variables, window.layer, context)
        first = first - 1 - window.before
        if spec.pool_after[window.layer - 1]:
            first, shape = first // 2, tuple(n // 2 for n in shape)
        changed = _inside(changed, first, shape)

    room = changed.shape[1]

    def put(window: Array, start: Array) -> Array:
        placed = lax.dynamic_update_slice(clean, window, (*(start + room), 0))
        return _unpadded(placed, room)

    clean = _padded(inputs[-1], room)
    maps = jax.vmap(put)(changed, first)
    return difference(network.apply(variables, maps, train=False, first=len(plan) + 1))


def _cut(padded: Array, start: Array, size: int) -> Array:
    """Returns a cube of a (X, Y, Z, C) volume."""
    return lax.dynamic_slice(padded, (*start, 0), (size, size, size, padded.shape[-1]))


def _inside(windows: Array, starts: Array, shape: tuple[int, ...]) -> Array:
    """Zero the voxels of (B, S, S, S, C) windows that lie outside a volume of ``shape``."""
    for axis in range(3):
        place = starts[:, axis, None] + jnp.arange(windows.shape[1])
        within = (place >= 0) & (place < shape[axis])
        form = [len(windows), 1, 1, 1, 1]
        form[axis + 1] = windows.shape[1]
        windows = jnp.where(within.reshape(form), windows, 0)
    return windows


def _conv_layer(network: CNN, variables: Any, layer: int, around: Array) -> Array:
    """Returns a conv layer's output for the interior of (B, S, S, S, C) windows.

    It is pooled where the layer pools.
    """
    spec = network.spec
    norm, stats = variables["params"][f"bn{layer}"], variables["batch_stats"][f"bn{layer}"]
    kernel = variables["params"][f"conv{layer}"]["kernel"]
    forms = choice.resolved(network.forms)
    form = of_layer(forms, around.shape, kernel.shape[-1], False, spec.dtype)
    # Pooled after the edges are cut off: with them the pooling windows would begin one voxel early.
    whole, _ = conv_layer(
        Features(around),
        Parameters(kernel, norm["scale"], norm["bias"]),
        Moments(stats["mean"], stats["var"]),
        Setting(False, spec.epsilon, form=form),
    )
    output = whole.activated()[:, 1:-1, 1:-1, 1:-1]
    return max_pool(output) if spec.pool_after[layer - 1] else output
