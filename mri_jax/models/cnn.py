"""The Flax module of the family."""

from itertools import pairwise
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.backend import FEW_PASSES
from mri_jax.keys import typed_key
from mri_jax.models import choice, split
from mri_jax.models.attention import Gate
from mri_jax.models.chosen import Forms, of_layer
from mri_jax.models.conv_layer import (
    Features,
    Moments,
    Parameters,
    Setting,
    conv_layer,
    joined,
    reference,
)
from mri_jax.models.initialisers import CONV, UNIFORM
from mri_jax.models.spec import BATCH, CNNSpec


class Outputs(NamedTuple):
    """What a network computes of a batch, in whatever form its layers take.

    Attributes:
      logits: (N, classes), at least float32.
      penultimate: Input of the last FC layer before its dropout, (N, last hidden size).
      gates: By what gates multiplied: ``attI/channels`` (N, C), ``attI/gate`` (N, X, Y, Z), where
        I is the number of a block.
    """

    logits: Array
    penultimate: Array
    gates: dict[str, Array]


def blend(running: Moments, batch: Moments, count: Array, momentum: float) -> Moments:
    """Returns running statistics after one more batch, with no memory of their initial value.

    Args:
      running: Statistics so far, (C,) each.
      batch: Statistics of this batch.
      count: () int32, batches seen before this one.
      momentum: Weight of the past once enough batches were seen.

    Returns:
      ``(1 - w) * running + w * batch`` with ``w = max(1 - momentum, 1 / (count + 1))``: a plain
      mean at first, an exponential one later.
    """
    weight = jnp.maximum(1.0 - momentum, 1.0 / (count + 1)).astype(batch.mean.dtype)
    return Moments(
        (1 - weight) * running.mean + weight * batch.mean,
        (1 - weight) * running.variance + weight * batch.variance,
    )


class ConvKernel(nn.Module):
    """Holder of a conv layer's ``kernel`` (3, 3, 3, in, out)."""

    channels: int
    filters: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> Array:
        """Returns the kernel."""
        shape = (3, 3, 3, self.channels, self.filters)
        return self.param("kernel", CONV, shape, self.dtype)


class Projection(nn.Module):
    """A 1 x 1 x 1 convolution without bias, ``kernel`` (in, out)."""

    channels: int
    filters: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns (N, X, Y, Z, out) of (N, X, Y, Z, in)."""
        shape = (self.channels, self.filters)
        return x @ self.param("kernel", CONV, shape, self.dtype).astype(x.dtype)


class BatchNormState(nn.Module):
    """Holder of a BatchNorm's ``scale`` and ``bias``, and of its running statistics."""

    filters: int
    momentum: float
    dtype: jnp.dtype

    def setup(self):
        """Declares parameters and statistics."""
        shape, ones, zeros = (self.filters,), nn.initializers.ones, nn.initializers.zeros
        self.scale = self.param("scale", ones, shape, self.dtype)
        self.bias = self.param("bias", zeros, shape, self.dtype)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.dtype)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape, self.dtype)
        # Statistics that come without a count (from elsewhere) can be evaluated; training starts
        # them afresh.
        if self.is_mutable_collection("batch_stats"):
            self.count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)

    def __call__(self) -> tuple[Array, Array]:
        """Returns scale and bias, (C,) each."""
        return self.scale, self.bias

    def running(self) -> Moments:
        """Returns the running statistics, (C,) each."""
        return Moments(self.mean.value, self.var.value)

    def update(self, batch: Moments) -> None:
        """Blends the statistics of a batch into the running ones, where these may change."""
        if self.is_initializing() or not self.is_mutable_collection("batch_stats"):
            return
        self.mean.value, self.var.value = blend(
            self.running(), batch, self.count.value, self.momentum
        )
        self.count.value = self.count.value + 1


