"""Table 2 of the paper: how wide? CNN-5 with 1, 2, 4 and 5 times the filters, on three targets.

    python launch.py --config=configs/width.py

Published values can stand beside ours (`python -m mri_jax report RUN --published FILE`); in the
paper's AIBL row of w = 5, SEN and SPE disagree with BAC. The network of w = 1 is the one of
`baseline` and `depth`; it is trained once. The cost of a step grows faster than the width.
"""

from configs import base

VARIANTS = tuple({"model": {"width": width}} for width in (1.0, 2.0, 4.0, 5.0))


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "width"
    config.variants = VARIANTS
    return config
