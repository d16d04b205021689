"""Programs of folds: the only module with ``pmap`` and ``shard_map``; one device needs neither.

A wave (`mri_jax.training.wave`) trains as many networks of one shape as it has folds. Arrays have a
leading fold axis; nothing is averaged over it (BatchNorm never sees its name). Where a fold has
several devices its batches are split over them, and what they compute together is what one device
would (docs/performance.md). Where a device has several folds, its program computes each of them by
itself, in no order: they are not a batch of networks, for which there are no kernels.

How many steps one program runs was measured. On an accelerator a ``lax.scan`` over many steps
saves the launches. XLA on CPUs runs a loop's body with less parallelism (reference form of CNN-5 at
48 x 56 x 48: 800 ms a step in a scan, 390 ms alone; two cores, 2026-11), so there a program is one
step.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from mri_jax.models import CNN, CNNSpec
from mri_jax.training import hosts
from mri_jax.training.augment import AugmentSettings, augment
from mri_jax.training.objectives import LABELLED, UNLABELLED
from mri_jax.training.packed import packed, unpacked
from mri_jax.training.state import Batch, TrainState
from mri_jax.training.step import StepSettings, packed_step, step_keys, train_step
from mri_jax.training.wave import FOLD, PART, Wave

EVALUATION_BATCH = 8
"""How many volumes a program of evaluation takes at a time; more where a wave cannot split them."""
# A program whose devices wait for each other longer than this is given up. XLA's own limit of 40 s
# would end a process that was suspended, or whose machine is overloaded.
_PATIENCE = {"xla_cpu_collective_call_terminate_timeout_seconds": 24 * 3600}
# Kernels that XLA for GPUs replays as a graph run at once where none needs another's result. Arrays
# of folds side by side then share no memory, which otherwise makes them wait for each other.
_AT_ONCE = {"xla_gpu_command_buffer_scheduling_mode": "CONCURRENT"}


class Steps(NamedTuple):
    """What a training program is told, (fold, steps, batch) each.

    Attributes:
      row: int32, the scan: its row of the catalogue, for which a feed puts its place among the
        volumes that the program gets.
      label: int32.
      weight: float32, of the volume in the loss.
      active: (fold, steps) bool; an inactive step leaves its fold as it was.
    """

    row: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    active: np.ndarray


class Split(NamedTuple):
    """Which argument or result of a fold's function is split with its batch.

    Attributes:
      arguments: A `PartitionSpec` for each argument, or for each part of it.
      result: The same for the result.
    """

    arguments: tuple[Any, ...]
    result: Any


def along(*axes: str | None) -> PartitionSpec:
    """Returns how a fold's array is split: ``along(None, PART)`` splits its second axis."""
    return PartitionSpec(FOLD, *axes)


