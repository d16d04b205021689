"""Table 1 of the paper: how deep? CNN-5, CNN-7, CNN-10 and CNN-12 on three targets.

    python launch.py --config=configs/depth.py

Published values can stand beside ours (`python -m mri_jax report RUN --published FILE`). The
paper's one-way ANOVA over five accuracies prints p = 0.5278, 0.5431 and 0.2348 for the three
targets: no effect of depth. CNN-10 and CNN-12 convolve twice at full resolution and take several
times as long as CNN-5.
"""

from configs import base

VARIANTS = tuple({"model": {"preset": name}} for name in ("cnn5", "cnn7", "cnn10", "cnn12"))


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "depth"
    config.variants = VARIANTS
    return config
