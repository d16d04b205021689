"""Does attention help a network to transfer? CNN-5 without and with three kinds, on three targets.

    python launch.py --config=configs/attention.py

Everything else is equal. Gates stand after the last two blocks; `--config.model.attention_blocks`
names others for all variants that have gates. The network without attention is the one of
`baseline`, `depth` and `width`; it is trained once. Not in the paper, which names it as future
work; docs/attention.md says what the kinds are, and why a gate is no explanation.
"""

from configs import base

KINDS = ("none", "se", "spatial", "map")
VARIANTS = (
    {"model": {"attention": "none", "attention_blocks": ()}},
    *({"model": {"attention": kind}} for kind in KINDS[1:]),
)


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "attention"
    config.variants = VARIANTS
    return config
