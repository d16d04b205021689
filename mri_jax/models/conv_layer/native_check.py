"""A short comparison of the native kernels with XLA's own convolution, on the machine at hand."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.models.conv_layer import native, reference
from mri_jax.models.conv_layer.arguments import Features
from mri_jax.models.conv_layer.gradient import PreActivationGradient
from mri_jax.models.conv_layer.pooling import scatter_windows, select_windows

# In float32, of the largest number of a result. XLA's own sums differ by some 2e-6.
TOLERANCE = 2e-5
_LAYERS = ((1, 8, (18, 20, 35)), (8, 16, (9, 22, 30)), (32, 64, (5, 6, 7)))


def errors() -> Iterator[tuple[str, float]]:
    """Yields what was compared, and its largest difference as a share of the largest number."""
    rng = np.random.default_rng(0)
    for channels, filters, size in _LAYERS:
        x = jnp.asarray(rng.normal(size=(2, *size, channels)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(3, 3, 3, channels, filters)), jnp.float32)
        sign = jnp.asarray(rng.choice([-1, 1], filters), jnp.float32)
        z, pull = jax.vjp(reference.convolve, x, kernel)
        selection, found, own = native.forward(
            Features(x), kernel, sign, pool=True, with_moments=True, keep_z=True
        )
        assert found is not None
        assert own is not None
        offset = select_windows(own, sign).offset
        chosen = jnp.asarray(rng.normal(size=offset.shape), jnp.float32)
        given = PreActivationGradient(chosen, offset, None, None)
        back = native.gradients(
            Features(x), kernel, given, pool=True, for_input=True, for_kernel=True
        )
        assert back.x is not None
        expected = pull(scatter_windows(chosen, offset, z.shape))
        compared = {
            "convolution": (own, z),
            "max-pooling": (selection.offset, offset),
            "mean": (found.mean, z.mean((1, 2, 3))),
            "variance": (found.variance, z.var((1, 2, 3))),
            "gradient of the input": (back.x.value, expected[0]),
            "gradient of the kernel": (back.kernel, expected[1]),
        }
        for name, (ours, theirs) in compared.items():
            yield f"layer of {channels} to {filters} channels: {name}", _largest(ours, theirs)


def _largest(ours: Array | None, theirs: Array) -> float:
    assert ours is not None
    apart = np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).max()
    return float(apart / max(np.abs(np.asarray(theirs, float)).max(), 1e-30))
