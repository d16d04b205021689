"""Fig. 3 of the paper: fine-tune the last conv layer and the FC layers on 20% of ADNI-2.

    python launch.py --config=configs/finetune_high.py

Source and tuned networks are compared on the same other 80%. The paper shows a figure and prints no
numbers. Both ways of treating the statistics of frozen BatchNorm layers are run: `keep`, and
`adapt`, which the paper may have used. On simulated cohorts expect a change within its spread, of
either sign.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.fine_tuning(preset)
    config.name = "finetune_high"
    config.finetune.layers = ("high",)
    config.finetune.statistics = ("keep", "adapt")
    return config
