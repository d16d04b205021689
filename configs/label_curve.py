"""How many labels of ADNI-2 does it take: networks adapted on 2.5 to 80% of its subjects.

    python launch.py --config=configs/label_curve.py

The same fifth of ADNI-2 tests throughout. Each share is drawn anew in every repeat, and a smaller
one is among a larger.
"""

from configs import base

SHARES = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0)


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.fine_tuning(preset)
    config.name = "label_curve"
    config.targets = ("ADNI2",)
    config.finetune.layers = ("all", "head")
    config.finetune.labels = (20.0, 80.0) if preset == "smoke" else SHARES
    config.finetune.repeats = 1 if preset == "smoke" else 3
    # Inside two scans of a class there is no cross-validation.
    config.finetune.inner_folds = 0
    config.adaptation.methods = ("lp-ft",)
    return config
