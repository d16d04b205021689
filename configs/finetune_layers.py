"""Exploratory, not in the paper: fine-tune each conv layer alone, the head alone, and all.

    python launch.py --config=configs/finetune_layers.py

The number of trained parameters stands beside each score. Many comparisons on one test set: read
the ranking as a hypothesis, not as a finding.
"""

from configs import base

LAYERS = ("all", "conv1", "conv2", "conv3", "conv4", "conv5", "head")


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.fine_tuning(preset)
    config.name = "finetune_layers"
    config.finetune.layers = LAYERS
    return config
