"""CNN-5 trained on ADNI-1 (AD against CN) and tested on ADNI-2, ADNI-3 and AIBL.

    python launch.py --config=configs/baseline.py

Published values (the paper's Table 1, CNN-5) can stand beside ours: `python -m mri_jax report RUN
--published FILE`. On simulated cohorts
expect all targets above chance and a spread of a few points between folds.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "baseline"
    return config
