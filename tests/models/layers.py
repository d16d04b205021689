"""Layers to compare forms on: made inputs, and everything that a form gives for them."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from mri_jax.models.conv_layer import Features, Parameters, Setting, conv_layer, reference
from mri_jax.models.conv_layer.arguments import Norm
from tests.compiling import SOON


def volumes(rng, shape, background):
    """Volumes of which a little more than half is a constant, as after skull stripping."""
    x = rng.normal(size=shape)
    x[:, : shape[1] // 2 + 1] = background
    x[:, :, :2] = background
    return x


def layer_results(form, arrays, norm, running, pool, few_passes=False):
    """Returns output, statistics and the gradients of all inputs of one conv layer.

    The forms under test are compiled as users compile them, if not asked otherwise, the plain form
    by fewer passes.
    """
    compiled = _quick_layer if few_passes or form == "reference" else _layer
    return compiled(form, arrays, norm, running, pool)


def _layer_results(form, arrays, norm, running, pool):
    def forward(x, kernel, scale, bias, norm):
        setting = Setting(pool, epsilon=1e-5, form=form)
        given, rest = Features(x, norm), (Parameters(kernel, scale, bias), running, setting)
        if form == "reference":
            stages, stats = reference.conv_layer(given.activated(), *rest)
            return stages.output, stats
        output, stats = conv_layer(given, *rest)
        return output.activated(), stats

    (output, stats), pull = jax.vjp(forward, *arrays, norm)
    weight = jnp.cos(jnp.arange(output.size, dtype=output.dtype)).reshape(output.shape)
    zeros = jax.tree.map(jnp.zeros_like, stats)
    *found, of_norm = pull((weight, zeros))
    found = dict(zip(("x", "kernel", "scale", "bias"), found, strict=True))
    if norm is not None:
        found |= {f"{name} of the norm": p for name, p in of_norm._asdict().items()}
    return {"output": output, "mean": stats.mean, "variance": stats.variance} | found


_layer = partial(jax.jit, static_argnums=(0, 4))(_layer_results)
_quick_layer = jax.jit(_layer_results, static_argnums=(0, 4), compiler_options=SOON)


def _neighbours(x):
    """Yields each of the 27 offsets and what stands there from every voxel, zero outside."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    for offset in product(range(3), repeat=3):
        here = (slice(i, i + n) for i, n in zip(offset, x.shape[1:4], strict=True))
        yield offset, padded[(slice(None), *here)]


def convolve(x, kernel):
    """Returns `reference.convolve` by NumPy, which needs no program for each shape."""
    return sum(there @ kernel[offset] for offset, there in _neighbours(x))


def convolve_gradients(x, kernel, dz):
    """Returns the gradients of `convolve` for x and kernel."""
    dx = convolve(dz, kernel[::-1, ::-1, ::-1].swapaxes(-2, -1))
    dk = np.empty(kernel.shape)
    for offset, there in _neighbours(x):
        dk[offset] = np.tensordot(there, dz, axes=((0, 1, 2, 3),) * 2)
    return dx, dk


def random_layer(seed, batch, size, channels, filters, background=0.0, dtype="float64"):
    """x, kernel, scale and bias of a layer."""
    rng = np.random.default_rng(seed)
    arrays = [
        volumes(rng, (batch, *size, channels), background),
        rng.normal(size=(3, 3, 3, channels, filters)),
        rng.choice([-1.5, -0.3, 0.0, 0.4, 1.2], size=filters),
        rng.normal(size=filters) + 0.5,
    ]
    return [jnp.asarray(a, dtype) for a in arrays]


def random_norm(seed, channels):
    """BatchNorm and ReLU of the layer before; a factor of 0 gives the same number everywhere."""
    rng = np.random.default_rng(seed)
    factor = rng.choice([-1.5, -0.3, 0.0, 0.4, 1.2], size=channels)
    return Norm(
        *(jnp.asarray(p) for p in (rng.normal(size=channels), factor, rng.normal(size=channels)))
    )


def exact(tree):
    """Returns numbers rounded to 64ths, whose products and sums are exact in float64.

    Equal neighbourhoods then tie in forms whose order of summation depends on the place.
    """
    return jax.tree.map(lambda a: jnp.round(a * 64) / 64, tree)


def assert_same(ours, theirs, tolerance=1e-9):
    for name, expected in theirs.items():
        error = np.abs(np.asarray(ours[name]) - np.asarray(expected)).max()
        assert error <= tolerance * max(1.0, np.abs(expected).max()), name