def each_fold(run: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Returns a function of one fold as a function of the folds of a device."""
    return lambda *folds: [run(*arguments) for arguments in folds]


def mapped(
    run: Callable[..., Sequence[Any]],
    wave: Wave,
    split: Split,
    donate: int | tuple[int, ...] = (),
) -> Any:
    """Returns a function of a device's folds as a program of all folds of a wave.

    While NaNs are looked for (``jax_debug_nans``) JAX runs a program that gave one again, operation
    by operation, which it cannot do inside a map: there one fold runs alone.

    Args:
      run: Takes a tuple of arguments for each fold of a device, and returns a result for each;
        where batches are split, of one part of them. An array that the device holds once is for all
        of its folds.
      wave: The devices.
      split: What is split, where the wave splits batches.
      donate: Arguments whose memory the result may take.

    Raises:
      ValueError: NaNs are looked for on several devices.
    """

    def of_device(call: Callable[..., Any], *arguments: Any) -> Any:
        folds = [jax.tree.map(lambda x, i=i: x[i % len(x)], arguments) for i in range(wave.beside)]
        return jax.tree.map(lambda *made: jnp.stack(made), *call(*folds))

    if jax.debug_nans.value:
        if len(wave.devices) > 1:
            raise ValueError("NaNs can be looked for on one device only")
        return partial(of_device, jax.jit(run))
    if len(wave.devices) == 1:
        return jax.jit(partial(of_device, run), donate_argnums=donate, **_options(wave))
    if wave.by_pmap:
        return jax.pmap(
            lambda *arguments: run(arguments)[0],
            axis_name=FOLD,
            devices=wave.devices,
            donate_argnums=donate,
        )
    # Unchecked, because what is equal on all parts (the state after gradients were added up) is not
    # known to be so. With checks JAX would also add up the gradients of what is equal by itself.
    parts = jax.shard_map(
        partial(of_device, run),
        mesh=wave.mesh,
        in_specs=split.arguments,
        out_specs=split.result,
        check_vma=False,
    )
    where = jax.tree.map(lambda spec: NamedSharding(wave.mesh, spec), split.arguments)
    compiled = jax.jit(parts, in_shardings=where, donate_argnums=donate, **_options(wave))

    def call(*arguments: Any) -> Any:
        return compiled(*wave.laid_out(arguments, split.arguments))

    # Arrays of every fold lie where they are wanted already, unless some are padded.
    return call if hosts.several() or wave.used is not None else compiled


def _options(wave: Wave) -> dict[str, Any]:
    """Returns what `jax.jit` is told where a wave needs options of the compiler."""
    if len(wave.devices) > 1 and wave.on_host:
        return {"compiler_options": _PATIENCE}
    if wave.beside > 1 and wave.devices[0].platform == "gpu":
        return {"compiler_options": _AT_ONCE}
    return {}


class Programs:
    """The compiled programs of a wave, each made when it is first asked for; see `release`.

    Args:
      wave: The devices.
    """

    def __init__(self, wave: Wave):
        self.wave = wave
        self._made: dict[Hashable, Any] = {}

    def of(self, folds: int) -> "Programs":
        """Returns the programs of so many folds; see `Wave.of`."""
        if folds == self.wave.folds:
            return self
        return self._once(folds, lambda: Programs(self.wave.of(folds)))

    def release(self) -> None:
        """Releases the programs; they are made anew when they are asked for again.

        JAX keeps what `jax.pmap` compiled until everything compiled in the process is cleared, so
        for a wave of several folds that is what is done: all else is compiled again, or read from
        JAX's folder of compiled programs, when it is next used.
        """
        self._made.clear()
        if self.wave.folds > 1 and self.wave.split == 1:
            jax.clear_caches()

    def train(self, settings: StepSettings, augmentation: AugmentSettings) -> Any:
        """Returns the program ``(state, volumes, Steps) -> (state, metrics)``.

        The state is donated, ``volumes`` is (fold, M, X, Y, Z, C), and metrics are (fold, steps).
        """
        about = (settings, augmentation)
        return self._once(about, lambda: _train_program(settings, augmentation, self.wave))

    def evaluate(self, spec: CNNSpec, first: int = 1) -> Any:
        """Returns the program ``(variables, volumes, places) -> logits``, (fold, batch, classes).

        Args:
          spec: The network.
          first: First conv layer to run, on volumes that are the output of the one before.
        """
        network = self._network(spec)

        def run(variables: Mapping[str, Any], volumes: Array, places: Array) -> Array:
            return network.apply(variables, volumes[places], train=False, first=first)

        return self._evaluation(("logits", spec, first), run)

    def features(self, spec: CNNSpec, last: int) -> Any:
        """Returns the program ``(variables, volumes, places) -> output of conv layer last``."""
        network = self._network(spec)

        def run(variables: Mapping[str, Any], volumes: Array, places: Array) -> Array:
            inputs = volumes[places]
            return network.apply(variables, inputs, train=False, last=last, method="trunk")

        return self._evaluation(("features", spec, last), run)

    def outputs(self, spec: CNNSpec) -> Any:
        """Returns the program ``(variables, volumes, places) -> (logits, penultimate features)``.

        They are (fold, batch, classes) and (fold, batch, F).
        """
        network = self._network(spec)

        def run(variables: Mapping[str, Any], volumes: Array, places: Array) -> Any:
            made = network.apply(variables, volumes[places], train=False, method="outputs")
            return made.logits, made.penultimate.astype(made.logits.dtype)

        return self._evaluation(("outputs", spec), run)

    def moments(self, spec: CNNSpec) -> Any:
        """Returns the program ``(variables, volumes, places) -> {"bn1": {"mean", "var"}, ...}``.

        They are those of the batch alone, whatever statistics the network has.
        """
        network = self._network(spec)

        def run(variables: Mapping[str, Any], volumes: Array, places: Array) -> Any:
            # With no batch seen before, the running statistics become those of this one.
            unseen = {
                norm: {**stats, "count": jnp.zeros((), jnp.int32)}
                for norm, stats in variables["batch_stats"].items()
            }
            _, left = network.apply(
                {"params": variables["params"], "batch_stats": unseen},
                volumes[places],
                train=True,
                mutable=["batch_stats"],
                method="trunk",
            )
            return {
                norm: {name: stats[name] for name in ("mean", "var")}
                for norm, stats in left["batch_stats"].items()
            }

        whole = Split((along(), along(), along()), along())
        return self._once(("moments", spec), lambda: mapped(each_fold(run), self.wave, whole))

    def select(self) -> Any:
        """Returns the program ``(flags, new, old) -> tree``: ``new`` where a fold's flag is set."""

        def run(flag: Array, new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(flag, n, o), new, old)

        split = Split((along(), along(), along()), along())
        return self._once("select", lambda: mapped(each_fold(run), self.wave, split, donate=2))

    def _evaluation(self, about: Hashable, run: Callable[..., Any]) -> Any:
        """Returns a program ``(variables, volumes, places) -> (fold, batch, ...)``."""
        split = Split((along(), along(), along(PART)), along(PART))
        return self._once(about, lambda: mapped(each_fold(run), self.wave, split))

    def _network(self, spec: CNNSpec) -> CNN:
        return CNN(spec, forms=self.wave.forms)

    def _once(self, about: Hashable, make: Callable[[], Any]) -> Any:
        if about not in self._made:
            self._made[about] = make()
        return self._made[about]


def _batch(settings: StepSettings, image: Array, label: Array, weight: Array) -> Batch:
    """Returns the volumes of a step as its objective takes them."""
    kind = settings.objective.batches
    if kind == LABELLED:
        return Batch(image, label, weight)
    if kind == UNLABELLED:
        return Batch(image[:0], label[:0], weight[:0], image)
    return Batch(image[::2], label[::2], weight[::2], image[1::2])


def _train_program(settings: StepSettings, augmentation: AugmentSettings, wave: Wave) -> Any:
    masked = wave.folds > 1 or wave.steps_per_program > 1

    def taken(
        advance: Callable[..., tuple[Any, Any]], state: Any, volumes: Array, now: Steps
    ) -> Any:
        image = volumes[now.row]
        if not augmentation.off:
            key = step_keys(state.key, state.step).augmentation
            image = augment(augmentation, key, image, wave.batch_axis)
        batch = _batch(settings, image, jnp.asarray(now.label), jnp.asarray(now.weight))
        following, metrics = advance(
            state=state, batch=batch, batch_axis=wave.batch_axis, forms=wave.forms
        )
        if masked:
            following = jax.tree.map(
                lambda new, old: jnp.where(now.active, new, old), following, state
            )
        return following, metrics

    def one_step(state: TrainState, volumes: Array, steps: Steps) -> tuple[TrainState, Any]:
        now = jax.tree.map(lambda x: x[0], steps)
        state, metrics = taken(partial(train_step, settings), state, volumes, now)
        return state, jax.tree.map(lambda x: x[None], metrics)

    def many_steps(*folds: tuple[TrainState, Array, Steps]) -> list[tuple[TrainState, Any]]:
        states, volumes, steps = zip(*folds, strict=True)
        like = jax.eval_shape(lambda: states[0])
        advance = partial(packed_step, settings, like=like)

        def step_of_each(few: Any, now: Any) -> Any:
            made = [taken(advance, *fold) for fold in zip(few, volumes, now, strict=True)]
            return tuple(zip(*made, strict=True))

        begin = tuple(packed(state, settings.rules) for state in states)
        ended, metrics = jax.lax.scan(step_of_each, begin, steps)
        return [
            (unpacked(few, like, settings.rules), told)
            for few, told in zip(ended, metrics, strict=True)
        ]

    batches: Any = along(None, PART)
    steps = Steps(batches, batches, batches, active=cast(Any, along()))
    run = each_fold(one_step) if wave.steps_per_program == 1 else many_steps
    return mapped(run, wave, Split((along(), along(), steps), along()), donate=0)
