"""A state in few arrays, as programs of many steps carry it from one to the next.

A step that reads and writes every parameter and statistic as an array of its own has a kernel for
each of them, whose launch takes longer than its work.
"""

import dataclasses
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from mri_jax.training import freezing
from mri_jax.training.state import TrainState


@flax.struct.dataclass
class PackedState:
    """A `TrainState` in few arrays.

    Attributes:
      trained: (P,) the parameters that train, as `vector_of` makes a vector of their tree.
      fixed: The tree of the parameters that do not train.
      statistics: (S,) mean and variance of every BatchNorm layer.
      averages: The optimizer's averages, (P,) each, in the order of ``trained``.
      counts: int32, all that counts: batches seen by each BatchNorm layer and by the optimizer, and
        last the steps taken.
      key: As in `TrainState`.
      memory: As there.
    """

    trained: Array
    fixed: Any
    statistics: Array
    averages: Any
    counts: Array
    key: Array
    memory: Any

    @property
    def step(self) -> Array:
        """Returns how many steps were taken, () int32."""
        return self.counts[-1]


def packed(state: TrainState, rules: freezing.Rules) -> PackedState:
    """Returns a state in few arrays; ``rules`` say which parameters train."""
    parts = _parts(state, rules)
    return PackedState(
        trained=vector_of(parts.trained),
        fixed=parts.fixed,
        statistics=ravel_pytree(parts.statistics)[0],
        averages=jax.tree.map(lambda v: vector_of(_cut(parts.trained, v)), parts.averages),
        counts=ravel_pytree(parts.counts)[0],
        key=state.key,
        memory=state.memory,
    )


def unpacked(state: PackedState, like: TrainState, rules: freezing.Rules) -> TrainState:
    """Returns the state that `packed` was given; ``like`` has its shapes."""
    trained = _parts(like, rules).trained
    averages = jax.tree.map(lambda v: ravel_pytree(tree_of(trained, v))[0], state.averages)
    return opened(dataclasses.replace(state, averages=averages), like, rules)


def opened(state: PackedState, like: TrainState, rules: freezing.Rules) -> TrainState:
    """Returns the state for a step to read; the optimizer's averages keep their order."""
    parts = _parts(like, rules)
    of_norms, of_optimizer, step = _cut(parts.counts, state.counts)
    return TrainState(
        params=freezing.merge(tree_of(parts.trained, state.trained), state.fixed),
        batch_stats=freezing.merge(_cut(parts.statistics, state.statistics), of_norms),
        opt_state=freezing.merge(state.averages, of_optimizer),
        step=step,
        key=state.key,
        memory=state.memory,
    )


def closed(state: PackedState, new: TrainState, trained: Array) -> PackedState:
    """Returns the packed state with what a step made of the `opened` one.

    Args:
      state: The packed state.
      new: The opened one after the step, but for its parameters.
      trained: What trains, after the step.
    """
    statistics, of_norms = _by_kind(new.batch_stats)
    averages, of_optimizer = _by_kind(new.opt_state)
    return dataclasses.replace(
        state,
        trained=trained,
        statistics=ravel_pytree(statistics)[0],
        averages=averages,
        counts=ravel_pytree((of_norms, of_optimizer, new.step))[0],
        memory=new.memory,
    )


def vector_of(tree: Any) -> Array:
    """Returns the numbers of a tree of parameters as one vector.

    It is that of `ravel_pytree`, but on NVIDIA GPUs kernels are laid as cuDNN's convolutions take
    them, (F, C, 3, 3, 3): a step turns neither them nor their gradients.
    """
    return lax.platform_dependent(
        tree,
        cuda=lambda tree: ravel_pytree(jax.tree.map(_turned, tree))[0],
        default=lambda tree: ravel_pytree(tree)[0],
    )


def tree_of(like: Any, vector: Array) -> Any:
    """Returns the tree that `vector_of` made a vector of; ``like`` has its shapes."""
    turned = jax.eval_shape(lambda: jax.tree.map(lambda a: _turned(jnp.zeros(a.shape)), like))

    def back(vector: Array) -> Any:
        return jax.tree.map(_turned_back, _cut(turned, vector))

    return lax.platform_dependent(vector, cuda=back, default=lambda vector: _cut(like, vector))


def _cut(like: Any, vector: Array) -> Any:
    """Returns the tree that `jax.flatten_util.ravel_pytree` made a vector of.

    Args:
      like: A tree of its shapes.
      vector: The vector.
    """
    leaves, structure = jax.tree.flatten(like)
    if not leaves:  # Networks without statistics.
        return like
    ends = list(accumulate(prod(leaf.shape) for leaf in leaves))
    pieces = jnp.split(vector, ends[:-1])
    # XLA for TPUs would give the whole vector the shape of the last layer's kernel, two of 128
    # lanes, before it cuts that out; behind the barrier each piece gets its shape alone.
    pieces = lax.platform_dependent(pieces, tpu=lax.optimization_barrier, default=lambda p: p)
    shaped = (piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True))
    return jax.tree.unflatten(structure, shaped)


class _Parts(NamedTuple):
    """What a state is packed of, each as a tree."""

    trained: Any
    fixed: Any
    statistics: Any
    averages: Any
    counts: Any


def _parts(state: TrainState, rules: freezing.Rules) -> _Parts:
    mask = freezing.trainable_mask(rules, state.params)
    trained, fixed = (freezing.select(state.params, mask, keep) for keep in (True, False))
    statistics, of_norms = _by_kind(state.batch_stats)
    averages, of_optimizer = _by_kind(state.opt_state)
    return _Parts(trained, fixed, statistics, averages, (of_norms, of_optimizer, state.step))


def _by_kind(tree: Any) -> tuple[Any, Any]:
    """Returns two trees: of its numbers and of its counts."""
    numbers = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating), tree)
    return freezing.select(tree, numbers), freezing.select(tree, numbers, keep=False)


def _turned(leaf: Array) -> Array:
    """Returns a conv layer's kernel (3, 3, 3, C, F) as (F, C, 3, 3, 3); others as they are."""
    return leaf.transpose(4, 3, 0, 1, 2) if leaf.ndim == 5 else leaf


def _turned_back(leaf: Array) -> Array:
    return leaf.transpose(2, 3, 4, 1, 0) if leaf.ndim == 5 else leaf
