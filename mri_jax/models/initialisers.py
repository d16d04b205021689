"""From which distributions parameters are drawn."""

from flax.linen import initializers

CONV = initializers.he_normal()
"""Conv layers (He et al. 2015)."""
UNIFORM = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""FC layers and gates: uniform within 1 / sqrt(fan in), so that the first logits are near 0.

It is PyTorch's default, in which the paper's networks were likely built.
"""
