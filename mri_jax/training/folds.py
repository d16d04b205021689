"""Folds on devices: the only module with ``pmap``.

A wave is at most as many networks of one shape as there are local devices; each device trains one.
Arrays have a leading fold axis; nothing is averaged over it (BatchNorm never sees its name).

How many steps one program runs was measured. On an accelerator a ``lax.scan`` over many steps
saves the launches. XLA on CPUs runs a loop's body with less parallelism (reference form of CNN-5 at
48 x 56 x 48: 800 ms a step in a scan, 390 ms alone; two cores, 2026-11), so there a program is one
step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mri_jax.training.augment import AugmentSettings, augment
from mri_jax.training.state import Batch, TrainState, typed_key
from mri_jax.training.step import StepSettings, eval_step, train_step

AXIS = "fold"
_STEPS_PER_PROGRAM = 64


class Steps(NamedTuple):
    """What a training program is told: rows of its volumes, (fold, steps, batch) each.

    Attributes:
      row: int32, which of the volumes at hand.
      label: int32.
      weight: float32, of the volume in the loss.
      active: (fold, steps) bool; an inactive step leaves its fold as it was.
    """

    row: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class Wave:
    """The devices that train together.

    Attributes:
      devices: One a fold.
    """

    devices: tuple[jax.Device, ...]

    @property
    def _sharding(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(AXIS))

    @property
    def steps_per_program(self) -> int:
        """How many steps one training program runs."""
        return 1 if self.devices[0].platform == "cpu" else _STEPS_PER_PROGRAM

    def stack(self, trees: Sequence[Any]) -> Any:
        """Put one pytree on each device; leaves get a leading fold axis."""
        return jax.tree.map(lambda *leaves: self.place([np.asarray(x) for x in leaves]), *trees)

    def place(self, arrays: Sequence[np.ndarray]) -> Array:
        """Put one host array on each device, as one array with a leading fold axis."""
        parts = [
            jax.device_put(np.asarray(array)[None], device)
            for array, device in zip(arrays, self.devices, strict=True)
        ]
        shape = (len(parts), *np.shape(arrays[0]))
        return jax.make_array_from_single_device_arrays(shape, self._sharding, parts)

    def copies(self, array: np.ndarray) -> Array:
        """The same host array on each device."""
        return self.place([array] * len(self.devices))

    def fetch(self, tree: Any) -> list[Any]:
        """Inverse of `stack`: a pytree of host arrays for each fold."""
        host = jax.tree.map(np.asarray, jax.device_get(tree))
        return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(len(self.devices))]


def mapped(run: Callable[..., Any], wave: Wave, donate: int | tuple[int, ...] = ()) -> Any:
    """A function of one fold as a program of all folds of a wave, one on each device.

    While NaNs are looked for (``jax_debug_nans``) JAX runs a program that gave one again, operation
    by operation, which it cannot do inside a map: there one fold runs alone.

    Raises:
      ValueError: NaNs are looked for on several devices.
    """
    if not jax.debug_nans.value:
        return jax.pmap(run, axis_name=AXIS, devices=wave.devices, donate_argnums=donate)
    if len(wave.devices) > 1:
        raise ValueError("NaNs can be looked for on one device only")
    alone = jax.jit(run)

    def call(*arguments: Any) -> Any:
        first = jax.tree.map(lambda x: x[0], arguments)
        return jax.tree.map(lambda x: x[None], alone(*first))

    return call


@cache
def train_program(settings: StepSettings, augmentation: AugmentSettings, wave: Wave) -> Any:
    """The mapped program ``(state, volumes, Steps) -> (state, metrics)``; the state is donated.

    ``volumes`` is (fold, M, X, Y, Z, C); metrics are (fold, steps).
    """
    masked = len(wave.devices) > 1 or wave.steps_per_program > 1

    def step(state: TrainState, volumes: Array, now: Steps) -> tuple[TrainState, Any]:
        image = volumes[now.row]
        if not augmentation.off:
            key = jax.random.fold_in(jax.random.fold_in(typed_key(state.key), state.step), 1)
            image = augment(augmentation, key, image)
        following, metrics = train_step(
            settings, state, Batch(image, jnp.asarray(now.label), jnp.asarray(now.weight))
        )
        if masked:
            following = jax.tree.map(
                lambda new, old: jnp.where(now.active, new, old), following, state
            )
        return following, metrics

    def run(state: TrainState, volumes: Array, steps: Steps) -> tuple[TrainState, Any]:
        if wave.steps_per_program == 1:
            state, metrics = step(state, volumes, jax.tree.map(lambda x: x[0], steps))
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(lambda carry, now: step(carry, volumes, now), state, steps)

    return mapped(run, wave, donate=0)


@cache
def eval_program(settings: StepSettings, wave: Wave) -> Any:
    """The mapped program ``(variables, volumes, rows) -> logits``: (fold, batch, classes)."""

    def run(variables: Mapping[str, Any], volumes: Array, rows: Array) -> Array:
        label = jnp.zeros(rows.shape, jnp.int32)
        batch = Batch(volumes[rows], label, jnp.ones(rows.shape, jnp.float32))
        return eval_step(settings, variables, batch)["logits"]

    return mapped(run, wave)


@cache
def select_program(wave: Wave) -> Any:
    """The mapped program ``(flags, new, old) -> tree``: per fold, ``new`` where its flag is set."""

    def run(flag: Array, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: jnp.where(flag, n, o), new, old)

    return mapped(run, wave, donate=2)
