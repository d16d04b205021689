"""The devices that train together, and how arrays come to them and back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mri_jax.models import choice
from mri_jax.models.chosen import Forms
from mri_jax.training import hosts

FOLD, PART = "fold", "part"
"""Mapped axes: over folds, and over the parts of a fold's batch."""
_STEPS_PER_PROGRAM = 64


@dataclass(frozen=True)
class Wave:
    """The devices that train together.

    Attributes:
      devices: Those of the first fold, then those of the second, and so on.
      split: How many devices each fold has; its batches are split over them.
      forms: How they compute conv layers (`mri_jax.models.choice`); None: the machine's choice;
        ``measure`` until each layer has its own.
      used: How many folds train, where there are places for more, which repeat the last fold: where
        several processes share the devices every one must take part in every program, and folds
        side by side may not come out even. None: all.
      beside: How many folds a device trains side by side; 1 where batches are split.

    Raises:
      ValueError: The devices are not a multiple of ``split``, or are to do both.
    """

    devices: tuple[jax.Device, ...]
    split: int = 1
    forms: Forms | None = None
    used: int | None = None
    beside: int = 1

    def __post_init__(self):
        if self.split > 1 and self.beside > 1:
            raise ValueError("devices that share a batch train one fold")
        if len(self.devices) % self.split:
            raise ValueError(f"{len(self.devices)} devices cannot be split by {self.split}")

    @property
    def folds(self) -> int:
        """Returns how many folds train at once."""
        return self._places if self.used is None else self.used

    @property
    def _groups(self) -> int:
        return len(self.devices) // self.split

    @property
    def _places(self) -> int:
        return self._groups * self.beside

    @property
    def computed(self) -> str:
        """Returns how conv layers are computed, of `mri_jax.models.choice.ASKED`."""
        return choice.name(self.forms)

    @property
    def local(self) -> tuple[jax.Device, ...]:
        """Returns the devices of this process."""
        here = jax.process_index()
        return tuple(device for device in self.devices if device.process_index == here)

    @property
    def unsplit(self) -> "Wave":
        """Returns the first device of each fold, which has whole batches."""
        if hosts.several():
            return replace(self, split=1, used=self.folds)
        return replace(self, devices=self.devices[:: self.split], split=1)

    def of(self, folds: int) -> "Wave":
        """Returns the devices for so many folds: the first ones, or all with folds side by side.

        Raises:
          ValueError: Folds would lie side by side where batches are split.
        """
        if hosts.several():
            return replace(self, used=folds)
        wave = replace(
            self,
            devices=self.devices[: folds * self.split],
            used=None,
            beside=-(-folds // min(folds, self._groups)),
        )
        return wave if wave.folds == folds else replace(wave, used=folds)

    def whole(self, size: int) -> int:
        """Returns the least number of volumes, ``size`` or more, that can be split."""
        return -(-size // self.split) * self.split

    @property
    def batch_axis(self) -> str | None:
        """Returns the name of the mapped axis over which batches are split, if they are."""
        return PART if self.split > 1 else None

    @property
    def by_pmap(self) -> bool:
        """Returns whether `jax.pmap` maps folds: one a device, all of this process."""
        return self.split == 1 and self.beside == 1 and not hosts.several()

    @property
    def mesh(self) -> Mesh:
        """Returns the devices, (folds, split); (folds,), as `jax.pmap` has it, where that maps."""
        if self.by_pmap:
            return Mesh(np.array(self.devices), (FOLD,))
        return Mesh(np.array(self.devices).reshape(-1, self.split), (FOLD, PART))

    @property
    def on_host(self) -> bool:
        """Returns whether the devices are a CPU's, and their memory the host's."""
        return self.devices[0].platform == "cpu"

    @property
    def steps_per_program(self) -> int:
        """Returns how many steps one training program runs."""
        return 1 if self.on_host else _STEPS_PER_PROGRAM

    def stack(self, trees: Sequence[Any]) -> Any:
        """Gives each fold a pytree; leaves get a leading fold axis."""
        return jax.tree.map(lambda *leaves: self.place([np.asarray(x) for x in leaves]), *trees)

    def place(self, arrays: Sequence[np.ndarray]) -> Array:
        """Gives each fold a host array; returns one array with a leading fold axis.

        Every device of a fold holds all of it.
        """
        every = [*arrays, *[arrays[-1]] * (self._places - self.folds)]
        blocks = [every[i : i + self.beside] for i in range(0, len(every), self.beside)]
        return self._put(blocks, np.shape(arrays[0]))

    def copies(self, array: np.ndarray) -> Array:
        """Gives each device the same host array, for all of its folds, along a leading axis."""
        return self._put([(array,)] * self._groups, array.shape)

    def _put(self, blocks: Sequence[Sequence[np.ndarray]], shape: tuple[int, ...]) -> Array:
        """Returns arrays of a shape, a few for each device or group of devices, as one."""
        held = [block for block in blocks for _ in range(self.split)]
        placed = [
            jax.device_put(_stacked(block), device)
            for block, device in zip(held, self.devices, strict=True)
            if device.process_index == jax.process_index()
        ]
        whole = (sum(map(len, blocks)), *shape)
        sharding = NamedSharding(self.mesh, PartitionSpec(FOLD))
        return jax.make_array_from_single_device_arrays(whole, sharding, placed)

    def fetch(self, tree: Any) -> list[Any]:
        """Returns a pytree of host arrays for each fold; the inverse of `stack`."""
        host = self.on_every_host(tree)
        return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(self.folds)]

    def on_every_host(self, tree: Any) -> Any:
        """Returns arrays of programs as host arrays, in every process all of them."""
        if hosts.several():
            everywhere = NamedSharding(self.mesh, PartitionSpec())
            tree = jax.jit(_same, out_shardings=everywhere)(tree)
        return jax.tree.map(lambda x: np.asarray(x)[: self.folds], jax.device_get(tree))

    def laid_out(self, tree: Any, specs: Any) -> Any:
        """Returns host arrays as arrays of all devices, where several processes or folds have them.

        Args:
          tree: The same in every process; arrays of devices are left as they are.
          specs: How each is split; a tree that begins as ``tree`` does.
        """
        if not hosts.several() and self.used is None:
            return tree

        def of_all(spec: PartitionSpec, part: Any) -> Any:
            def place(x: Any) -> Any:
                if isinstance(x, Array):
                    return x
                more = np.repeat(x[-1:], self._places - self.folds, axis=0)
                every = np.concatenate([x, more])
                sharding = NamedSharding(self.mesh, spec)
                return jax.make_array_from_callback(every.shape, sharding, lambda i: every[i])

            return jax.tree.map(place, part)

        return jax.tree.map(
            of_all, specs, tree, is_leaf=lambda part: isinstance(part, PartitionSpec)
        )


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Returns arrays along a leading axis; one alone, which may be large, is not copied."""
    return np.asarray(arrays[0])[None] if len(arrays) == 1 else np.stack(arrays)


def _same(tree: Any) -> Any:
    """Returns its argument; one function, so that JAX compiles one program for trees alike."""
    return tree
