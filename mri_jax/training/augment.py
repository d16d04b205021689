"""Augmentation on the device: off by default, as in the paper; deterministic by key."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from mri_jax.errors import UserError
from mri_jax.models import split


@dataclass(frozen=True)
class AugmentSettings:
    """How a training volume is altered, anew each time it is seen.

    Attributes:
      flip: Mirror left and right (axis X) with probability one half.
      shift: Largest shift along each axis, in whole voxels; edges repeat.
      intensity: SD of a factor about 1 and of an offset about 0 on the intensities.
      bias_field: SD of the logarithm of a smooth multiplicative field.
      noise: SD of Gaussian noise added to every voxel.
    """

    flip: bool = False
    shift: int = 0
    intensity: float = 0.0
    bias_field: float = 0.0
    noise: float = 0.0

    def __post_init__(self):
        if isinstance(self.shift, bool) or not isinstance(self.shift, int) or self.shift < 0:
            raise UserError(f"shift: {self.shift!r} must be whole voxels, 0 or more")
        for name in ("intensity", "bias_field", "noise"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name}: {value!r} must be from 0 to 1")

    @property
    def off(self) -> bool:
        """Whether volumes pass unchanged."""
        return self == AugmentSettings()


def augment(
    settings: AugmentSettings, key: Array, image: Array, batch_axis: str | None = None
) -> Array:
    """Alter a batch of volumes.

    Args:
      settings: What to do.
      key: A typed JAX key; the same key gives the same alteration.
      image: (N, X, Y, Z, C).
      batch_axis: Mapped axis over which the batch is split; each volume is altered as it would be
        in the whole batch. None: it is in one piece.

    Returns:
      The same shape and dtype.
    """
    if settings.off:
        return image
    keys = jax.random.split(key, image.shape[0] * split.parts(batch_axis))
    return jax.vmap(lambda k, volume: _one(settings, k, volume))(split.own(keys, batch_axis), image)


def _one(settings: AugmentSettings, key: Array, volume: Array) -> Array:
    flip, shift, intensity, bias, noise = jax.random.split(key, 5)
    if settings.flip:
        volume = jnp.where(jax.random.bernoulli(flip), volume[::-1], volume)
    if settings.shift:
        volume = _shifted(volume, shift, settings.shift)
    if settings.intensity:
        scale, offset = settings.intensity * jax.random.normal(intensity, (2,), volume.dtype)
        volume = volume * (1 + scale) + offset
    if settings.bias_field:
        volume = volume * jnp.exp(_smooth_field(bias, volume.shape[:3], settings.bias_field))
    if settings.noise:
        volume = volume + settings.noise * jax.random.normal(noise, volume.shape, volume.dtype)
    return volume


def _shifted(volume: Array, key: Array, most: int) -> Array:
    padded = jnp.pad(volume, ((most, most),) * 3 + ((0, 0),), mode="edge")
    start = jax.random.randint(key, (3,), 0, 2 * most + 1)
    return jax.lax.dynamic_slice(padded, (*start, 0), volume.shape)


def _smooth_field(key: Array, shape: tuple[int, ...], sd: float) -> Array:
    """Returns (X, Y, Z, 1) the first cosine along each axis, random amplitudes, SD about ``sd``."""
    amplitude = sd * jax.random.normal(key, (3,)) * jnp.sqrt(2 / 3)
    field = jnp.zeros(shape)
    for axis, size in enumerate(shape):
        wave = jnp.cos(jnp.pi * (jnp.arange(size) + 0.5) / size)
        field = field + amplitude[axis] * wave.reshape([-1 if a == axis else 1 for a in range(3)])
    return field[..., None]
