"""One training step: pure functions, to be jitted, scanned or mapped."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from mri_jax.errors import UserError
from mri_jax.keys import random_key, typed_key
from mri_jax.models import CNN, CNNSpec, split
from mri_jax.models.chosen import Forms
from mri_jax.models.cnn import Outputs, fresh_variables
from mri_jax.training import freezing
from mri_jax.training.objectives import CROSS_ENTROPY, Asked, Objective, Pass
from mri_jax.training.state import Batch, TrainState

# Raised by hand whenever the same seed and data would give other numbers than before.
NUMERICS_VERSION = 4


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
    """

    spec: CNNSpec
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    rules: freezing.Rules = ((".*", True),)
    frozen_statistics: str = "keep"
    first: int = 1
    objective: Objective = CROSS_ENTROPY

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
    """

    dropout: Array
    augmentation: Array


def step_keys(key: Array, step: Array) -> StepKeys:
    """Returns the random keys of a step.

    No number is drawn from dropout's key itself, so it is the step's own, from which augmentation's
    is made. Both are the keys of every version with this `NUMERICS_VERSION`.

    Args:
      key: (2,) uint32, the training's.
      step: () int32, how many steps were taken before.
    """
    own = jax.random.fold_in(typed_key(key), step)
    return StepKeys(dropout=own, augmentation=jax.random.fold_in(own, 1))


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


def _in_pieces(like: Any, vector: Array) -> Any:
    """Returns the tree that `ravel_pytree` made a vector of, for TPUs.

    XLA would give the whole vector the shape of the last layer's kernel, two of 128 lanes, before
    it cuts that out; behind the barrier each piece gets its shape alone.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = list(accumulate(leaf.size for leaf in leaves))
    pieces = lax.optimization_barrier(jnp.split(vector, ends[:-1]))
    shaped = (piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True))
    return jax.tree.unflatten(structure, shaped)


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
    mask = freezing.trainable_mask(settings.rules, state.params)
    trained = freezing.select(state.params, mask)
    fixed = freezing.select(state.params, mask, keep=False)
    frozen = freezing.frozen_norms(mask) if settings.frozen_statistics == "keep" else frozenset()
    dropout = step_keys(state.key, state.step).dropout

    network = CNN(settings.spec, batch_axis, forms)

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
    blended, memory = left
    loss, gradient = split.total((loss, ravel_pytree(gradients)[0]), batch_axis)
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
    vector, unravel = ravel_pytree(trained)
    optimizer = optimizer_of(settings.optimizer, trained)
    updates, opt_state = optimizer.update(gradient, state.opt_state, vector)
    stepped = optax.apply_updates(vector, updates)
    # Statistics of layers that did not run (a cached prefix) are not among the blended ones.
    statistics = {**state.batch_stats, **blended}

    def keep_if_broken(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

    following = dataclasses.replace(
        state,
        params=freezing.merge(
            lax.platform_dependent(
                keep_if_broken(stepped, vector),
                cpu=unravel,
                tpu=partial(_in_pieces, trained),
                # Without the barrier XLA takes the step anew where each piece is cut out.
                default=lambda v: unravel(lax.optimization_barrier(v)),
            ),
            fixed,
        ),
        batch_stats=keep_if_broken(statistics, state.batch_stats),
        opt_state=keep_if_broken(opt_state, state.opt_state),
        step=state.step + 1,
        memory=keep_if_broken(memory, state.memory),
    )
    metrics = {"loss": loss, "finite": finite}
    return following, {name: value.astype(jnp.float32) for name, value in metrics.items()}
