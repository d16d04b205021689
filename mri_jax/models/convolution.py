"""3D convolution and its two gradients, in the form that is fastest on the machine at hand.

XLA's 3D convolution on CPUs is slow where its 2D one is not, so there a 3 x 3 x 3 convolution is
the sum over three planes of 2D convolutions; it is the same sum in another order. Elsewhere XLA's
own 3D form is used. `docs/performance.md` has the measurements behind every rule here.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

_PLANES = ("NHWC", "HWIO", "NHWC")


def on_cpu() -> bool:
    """Whether arrays live on the CPU unless placed elsewhere."""
    device = jax.config.jax_default_device
    return (device.platform if hasattr(device, "platform") else jax.default_backend()) == "cpu"


def convolve(x: Array, kernel: Array) -> Array:
    """3D convolution, stride 1, zero padding to the same size.

    Args:
      x: (N, X, Y, Z, C).
      kernel: (3, 3, 3, C, F), same dtype.

    Returns:
      (N, X, Y, Z, F).
    """
    if not on_cpu():
        return lax.conv_general_dilated(
            x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NXYZC", "XYZIO", "NXYZC")
        )
    n, planes, y, z, channels = x.shape
    filters = kernel.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    def in_plane(images: Array, weights: Array) -> Array:
        stack = images.reshape(-1, y, z, channels)
        out = lax.conv_general_dilated(stack, weights, (1, 1), "SAME", dimension_numbers=_PLANES)
        return out.reshape(n, images.shape[1], y, z, -1)

    if filters >= 32 or filters > channels >= 16:
        taps = [in_plane(padded[:, t : t + planes], kernel[t]) for t in range(3)]
        return taps[0] + taps[1] + taps[2]
    # Few filters starve the matrix product inside: compute all three taps of a plane at once.
    side_by_side = jnp.moveaxis(kernel, 0, 3).reshape(3, 3, channels, 3 * filters)
    taps = in_plane(padded, side_by_side)
    return (
        taps[:, :planes, ..., :filters]
        + taps[:, 1 : planes + 1, ..., filters : 2 * filters]
        + taps[:, 2:, ..., 2 * filters :]
    )


def input_gradient(dz: Array, kernel: Array) -> Array:
    """Gradient of `convolve` with respect to its input: a convolution with the flipped kernel.

    Args:
      dz: (N, X, Y, Z, F).
      kernel: (3, 3, 3, C, F).

    Returns:
      (N, X, Y, Z, C).
    """
    return convolve(dz, jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4))


def kernel_gradient(x: Array, dz: Array) -> Array:
    """Gradient of `convolve` with respect to its kernel, accumulated in at least float32.

    Args:
      x: (N, X, Y, Z, C).
      dz: (N, X, Y, Z, F).

    Returns:
      (3, 3, 3, C, F).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    n, planes, y, z, channels = x.shape
    filters = dz.shape[-1]
    if not on_cpu():
        return lax.conv_general_dilated(
            x,
            dz,
            (1, 1, 1),
            ((1, 1), (1, 1), (1, 1)),
            dimension_numbers=("CXYZN", "IXYZO", "XYZNC"),
            preferred_element_type=wide,
        )
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    along_z = jnp.concatenate([padded[:, :, :, k : k + z] for k in range(3)], axis=-1)
    patches = jnp.concatenate([along_z[:, :, j : j + y] for j in range(3)], axis=-1)
    # Tap t multiplies plane i + t - 1 of x with plane i of dz.
    around = jnp.pad(dz, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    shifted = jnp.concatenate([around[:, 2 - t : 2 - t + planes] for t in range(3)], axis=-1)
    product = lax.dot_general(
        patches.reshape(-1, 9 * channels),
        shifted.reshape(-1, 3 * filters),
        (((0,), (0,)), ((), ())),
        preferred_element_type=wide,
    )
    return jnp.moveaxis(product.reshape(3, 3, channels, 3, filters), 3, 0)
