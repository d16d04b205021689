"""Fig. 3 of the paper: fine-tune the last conv layer and the FC layers on 20% of ADNI-2.

    python launch.py --config=configs/finetune_high.py

The paper (real data): tuning the high layers raises the mean AUC on the other 80% of ADNI-2 by
about a point over the source network, much as tuning all layers does; its figure gives no numbers.
Both ways of treating the statistics of frozen BatchNorm layers are run: `keep`, and `adapt`, which
the paper may have used. On simulated cohorts expect an effect within its spread, of either sign.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "finetune_high"
    config.finetune.layers = ("high",)
    config.finetune.statistics = ("keep", "adapt")
    if preset == "demo":
        config.targets = ("ADNI2",)
    return config
