"""Does the normalisation matter for transfer? Batch, instance and group norms, on three targets.

    python launch.py --config=configs/norm.py

Everything else is equal. BatchNorm carries statistics of the source's scanners to the targets; the
other two take those of each volume, at training and at testing alike. The network with BatchNorm is
the one of `baseline`, `depth` and `width`; it is trained once. Not in the paper.
"""

from configs import base

VARIANTS = tuple({"model": {"norm": norm}} for norm in ("batch", "instance", "group"))


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "norm"
    config.variants = VARIANTS
    return config
