"""One training step: pure functions, to be jitted, scanned or mapped."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from mri_jax.errors import UserError
from mri_jax.keys import random_key, typed_key
from mri_jax.models import CNN, CNNSpec, split
from mri_jax.models.chosen import Forms
from mri_jax.models.cnn import Outputs, fresh_variables
from mri_jax.training import freezing
from mri_jax.training.objectives import CROSS_ENTROPY, Asked, Objective, Pass
from mri_jax.training.packed import PackedState, closed, opened, vector_of
from mri_jax.training.state import Batch, TrainState

# Raised by hand whenever the same seed and data would give other numbers than before.
NUMERICS_VERSION = 4
_PARTS = 1 << 16


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019).

    Attributes:
      learning_rate: Step size.
      weight_decay: Decay of kernels per step, times the learning rate; biases and BatchNorm's
        parameters do not decay.
      clip_norm: Largest global norm of the gradient over what trains; None does not clip.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self):
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name}: {value!r} must be a finite number of at least 0")
        if self.clip_norm == 0:
            raise UserError("clip_norm: 0 would stop training; use None for no clipping")


@dataclass(frozen=True)
class LossSettings:
    """Cross-entropy.

    Attributes:
      label_smoothing: Probability spread evenly over the classes, in [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing: {self.label_smoothing!r} must be in [0, 1)")


@dataclass(frozen=True)
class StepSettings:
    """What a step is, apart from its state and data; hashable.

    Attributes:
      spec: The network.
      optimizer: Adam's settings.
      loss: Cross-entropy's settings.
      rules: Which parameters train; see `freezing.rules_for`.
      frozen_statistics: ``keep``: a BatchNorm whose parameters are frozen normalises with its
        running statistics and leaves them; ``adapt``: it uses and blends in those of the batch.
      first: First conv layer to run; batches then hold the output of the layer before it.
      objective: What is minimised.
      accumulate: Into how many parts a batch is divided. The network sees one after the other: each
        has batch statistics and dropout of its own, and the gradient is the mean of theirs.
    """

    spec: CNNSpec
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    rules: freezing.Rules = ((".*", True),)
    frozen_statistics: str = "keep"
    first: int = 1
    objective: Objective = CROSS_ENTROPY
    accumulate: int = 1

    def __post_init__(self):
        if self.frozen_statistics not in ("keep", "adapt"):
            raise UserError(
                f"frozen_statistics: {self.frozen_statistics!r} must be 'keep' or 'adapt'"
            )


def optimizer_of(settings: OptimizerSettings, trained: Any) -> optax.GradientTransformation:
    """Returns the optimizer of all that trains as one vector (`jax.flatten_util.ravel_pytree`).

    A step's program has fewer kernels so than with an update for each parameter.

    Args:
      settings: What it is.
      trained: The tree of what trains.
    """

    def decay(updates: Array, vector: Array | None) -> Array:
        assert vector is not None
        kernels = jax.tree_util.tree_map_with_path(
            lambda keys, p: jnp.full(p.shape, freezing.path_of(keys).endswith("kernel")), trained
        )
        return updates + settings.weight_decay * jnp.where(ravel_pytree(kernels)[0], vector, 0)

    transforms = [optax.scale_by_adam()]
    if settings.clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    if settings.weight_decay:
        transforms.append(optax.stateless(decay))
    return optax.chain(*transforms, optax.scale(-settings.learning_rate))


def drawn(
    spec: CNNSpec, shape: tuple[int, int, int], seed: int, purpose: tuple[str | int, ...]
) -> dict[str, Any]:
    """Draws the parameters that a training from scratch starts from; see `fresh_variables`."""
    return fresh_variables(spec, shape, jnp.asarray(random_key(seed, "init", *purpose)))


def init_state(settings: StepSettings, variables: Mapping[str, Any], key: Array) -> TrainState:
    """Returns the state before the first step.

    Args:
      settings: What the step is.
      variables: Parameters and statistics to start from.
      key: (2,) uint32 from `mri_jax.keys.random_key`; see `step_keys`.
    """
    mask = freezing.trainable_mask(settings.rules, variables["params"])
    trained = freezing.select(variables["params"], mask)
    return TrainState(
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer_of(settings.optimizer, trained).init(ravel_pytree(trained)[0]),
        step=jnp.zeros((), jnp.int32),
        key=jnp.asarray(key, jnp.uint32),
        memory=settings.objective.remembered(settings.spec, variables["params"]),
    )


class StepKeys(NamedTuple):
    """The random keys of one step.

    Attributes:
      dropout: Flax derives a key for each layer from it, by a digest of the layer's name.
      augmentation: One for the whole batch.
      parts: From which keys of dropout are made where a batch is seen in parts.
    """

    dropout: Array
    augmentation: Array
    parts: Array


def step_keys(key: Array, step: Array) -> StepKeys:
    """Returns the random keys of a step.

    No number is drawn from dropout's key itself, so it is the step's own, from which augmentation's
    is made. Both are the keys of every version with this `NUMERICS_VERSION`.

    Args:
      key: (2,) uint32, the training's.
      step: () int32, how many steps were taken before.
    """
    own = jax.random.fold_in(typed_key(key), step)
    # Numbers from 2 on are those of further passes of a step (`_gradient`).
    return StepKeys(own, jax.random.fold_in(own, 1), jax.random.fold_in(own, _PARTS))


def weighted_loss(
    logits: Array, batch: Batch, settings: LossSettings, batch_axis: str | None = None
) -> Array:
    """Returns the mean cross-entropy, (): each volume counts by its weight.

    Where the batch is split over ``batch_axis``, returns what this part adds to it.
    """
    target = jax.nn.one_hot(batch.label, logits.shape[-1], dtype=logits.dtype)
    smoothed = optax.smooth_labels(target, settings.label_smoothing)
    summed = (batch.weight * optax.softmax_cross_entropy(logits, smoothed)).sum()
    return summed / split.total(batch.weight.sum(), batch_axis)


def _pass(made: Outputs, batch_stats: Mapping[str, Any]) -> Pass:
    wide = made.penultimate.astype(made.logits.dtype)
    return Pass(made.logits, wide, made.gates, batch_stats)


def train_step(
    settings: StepSettings,
    state: TrainState,
    batch: Batch,
    batch_axis: str | None = None,
    forms: Forms | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Takes one step of Adam on what trains.

    The gradient is taken over the trainable subtree alone. Where the loss or a gradient is not
    finite, parameters, statistics and optimizer state stay as they were; the step still counts, so
    that the next one draws another dropout.

    Args:
      settings: What the step is (static).
      state: The state; may be donated.
      batch: Volumes and labels.
      batch_axis: Mapped axis over which the batch is split, the state being the same on every
        device of it; what is returned then is that of the whole batch. None: it is in one piece.
      forms: How conv layers are computed (`mri_jax.models.choice`); None: the machine's choice.

    Returns:
      The next state, and ``loss`` and ``finite`` (1 or 0: loss and gradient), each ().
    """
    trained, fixed = _parted(settings, state)
    vector, unravel = ravel_pytree(trained)
    step = _Step(settings, batch_axis, forms, lambda tree: ravel_pytree(tree)[0])
    new = _advanced(step, state, vector, batch)
    following = dataclasses.replace(
        state,
        params=freezing.merge(unravel(new.kept(new.trained, vector)), fixed),
        batch_stats=new.kept(new.batch_stats, state.batch_stats),
        opt_state=new.kept(new.opt_state, state.opt_state),
        step=state.step + 1,
        memory=new.kept(new.memory, state.memory),
    )
    return following, new.metrics


def packed_step(
    settings: StepSettings,
    state: PackedState,
    like: TrainState,
    batch: Batch,
    batch_axis: str | None = None,
    forms: Forms | None = None,
) -> tuple[PackedState, dict[str, Array]]:
    """Does what `train_step` does, on a state in few arrays.

    Args:
      settings: What the step is (static).
      state: Of `packed`.
      like: The shapes of the state that was packed.
      batch: As there.
      batch_axis: As there.
      forms: As there.
    """
    whole = opened(state, like, settings.rules)
    step = _Step(settings, batch_axis, forms, vector_of)
    new = _advanced(step, whole, state.trained, batch)
    following = dataclasses.replace(
        whole, batch_stats=new.batch_stats, opt_state=new.opt_state, memory=new.memory
    )
    kept = new.kept(closed(state, following, new.trained), state)
    # The last count is the steps', which counts in any case.
    counts = kept.counts + np.eye(1, kept.counts.size, kept.counts.size - 1, dtype=np.int32)[0]
    return dataclasses.replace(kept, counts=counts), new.metrics


class _Advanced(NamedTuple):
    """What a step makes of a state, if its loss and gradient are finite.

    Attributes:
      trained: The vector of what trains.
      batch_stats: As in `TrainState`.
      opt_state: As there.
      memory: As there.
      loss: ().
      finite: () bool, whether loss and gradient are.
    """

    trained: Array
    batch_stats: Any
    opt_state: Any
    memory: Any
    loss: Array
    finite: Array

    def kept(self, new: Any, old: Any) -> Any:
        """Returns the new tree, or the old one where the step is not finite."""
        return jax.tree.map(lambda n, o: jnp.where(self.finite, n, o), new, old)

    @property
    def metrics(self) -> dict[str, Array]:
        """Returns what `train_step` does beside the state."""
        metrics = {"loss": self.loss, "finite": self.finite}
        return {name: value.astype(jnp.float32) for name, value in metrics.items()}


def _parted(settings: StepSettings, state: TrainState) -> tuple[Any, Any]:
    """Returns two trees of parameters: what trains, and what does not."""
    mask = freezing.trainable_mask(settings.rules, state.params)
    return freezing.select(state.params, mask), freezing.select(state.params, mask, keep=False)


class _Step(NamedTuple):
    """What is fixed of a step.

    Attributes:
      settings: As in `train_step`.
      batch_axis: As there.
      forms: As there.
      vector_of: Makes a vector of a tree of what trains, in the order of the optimizer's state.
    """

    settings: StepSettings
    batch_axis: str | None
    forms: Forms | None
    vector_of: Callable[[Any], Array]


def _advanced(step: _Step, state: TrainState, vector: Array, batch: Batch) -> _Advanced:
    """Returns what a step of Adam makes of a state and of the vector of what trains in it."""
    settings = step.settings
    trained, _ = _parted(settings, state)
    keys = step_keys(state.key, state.step)
    if settings.accumulate == 1:
        loss, gradient, blended, memory = _gradient(step, state, batch, keys.dropout)
    else:
        loss, gradient, blended, memory = _mean_gradient(step, state, batch, keys)
    loss, gradient = split.total((loss, gradient), step.batch_axis)
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
    optimizer = optimizer_of(settings.optimizer, trained)
    updates, opt_state = optimizer.update(gradient, state.opt_state, vector)
    stepped = optax.apply_updates(vector, updates)
    # Statistics of layers that did not run (a cached prefix) are not among the blended ones.
    return _Advanced(stepped, {**state.batch_stats, **blended}, opt_state, memory, loss, finite)


class _Gradient(NamedTuple):
    """What some volumes contribute to a step.

    Attributes:
      loss: (), this device's share.
      vector: Its gradient, as a vector.
      batch_stats: Running statistics after these volumes, of the layers that ran.
      memory: What the objective remembers after them.
    """

    loss: Array
    vector: Array
    batch_stats: Any
    memory: Any


def _mean_gradient(step: _Step, state: TrainState, batch: Batch, keys: StepKeys) -> _Gradient:
    """Returns the mean over the parts of a batch, which are seen in turn.

    A part takes every so many volumes, so that devices that share the batch have as many of each.
    """
    count = step.settings.accumulate

    def parted(x: Array) -> Array:
        return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    def see(carry: Any, now: tuple[Array, Batch]) -> tuple[Any, None]:
        (loss, vector, statistics, memory), (number, part) = carry, now
        at = dataclasses.replace(state, batch_stats=statistics, memory=memory)
        found = _gradient(step, at, part, jax.random.fold_in(keys.parts, number))
        statistics = {**statistics, **found.batch_stats}
        return (loss + found.loss, vector + found.vector, statistics, found.memory), None

    vector = jnp.zeros_like(step.vector_of(_parted(step.settings, state)[0]))
    begin = jnp.zeros((), vector.dtype), vector, dict(state.batch_stats), state.memory
    parts = jnp.arange(count), jax.tree.map(parted, batch)
    (loss, vector, statistics, memory), _ = jax.lax.scan(see, begin, parts)
    return _Gradient(loss / count, vector / count, statistics, memory)


def _gradient(step: _Step, state: TrainState, batch: Batch, dropout: Array) -> _Gradient:
    """Returns loss and gradient of volumes that the network sees at once."""
    settings, batch_axis = step.settings, step.batch_axis
    trained, fixed = _parted(settings, state)
    mask = freezing.trainable_mask(settings.rules, state.params)
    frozen = freezing.frozen_norms(mask) if settings.frozen_statistics == "keep" else frozenset()

    network = CNN(settings.spec, batch_axis, step.forms)

    def loss_of(trained_params: Any) -> tuple[Array, Any]:
        params = freezing.merge(trained_params, fixed)
        variables = {"params": params, "batch_stats": state.batch_stats}

        def trained_pass(number: int, volumes: Array) -> Pass:
            key = jax.random.fold_in(dropout, 1 + number) if number else dropout
            made, updated = network.apply(
                variables,
                volumes,
                train=True,
                frozen=frozen,
                first=settings.first,
                rngs={"dropout": key},
                mutable=["batch_stats"],
                method="outputs",
            )
            return _pass(made, updated.get("batch_stats", {}))

        def evaluated_pass(volumes: Array) -> Pass:
            made = network.apply(
                variables, volumes, train=False, first=settings.first, method="outputs"
            )
            return _pass(made, state.batch_stats)

        terms = settings.objective.terms(
            Asked(
                params=params,
                memory=state.memory,
                labelled=batch.image,
                unlabelled=batch.image[:0] if batch.unlabelled is None else batch.unlabelled,
                cross_entropy=lambda logits: weighted_loss(
                    logits, batch, settings.loss, batch_axis
                ),
                trained=trained_pass,
                evaluated=evaluated_pass,
                step=state.step,
                batch_axis=batch_axis,
            )
        )
        return terms.loss, (terms.batch_stats, terms.memory)

    (loss, left), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
    return _Gradient(loss, step.vector_of(gradients), *left)
