"""Fig. 3 of the paper: fine-tune only the first conv layer on 20% of ADNI-2.

    python launch.py --config=configs/finetune_low.py

The paper shows a figure and prints no numbers. Both ways of treating the statistics of frozen
BatchNorm layers are run. The source networks are those of `finetune_high`; after it they are found,
not trained again. On simulated cohorts expect a change within its spread, of either sign.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.fine_tuning(preset)
    config.name = "finetune_low"
    config.finetune.layers = ("low",)
    config.finetune.statistics = ("keep", "adapt")
    return config
