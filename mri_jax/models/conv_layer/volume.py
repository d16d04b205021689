"""The kernel's gradient by XLA's own 3D convolution, the form of accelerators."""

import jax.numpy as jnp
from jax import Array, lax


def kernel_gradient(x: Array, dz: Array) -> Array:
    """Gradient of `reference.convolve` with respect to its kernel, accumulated in at least float32.

    Args:
      x: (N, X, Y, Z, C).
      dz: (N, X, Y, Z, F).

    Returns:
      (3, 3, 3, C, F).
    """
    return lax.conv_general_dilated(
        x,
        dz,
        (1, 1, 1),
        ((1, 1), (1, 1), (1, 1)),
        dimension_numbers=("CXYZN", "IXYZO", "XYZNC"),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