class NormParameters(nn.Module):
    """Holder of ``scale`` and ``bias`` of a normalisation without running statistics."""

    filters: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Returns scale and bias, (C,) each."""
        shape = (self.filters,)
        scale = self.param("scale", nn.initializers.ones, shape, self.dtype)
        return scale, self.param("bias", nn.initializers.zeros, shape, self.dtype)


class Dropout(nn.Module):
    """Dropout whose draws are those of the whole batch, however it is split.

    Attributes:
      rate: Share of the numbers that become 0; the others grow by ``1 / (1 - rate)``.
      batch_axis: As in `CNN`.
    """

    rate: float
    batch_axis: str | None = None

    def __call__(self, x: Array, *, deterministic: bool) -> Array:
        """Returns (N, F) numbers after dropout; draws from the rng ``dropout``."""
        if deterministic or self.rate == 0:
            return x
        whole = (x.shape[0] * split.parts(self.batch_axis), *x.shape[1:])
        words = jax.random.key_data(self.make_rng("dropout"))
        # Behind the barrier XLA for GPUs makes both words by one kernel.
        words = jax.lax.platform_dependent(
            words, cuda=jax.lax.optimization_barrier, default=lambda words: words
        )
        kept = jax.random.bernoulli(typed_key(words), 1 - self.rate, whole)
        return jnp.where(split.own(kept, self.batch_axis), x / (1 - self.rate), 0)


class CNN(nn.Module):
    """A member of the family: conv layers ``conv1, bn1, ...``, gates ``att5``, then ``fc1, ...``.

    ``CNN(spec).init(key, x, train=False)`` gives ``{"params": ..., "batch_stats": ...}`` with flat
    layer names: ``conv1/kernel``, ``bn1/scale``, ``bn1/bias``, ``fc1/kernel``, ``fc1/bias``;
    statistics ``bn1/mean``, ``bn1/var`` and ``bn1/count`` (batches seen). Other normalisations than
    BatchNorm are ``norm1`` and have no statistics, and no ``batch_stats``. Gates are named after
    their block: ``att5/kernel``; see `mri_jax.models.attention.Gate`.

    Attributes:
      spec: The network.
      batch_axis: Mapped axis over which a batch is split, each device holding as many of its
        volumes; batch statistics and dropout are those of the whole batch. None: it is in one
        piece.
      forms: How conv layers are computed: one of `mri_jax.models.choice.FORMS`, or a measured
        choice for each layer; all compute one function up to rounding. None: the choice of this
        machine. Where intermediates are kept, and where parameters are drawn, it is the reference.

    Example:
      >>> import jax
      >>> from mri_jax.models import CNN, CNNSpec
      >>> model = CNN(CNNSpec(repetitions=(1,), filters=(8,), fc=(), dropout=(0,)))
      >>> x = jax.random.normal(jax.random.key(0), (2, 8, 9, 10, 1))
      >>> variables = jax.jit(lambda key, x: model.init(key, x, train=False))(jax.random.key(1), x)
      >>> logits, kept = jax.jit(
      ...     lambda v, x: model.apply(v, x, train=False, intermediates=True))(variables, x)
      >>> logits.shape, kept["conv1/feature_map"].shape
      ((2, 2), (2, 8, 9, 10, 8))
    """

    spec: CNNSpec
    batch_axis: str | None = None
    forms: Forms | None = None

    def setup(self):
        """Declares the layers under their flat names."""
        spec = self.spec
        dtype = jnp.dtype("float64" if spec.dtype == "float64" else "float32")
        channels = (1, *spec.conv_filters)
        for i, (c, f) in enumerate(pairwise(channels), start=1):
            setattr(self, f"conv{i}", ConvKernel(c, f, dtype))
            norm = (
                BatchNormState(f, spec.momentum, dtype)
                if spec.norm == BATCH
                else NormParameters(f, dtype)
            )
            setattr(self, spec.norm_names[i - 1], norm)
        for first, last in spec.stretches:
            if name := spec.projection_after[last - 1]:
                setattr(self, name, Projection(channels[first - 1], channels[last], dtype))
        for name in filter(None, spec.gate_after):
            setattr(self, name, Gate(spec.attention, dtype))
        for i, size in enumerate((*spec.fc, spec.classes), start=1):
            layer = nn.Dense(
                size, dtype=jnp.dtype(spec.dtype), param_dtype=dtype, kernel_init=UNIFORM
            )
            setattr(self, f"fc{i}", layer)
        self.dropouts = [Dropout(rate, self.batch_axis) for rate in spec.dropout]

    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        frozen: frozenset[str] = frozenset(),
        first: int = 1,
        intermediates: bool = False,
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Returns the logits of a batch of volumes.

        Args:
          x: (N, X, Y, Z, C), RAS+, unitless after normalisation.
          train: Batch statistics and dropout (needs the rng ``dropout``) instead of running
            statistics and none.
          frozen: Names of BatchNorm layers (``bn1``) that keep to their running statistics, and
            leave them unchanged, though ``train``.
          first: First conv layer to run; ``x`` is then the output of the layer before it (or of
            the last conv layer, for the number of conv layers plus 1).
          intermediates: Also return what the layers compute on the way, by the reference form.

        Returns:
          (N, classes) logits in float32 (float64 for a float64 spec); no softmax. With
          ``intermediates``, also a dict: ``convI/pre_activation``, ``convI/feature_map`` (after
          BatchNorm and ReLU, before pooling), the gates and ``penultimate`` as in `Outputs`.

        Raises:
          UserError: ``x`` has a wrong shape.
        """
        if not intermediates:
            return self.outputs(x, train=train, frozen=frozen, first=first).logits
        if first == 1:
            self.spec.check_input(x.shape)
        kept: dict[str, Array] = {}
        features = self.trunk(x, train=train, frozen=frozen, first=first, kept=kept)
        return self.head(features, train=train, kept=kept), kept

    def outputs(
        self, x: Array, *, train: bool, frozen: frozenset[str] = frozenset(), first: int = 1
    ) -> Outputs:
        """Returns the logits of a batch with the gates and the penultimate features.

        Args:
          x: As in `__call__`, the others too.
          train: Whether the network trains.
          frozen: Names of BatchNorm layers that keep to their running statistics.
          first: First conv layer to run.

        Raises:
          UserError: ``x`` has a wrong shape.
        """
        if first == 1:
            self.spec.check_input(x.shape)
        gates: dict[str, Array] = {}
        features = self.trunk(x, train=train, frozen=frozen, first=first, gates=gates)
        last: dict[str, Array] = {}
        logits = self.head(features, train=train, kept=last)
        return Outputs(logits, last["penultimate"], gates)

    def trunk(
        self,
        x: Array,
        *,
        train: bool,
        frozen: frozenset[str] = frozenset(),
        first: int = 1,
        last: int | None = None,
        kept: dict[str, Array] | None = None,
        gates: dict[str, Array] | None = None,
    ) -> Array:
        """Runs conv layers ``first`` to ``last`` (counted from 1, both included; default: all).

        What belongs to a conv layer (`CNNSpec.of_conv`) runs with it. ``first`` begins, and
        ``last`` ends, one of `CNNSpec.stretches`.

        Args:
          x: Input of conv layer ``first``, (N, X, Y, Z, C).
          train: As in `__call__`.
          frozen: As in `__call__`.
          first: First layer to run.
          last: Last layer to run; 0 runs none.
          kept: Where to put the intermediates; None keeps none.
          gates: Where to put the gates' weights, in any form of the layers; None keeps none.

        Returns:
          Output of layer ``last``, (N, X', Y', Z', C').
        """
        spec = self.spec
        last = len(spec.conv_filters) if last is None else last
        begins = dict(spec.stretches)
        if first <= last and not (first in begins and last in begins.values()):
            raise ValueError(f"conv layers {first} to {last} are not whole ones of {begins}")
        features = Features(x.astype(spec.dtype))
        # What is drawn depends on shapes alone: no kernels are built for it.
        plain = kept is not None or self.is_initializing()
        forms = choice.REFERENCE if plain else choice.resolved(self.forms)
        for i in range(first, last + 1):
            norm: BatchNormState | NormParameters = getattr(self, spec.norm_names[i - 1])
            parameters = Parameters(getattr(self, f"conv{i}")(), *norm())
            batch_norm = norm if isinstance(norm, BatchNormState) else None
            uses_batch = train and f"bn{i}" not in frozen
            running = batch_norm.running() if batch_norm and not uses_batch else None
            pool, filters = spec.conv_pools[i - 1], spec.conv_filters[i - 1]
            form = of_layer(forms, features.value.shape, filters, pool, spec.dtype)
            group = spec.norm_group(filters)
            joins = spec.residual and spec.pool_after[i - 1]
            if joins and form == choice.PALLAS:
                form = choice.XLA  # What is added comes before ReLU.
            setting = Setting(pool, spec.epsilon, self.batch_axis, group, form)
            if spec.residual and i in begins:
                shortcut = features = Features(features.activated())
            beside = self._shortcut(shortcut.value, i) if joins else None
            if form == choice.REFERENCE:
                maps = features.activated()
                pooled = setting._replace(pool=spec.pool_after[i - 1])
                stages, stats = reference.conv_layer(maps, parameters, running, pooled, beside)
                features = Features(stages.output)
                if kept is not None:
                    kept[f"conv{i}/pre_activation"] = stages.pre_activation
                    kept[f"conv{i}/feature_map"] = stages.feature_map
            else:
                features, stats = conv_layer(features, parameters, running, setting)
                if beside is not None:
                    features = Features(joined(features, beside))
            if batch_norm and uses_batch:
                batch_norm.update(stats)
            if spec.gate_after[i - 1]:
                output, weights = self.gated(features.activated(), i)
                features = Features(output)
                for to in (kept, gates):
                    if to is not None:
                        to.update(weights)
        return features.activated()

    def _shortcut(self, x: Array, layer: int) -> Array:
        """Returns what is added to the last conv layer of a block whose input is ``x``."""
        name = self.spec.projection_after[layer - 1]
        return getattr(self, name)(x) if name else x

    def gated(self, x: Array, layer: int) -> tuple[Array, dict[str, Array]]:
        """Runs the gate that follows a conv layer (from 1), where there is one.

        Args:
          x: Pooled output of the layer, (N, X, Y, Z, C).
          layer: Which.

        Returns:
          Gated maps, and the gate's weights by name as in `Outputs`; ``x`` and none without a gate.
        """
        name = self.spec.gate_after[layer - 1]
        if not name:
            return x, {}
        output, weights = getattr(self, name)(x)
        return output, {f"{name}/{kind}": weight for kind, weight in weights.items()}

    def head(self, x: Array, *, train: bool, kept: dict[str, Array] | None = None) -> Array:
        """Runs the fully connected layers on the flattened output of the last conv layer.

        Args:
          x: (N, X', Y', Z', C'), flattened channels-last.
          train: Whether dropout is active.
          kept: Where to put the penultimate features; None keeps none.

        Returns:
          (N, classes) logits, at least float32.
        """
        x = x.reshape(x.shape[0], -1)
        count = len(self.spec.fc) + 1
        for i in range(1, count + 1):
            if i == count and kept is not None:
                kept["penultimate"] = x
            x = self.dropouts[i - 1](x, deterministic=not train)
            x = getattr(self, f"fc{i}")(x)
            if i < count:
                x = nn.relu(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def fresh_variables(
    spec: CNNSpec, shape: tuple[int, int, int], key: Array | np.ndarray
) -> dict[str, Any]:
    """Draws the parameters and statistics of a network; the bytes of `CNN.init`.

    Networks without statistics have an empty ``batch_stats``.

    Args:
      spec: The network.
      shape: (X, Y, Z) of a volume.
      key: (2,) uint32 words, as of `mri_jax.keys.random_key`.
    """
    return (_drawn_on_cpu if jax.default_backend() == "cpu" else _drawn)(spec, shape, key)


def _drawn(spec: CNNSpec, shape: tuple[int, int, int], key: Array | np.ndarray) -> dict[str, Any]:
    # `lazy_init` makes no pass over a volume.
    volume = jax.ShapeDtypeStruct((1, *shape, 1), jnp.float32)
    return {"batch_stats": {}, **CNN(spec).lazy_init(typed_key(key), volume, train=False)}


_drawn_on_cpu = jax.jit(_drawn, static_argnums=(0, 1), compiler_options=FEW_PASSES)
