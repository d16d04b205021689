"""What a scanner makes of tissue: contrast, coil, point spread, noise and intensity curve (JAX)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.simulation.people import SimulatedScan

# Within a site, scans differ a little: SD of log contrast, of relative gain, of gamma.
CONTRAST_SD, GAIN_SD, GAMMA_SD = 0.015, 0.08, 0.02
# Control points of the coil's sensitivity along X, Y, Z.
BIAS_KNOTS = (4, 5, 4)


@dataclasses.dataclass(frozen=True)
class Scanner:
    """The parameters of one scan; a pytree of arrays.

    Attributes:
      contrast: (3,) signal of CSF, GM, WM.
      bias: `BIAS_KNOTS` log sensitivities.
      noise: () SD of the noise in a voxel of 1 mm3, in units of white matter.
      resolution: (3,) SD of the point spread, mm.
      gamma: ().
      gain: ().
    """

    contrast: Array
    bias: Array
    noise: Array
    resolution: Array
    gamma: Array
    gain: Array


jax.tree_util.register_dataclass(Scanner)


def scanner_of(scan: SimulatedScan) -> Scanner:
    """Returns the site's scanner on the day of one scan."""
    rng = np.random.default_rng([scan.scan_seed, 1])
    site = scan.site
    contrast = np.array(site.contrast) * np.exp(CONTRAST_SD * rng.standard_normal(3))
    # The coil's own pattern is the site's; a fifth of it changes with every scan.
    pattern = np.random.default_rng([int(1e6 * site.bias), 2]).standard_normal(BIAS_KNOTS)
    bias = site.bias * (0.98 * pattern + 0.2 * rng.standard_normal(BIAS_KNOTS))
    return Scanner(
        contrast=_single(contrast),
        bias=_single(bias),
        noise=_single(site.noise * np.exp(0.1 * rng.standard_normal())),
        resolution=_single(site.resolution),
        gamma=_single(site.gamma * np.exp(GAMMA_SD * rng.standard_normal())),
        gain=_single(site.gain * np.exp(GAIN_SD * rng.standard_normal())),
    )


def _single(value: object) -> Array:
    return jnp.asarray(np.asarray(value, np.float32))


def acquire(signal: Array, scanner: Scanner, spacing: tuple[float, ...], key: Array) -> Array:
    """Bias field, point spread, Rician noise, intensity curve and gain.

    Args:
      signal: (X, Y, Z) noiseless signal, white matter about 0.9.
      scanner: The scan's parameters.
      spacing: Voxel along X, Y, Z in mm; noise averages over a larger voxel.
      key: Key of the noise.

    Returns:
      (X, Y, Z) magnitude in the scanner's units.
    """
    signal = signal * jnp.exp(smooth_field(scanner.bias[..., None], signal.shape)[..., 0])
    signal = blurred(signal, scanner.resolution, spacing)
    voxel = spacing[0] * spacing[1] * spacing[2]
    noise = scanner.noise / jnp.sqrt(voxel) * jax.random.normal(key, (2, *signal.shape))
    magnitude = jnp.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2)
    return scanner.gain * magnitude**scanner.gamma


def smooth_field(knots: Array, shape: tuple[int, ...]) -> Array:
    """Returns a smooth field from random values at control points, by cubic B-splines.

    Args:
      knots: (A, B, C, K) values at points evenly spread from border to border, one beyond each.
      shape: (X, Y, Z).

    Returns:
      (X, Y, Z, K), of unit variance on average where the knots have unit variance.
    """
    x, y, z = (_splines(k, n) for k, n in zip(knots.shape[:3], shape, strict=True))
    return jnp.einsum("xa,yb,zc,abck->xyzk", x, y, z, knots, optimize="optimal")


def _splines(knots: int, points: int) -> Array:
    """Returns (points, knots) cubic B-splines, rows scaled to unit length."""
    at = 1.0 + (knots - 3.0) * np.arange(points) / (points - 1)
    distance = np.abs(at[:, None] - np.arange(knots)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clip(0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return jnp.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), jnp.float32)


def blurred(image: Array, deviations: Array, spacing: tuple[float, ...]) -> Array:
    """Convolve (X, Y, Z) with a Gaussian of the given SDs (mm) along each axis."""
    for axis in range(3):
        n = image.shape[axis]
        offset = spacing[axis] * (jnp.arange(n)[:, None] - jnp.arange(n)[None])
        kernel = jnp.exp(-0.5 * (offset / deviations[axis]) ** 2)
        kernel = kernel / kernel.sum(1, keepdims=True)
        image = jnp.moveaxis(jnp.tensordot(kernel, image, (1, axis)), 0, axis)
    return image
