"""The depth/width description of a 3D-CNN, and the paper's family."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mri_jax.errors import UserError

# Conv layers in each of the five blocks; a block ends in 2 x 2 x 2 max pooling, so every member
# has five pools. Source: the paper, section 2; filters beyond CNN-5's first layer are assumptions
# (BUILD_NOTES.md).
PRESETS: dict[str, tuple[int, ...]] = {
    "cnn5": (1, 1, 1, 1, 1),
    "cnn7": (1, 1, 1, 2, 2),
    "cnn10": (2, 2, 2, 2, 2),
    "cnn12": (2, 2, 2, 3, 3),
}
# Fields of earlier versions, which files still hold, with the values that mean what is done now.
_RETIRED = {"in_channels": (1,), "form": ("fast", "native", "reference")}
DTYPES = ("float32", "bfloat16", "float64")
NO_ATTENTION = "none"
ATTENTION = (NO_ATTENTION, "se", "spatial", "cbam", "map")
BATCH = "batch"
NORMS = (BATCH, "instance", "group")
# Channels that share statistics under ``group``, where their number is a multiple of it.
_GROUP = 8
# Gates of channels go through so many times fewer units (Hu et al. 2018), but at least through a
# few: narrow networks would have one, which ReLU may switch off for good.
_REDUCTION, _FEWEST = 16, 4


@dataclass(frozen=True)
class CNNSpec:
    """A 3D-CNN: blocks of (conv 3x3x3, normalisation, ReLU) ending in max pooling, then FC layers.

    Attributes:
      repetitions: Conv layers in each block; 2 x 2 x 2 max pooling follows the last of a block.
      filters: Filters of the conv layers of each block, before ``width``.
      width: Factor on every entry of ``filters``; the product is rounded, and is at least 1.
      fc: Sizes of the hidden fully connected layers; one more maps to ``classes``.
      dropout: Rate applied to the input of each fully connected layer, the last included.
      classes: Number of classes.
      momentum: Of the BatchNorm running statistics; see `mri_jax.models.cnn.blend`.
      epsilon: Added to the variance in normalisations.
      dtype: Of the activations: ``float32``, ``bfloat16`` (parameters and statistics stay float32)
        or ``float64`` (everything; needs ``jax_enable_x64``).
      attention: Which gate stands after the pooling of some blocks, of `ATTENTION`; see
        `mri_jax.models.attention.Gate`.
      attention_blocks: Numbers of these blocks, from 1; () becomes the last two where there is
        attention, and must be () where there is none.
      norm: What follows a convolution: ``batch`` (Ioffe & Szegedy 2015); ``instance``, each channel
        of each volume by its own mean and variance, in evaluation too (Ulyanov et al. 2016); or
        ``group``, the same for groups of channels (Wu & He 2018), see `norm_group`.
      residual: Whether the input of a block is added to the normalised output of its last
        convolution, before ReLU and pooling: as it is where both have as many channels, else
        through a 1 x 1 x 1 convolution (He et al. 2016).

    Raises:
      UserError: (a ValueError) A value breaks its rule.

    Example:
      >>> from mri_jax.models import CNNSpec
      >>> CNNSpec.preset("cnn7", width=0.5).conv_filters
      (4, 8, 16, 32, 32, 64, 64)
      >>> CNNSpec(repetitions=(1, 2), filters=(8, 16)).pool_after
      (True, False, True)
    """

    repetitions: tuple[int, ...] = PRESETS["cnn5"]
    filters: tuple[int, ...] = (8, 16, 32, 64, 128)
    width: float = 1.0
    fc: tuple[int, ...] = (128, 64)
    dropout: tuple[float, ...] = (0.5, 0.5, 0.0)
    classes: int = 2
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: str = "float32"
    attention: str = NO_ATTENTION
    attention_blocks: tuple[int, ...] = ()
    norm: str = BATCH
    residual: bool = False

    def __post_init__(self):
        for name in ("repetitions", "filters", "fc", "dropout", "attention_blocks"):
            value = getattr(self, name)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise UserError(f"{name}: {value!r} must be a sequence of numbers")
            object.__setattr__(self, name, tuple(value))
        if not self.repetitions:
            raise UserError("repetitions: () must have at least one block")
        for name in ("repetitions", "filters", "fc", "attention_blocks"):
            for value in getattr(self, name):
                _require_int(name, value, least=1)
        _require_int("classes", self.classes, least=2)
        for name in ("width", "momentum", "epsilon"):
            _require_finite(name, getattr(self, name))
        for rate in self.dropout:
            _require_finite("dropout", rate)
        rules = (
            ("filters", len(self.filters) == len(self.repetitions), "one entry for each block"),
            ("dropout", len(self.dropout) == len(self.fc) + 1, "one rate for each FC layer"),
            ("dropout", all(0 <= rate < 1 for rate in self.dropout), "rates in [0, 1)"),
            ("width", self.width > 0, "a positive number"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("epsilon", self.epsilon > 0, "a positive number"),
            ("dtype", self.dtype in DTYPES, f"one of {DTYPES}"),
            ("residual", isinstance(self.residual, bool), "True or False"),
            ("norm", self.norm in NORMS, f"one of {NORMS}"),
            ("attention", self.attention in ATTENTION, f"one of {ATTENTION}"),
            ("attention_blocks", *self._blocks_rule()),
        )
        for name, holds, rule in rules:
            if not holds:
                raise UserError(f"{name}: {getattr(self, name)!r} must be {rule}")
        if self.attention != NO_ATTENTION and not self.attention_blocks:
            blocks = range(1, len(self.repetitions) + 1)
            object.__setattr__(self, "attention_blocks", tuple(blocks[-2:]))

    def _blocks_rule(self) -> tuple[bool, str]:
        given = self.attention_blocks
        if self.attention == NO_ATTENTION:
            return not given, "() where attention is 'none'"
        blocks = range(1, len(self.repetitions) + 1)
        rising = list(given) == sorted({*given} & {*blocks})
        return rising, f"rising numbers of blocks, 1 to {blocks[-1]}"

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "CNNSpec":
        """Returns a member of the paper's family, e.g. ``CNNSpec.preset("cnn5", width=4.0)``.

        Args:
          name: ``cnn5``, ``cnn7``, ``cnn10`` or ``cnn12``.
          **changes: Fields to set on it.
        """
        if name not in PRESETS:
            raise UserError(f"preset: {name!r} must be one of {tuple(PRESETS)}")
        return cls._of({"repetitions": PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CNNSpec":
        """Returns the spec of some fields, as `to_dict` writes them, others at their default.

        Raises:
          UserError: A field is unknown, or was retired and has a value that cannot be had any more.
        """
        return cls._of(without_retired(values))

    @classmethod
    def _of(cls, given: Mapping[str, Any]) -> "CNNSpec":
        known = {field.name for field in dataclasses.fields(cls)}
        for name in given:
            if name not in known:
                raise UserError(f"spec: {name!r} is not a field; choose from {sorted(known)}")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def conv_filters(self) -> tuple[int, ...]:
        """Returns the filters of conv1, conv2, ... after the width factor."""
        widened = (max(1, math.floor(f * self.width + 0.5)) for f in self.filters)
        pairs = zip(widened, self.repetitions, strict=True)
        return tuple(f for f, count in pairs for _ in range(count))

    @property
    def pool_after(self) -> tuple[bool, ...]:
        """Returns whether 2 x 2 x 2 max pooling follows conv1, conv2, ..."""
        return tuple(i == n - 1 for n in self.repetitions for i in range(n))

    def norm_group(self, channels: int) -> int | None:
        """Returns how many channels of a layer share the statistics of a volume; None: BatchNorm.

        Groups are of 8 channels, or of the largest number below by which they can be divided.

        >>> spec = CNNSpec(norm="group")
        >>> spec.norm_group(64), spec.norm_group(12), CNNSpec(norm="instance").norm_group(64)
        (8, 6, 1)
        """
        if self.norm == BATCH:
            return None
        sizes = range(_GROUP, 1, -1) if self.norm == "group" else ()
        return next((size for size in sizes if channels % size == 0), 1)

    @property
    def norm_names(self) -> tuple[str, ...]:
        """Returns the names of the normalisations after conv1, conv2, ...: ``bn1``, ``norm1``."""
        kind = "bn" if self.norm == BATCH else "norm"
        return tuple(f"{kind}{i}" for i in range(1, len(self.conv_filters) + 1))

    @property
    def conv_pools(self) -> tuple[bool, ...]:
        """Returns whether conv1, conv2, ... pool by themselves: not where something joins them."""
        return tuple(pool and not self.residual for pool in self.pool_after)

    @property
    def stretches(self) -> tuple[tuple[int, int], ...]:
        """Returns (first, last) of conv layers that run apart from others, from 1, in their order.

        Each layer by itself, or where the input of a block is needed at its end, each block.

        >>> CNNSpec.preset("cnn7", residual=True).stretches
        ((1, 1), (2, 2), (3, 3), (4, 5), (6, 7))
        """
        if not self.residual:
            return tuple((i, i) for i in range(1, len(self.conv_filters) + 1))
        ends = list(accumulate(self.repetitions))
        return tuple((end - n + 1, end) for end, n in zip(ends, self.repetitions, strict=True))

    @property
    def projection_after(self) -> tuple[str, ...]:
        """Returns the 1 x 1 x 1 convolution that joins conv1, ...: ``proj1``; empty: none does."""
        names = [""] * len(self.conv_filters)
        channels = (1, *self.conv_filters)
        for block, (first, last) in enumerate(self.stretches if self.residual else (), start=1):
            if channels[first - 1] != channels[last]:
                names[last - 1] = f"proj{block}"
        return tuple(names)

    @property
    def gate_after(self) -> tuple[str, ...]:
        """Returns the name of the gate that follows conv1, conv2, ..., ``att5``; empty: none.

        A gate is numbered as its block, and belongs to the conv layer that it follows.
        """
        ends = [sum(self.repetitions[:block]) for block in self.attention_blocks]
        names = dict(zip(ends, self.attention_blocks, strict=True))
        convs = range(1, len(self.conv_filters) + 1)
        return tuple(f"att{names[i]}" if i in names else "" for i in convs)

    def of_conv(self, i: int) -> tuple[str, ...]:
        """Returns the layers that belong to conv layer ``i`` (from 1), itself first.

        >>> CNNSpec(attention="se").of_conv(5)
        ('conv5', 'bn5', 'att5')
        """
        of_block = self.projection_after[i - 1], self.gate_after[i - 1]
        names = (f"conv{i}", self.norm_names[i - 1], *of_block)
        return tuple(name for name in names if name)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Returns ``conv1, bn1, conv2, ..., fc1, ...`` in the order of the forward pass."""
        convs = range(1, len(self.conv_filters) + 1)
        blocks = [name for i in convs for name in self.of_conv(i)]
        return (*blocks, *(f"fc{i}" for i in range(1, len(self.fc) + 2)))

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Checks the shape (N, X, Y, Z, 1) of a batch of volumes.

        Raises:
          UserError: Wrong rank or number of channels, or a volume too small for the pools.
        """
        if len(shape) != 5 or shape[4] != 1:
            raise UserError(f"x: shape {shape} must be (N, X, Y, Z, 1)")
        least = 2 ** len(self.repetitions)
        if min(shape[1:4]) < least:
            raise UserError(
                f"x: volume {shape[1:4]} must be at least {least} voxels along every axis for "
                f"{len(self.repetitions)} poolings"
            )


def hidden_units(channels: int) -> int:
    """Returns through how many units a gate of channels goes."""
    return max(_FEWEST, channels // _REDUCTION)


def without_retired(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a spec's fields as an earlier version wrote them without those that are no more.

    Raises:
      UserError: One of these has a value that cannot be had any more.
    """
    for name, left in _RETIRED.items():
        if name in values and values[name] not in left:
            known = " or ".join(map(repr, left))
            raise UserError(f"spec: {name} must be {known}; others are not supported any more")
    return {name: value for name, value in values.items() if name not in _RETIRED}


def _require_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}: {value!r} must be an integer of at least {least}")


def _require_finite(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name}: {value!r} must be a finite number")
