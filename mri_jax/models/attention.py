"""Gates that weigh the output of a block: by channel, by position, or both.

A gate stands after a block's pooling, so that conv layers keep their fast forms. It computes in at
least float32, each volume by itself.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mri_jax.models.conv_layer import reference
from mri_jax.models.initialisers import UNIFORM
from mri_jax.models.spec import hidden_units

CHANNELS, POSITIONS = "channels", "gate"
"""Names of what a gate computes, after that of its layer: ``att5/channels``, ``att5/gate``."""
POSITIONAL = ("spatial", "cbam", "map")
"""Kinds that weigh positions."""


class Gate(nn.Module):
    """One gate of the kinds of `mri_jax.models.CNNSpec.attention`.

    - ``se``: squeeze and excitation (Hu et al. 2018), the mean of each channel through two layers
      without biases (``down_kernel``, ``up_kernel``), ReLU between them, and a sigmoid.
    - ``spatial``: mean and maximum over channels, a 3 x 3 x 3 convolution of these two
      (``kernel``, ``bias``), and a sigmoid: the spatial gate of CBAM and of DA-MIDL.
    - ``cbam`` (Woo et al. 2018): as ``se`` with the sum over the mean and the maximum of each
      channel before the sigmoid, then ``spatial``.
    - ``map``: a trainable weight for each position, 1 at first (``weight``), as Jin et al. 2020
      weigh positions independently of channels. What they start from, and whether their weights
      are bounded, their public text does not say.

    Of equal maxima the first takes the gradient, in row-major order.

    Attributes:
      kind: Which.
      dtype: Of the parameters.
    """

    kind: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, dict[str, Array]]:
        """Returns gated maps, and the weights by which they were multiplied.

        Args:
          x: (N, X, Y, Z, C), activated.

        Returns:
          An array as ``x``; and of these what the kind has: ``channels`` (N, C), ``gate``
          (N, X, Y, Z).
        """
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        weights = {}
        if self.kind in ("se", "cbam"):
            weights[CHANNELS] = self._of_channels(wide)
            wide = wide * weights[CHANNELS][:, None, None, None]
        if self.kind in ("spatial", "cbam"):
            weights[POSITIONS] = self._of_positions(wide)
        if self.kind == "map":
            own = self.param("weight", nn.initializers.ones, x.shape[1:4], self.dtype)
            weights[POSITIONS] = jnp.broadcast_to(own, x.shape[:4])
        if POSITIONS in weights:
            wide = wide * weights[POSITIONS][..., None]
        return wide.astype(x.dtype), weights

    def _of_channels(self, x: Array) -> Array:
        channels = x.shape[-1]
        hidden = hidden_units(channels)
        down = self.param("down_kernel", UNIFORM, (channels, hidden), self.dtype)
        up = self.param("up_kernel", UNIFORM, (hidden, channels), self.dtype)
        found = nn.relu(x.mean((1, 2, 3)) @ down) @ up
        if self.kind == "cbam":
            found += nn.relu(_maximum(x.reshape(len(x), -1, channels), 1) @ down) @ up
        return jax.nn.sigmoid(found)

    def _of_positions(self, x: Array) -> Array:
        kernel = self.param("kernel", UNIFORM, (3, 3, 3, 2, 1), self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (1,), self.dtype)
        both = jnp.stack([x.mean(-1), _maximum(x, 4)], -1)
        return jax.nn.sigmoid(reference.convolve(both, kernel) + bias)[..., 0]


def _maximum(x: Array, axis: int) -> Array:
    """Returns the maximum over an axis.

    The gradient of `jnp.max` compares ``x`` with its maximum. XLA may compute ``x`` anew for that
    and round it otherwise, and then no number equals the maximum and the gradient is lost.
    """
    first = jnp.expand_dims(x.argmax(axis), axis)
    place = jax.lax.broadcasted_iota(first.dtype, x.shape, axis)
    return jnp.where(place == first, x, 0).sum(axis)
