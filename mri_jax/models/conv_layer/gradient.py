"""What the backward pass of a conv layer hands to its form, and what it gets back."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.moments import Moments


class Gradients(NamedTuple):
    """What a form computes on the way back.

    Attributes:
      x: Of the input's value and norm; None where not wanted.
      kernel: (3, 3, 3, C, F); None where not wanted.
    """

    x: Features | None
    kernel: Array | None


class Everywhere(NamedTuple):
    """A gradient ``constant + slope * z`` at every voxel: the way through the moments.

    Attributes:
      constant: (N, F).
      slope: (N, F).
    """

    constant: Array
    slope: Array


class PreActivationGradient(NamedTuple):
    """The gradient of the pre-activation ``z``, before it is spread over the volume.

    Attributes:
      selected: Gradient at the selected voxels, in the selection's shape.
      offset: Where they stand in their windows, as in `pooling.Selection`.
      everywhere: What is added at every voxel; None where the moments are not used.
      z: The pre-activation as the forward pass kept it; None: it is computed again if needed.
    """

    selected: Array
    offset: Array
    everywhere: Everywhere | None
    z: Array | None


def everywhere_of(through: Moments, each: Moments, voxels: int) -> Everywhere:
    """Returns the way through the moments.

    Args:
      through: The gradient of the moments of volumes, (N, F).
      each: The moments.
      voxels: How many a volume has.
    """
    slope = 2 * through.variance / voxels
    return Everywhere(through.mean / voxels - slope * each.mean, slope)


def instantiated(cotangent: Any) -> Array:
    """Returns a gradient as an array, also where it is known to be zero."""
    if isinstance(cotangent, SymbolicZero):
        return jnp.zeros(cotangent.shape, cotangent.dtype)
    return cotangent
