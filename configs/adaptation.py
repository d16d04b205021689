"""Adaptation of CNN-5 to ADNI-2 on one table: without labels, with labels, from scratch.

    python launch.py --config=configs/adaptation.py
    python launch.py --config=configs/adaptation.py --config.adaptation.methods="('adabn','tent')"

Every method has the same source folds, the same part of ADNI-2 to adapt on and the same subjects to
be tested on; docs/adaptation.md says what each does and assumes.
"""

from configs import base
from mri_jax.adaptation import METHODS


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.fine_tuning(preset)
    config.name = "adaptation"
    config.finetune.layers = ("all", "low", "high", "head")
    config.adaptation.methods = tuple(method.name for method in METHODS)
    if preset == "demo":
        # Each inner fold tunes thirty networks more, and the demo shall take twenty minutes.
        config.finetune.inner_folds = 2
    # The adaptation part of the smoke cohort is too small to be drawn to shares of patients.
    config.adaptation.resampled = () if preset == "smoke" else ("adabn", "tent")
    return config
