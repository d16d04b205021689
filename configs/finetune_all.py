"""Fig. 2 of the paper: fine-tune all layers on 20% of ADNI-2, test on the other 80%.

    python launch.py --config=configs/finetune_all.py

The paper shows a figure and prints no numbers. Fine-tuning runs a fixed number of epochs at a rate
of 1e-5 (our assumption; `--config.finetune.learning_rate=1e-4` is the ablation). On simulated
cohorts expect a change within its spread, of either sign.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.fine_tuning(preset)
    config.name = "finetune_all"
    config.finetune.layers = ("all",)
    return config
