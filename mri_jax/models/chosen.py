"""A form for each conv layer, chosen by measurement (`mri_jax.models.measuring`); without JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from mri_jax.models.spec import CNNSpec


@dataclass(frozen=True)
class LayerKind:
    """A conv layer on a kind of device: all that decides which form is the fastest.

    Attributes:
      device: Kind of the device, as JAX names it.
      jaxlib: Version of jaxlib.
      size: (X, Y, Z) of a volume that the layer takes.
      channels: Of its input.
      filters: How many it has.
      pool: Whether 2 x 2 x 2 max pooling follows.
      batch: Volumes of a training step.
      dtype: Of the activations.
    """

    device: str
    jaxlib: str
    size: tuple[int, int, int]
    channels: int
    filters: int
    pool: bool
    batch: int
    dtype: str

    def __str__(self) -> str:
        size = " x ".join(map(str, self.size))
        return f"{self.channels} to {self.filters} channels at {size}"


@dataclass(frozen=True)
class Choice:
    """The form that a conv layer takes, and what was measured of all candidates.

    Attributes:
      layer: The layer.
      form: The fastest form that agrees with the reference.
      seconds: Of the layer's part of a training step, forward and back, for each form that agrees.
      refused: Why each of the other candidates was not taken.
    """

    layer: LayerKind
    form: str
    seconds: Mapping[str, float] = field(hash=False)
    refused: Mapping[str, str] = field(hash=False, default_factory=dict)


Forms = str | tuple[Choice, ...]
"""A form for all layers, or a choice for each layer."""


def layers_of(
    spec: CNNSpec, size: tuple[int, int, int], batch: int, device: str, jaxlib: str
) -> tuple[LayerKind, ...]:
    """Returns the conv layers of a network on a kind of device, in their order.

    Args:
      spec: The network.
      size: (X, Y, Z) of a volume.
      batch: Volumes of a training step.
      device: Kind of the device.
      jaxlib: Version of jaxlib.
    """
    layers = []
    pairs = pairwise((1, *spec.conv_filters))
    for (channels, filters), pool, pools in zip(
        pairs, spec.conv_pools, spec.pool_after, strict=True
    ):
        layers.append(LayerKind(device, jaxlib, size, channels, filters, pool, batch, spec.dtype))
        if pools:
            size = (size[0] // 2, size[1] // 2, size[2] // 2)
    return tuple(layers)


def of_layer(forms: Forms, shape: tuple[int, ...], filters: int, pool: bool, dtype: str) -> str:
    """Returns the form of one layer.

    Of choices for several sizes of a batch that of the nearest is taken: evaluation has batches of
    its own.

    Args:
      forms: The forms.
      shape: (N, X, Y, Z, C) of its input.
      filters: How many it has.
      pool: Whether max pooling follows.
      dtype: Of its input.

    Raises:
      ValueError: Nothing was measured for this layer.
    """
    if isinstance(forms, str):
        return forms
    wanted = (tuple(shape[1:4]), shape[4], filters, pool, dtype)
    found = [
        (abs(c.layer.batch - shape[0]), c.layer.batch, c.form)
        for c in forms
        if (c.layer.size, c.layer.channels, c.layer.filters, c.layer.pool, c.layer.dtype) == wanted
    ]
    if not found:
        raise ValueError(f"no form was chosen for a conv layer of {wanted}")
    return min(found)[-1]


def recorded(forms: Forms, layers: tuple[LayerKind, ...]) -> str:
    """Returns the forms of a network's layers as text: one name where all are the same.

    Example:
      >>> from mri_jax.models.chosen import recorded
      >>> recorded("xla", ())
      'xla'
    """
    if isinstance(forms, str):
        return forms
    of = {choice.layer: choice.form for choice in forms}
    names = [of[layer] for layer in layers]
    return names[0] if len(set(names)) == 1 else ",".join(names)
