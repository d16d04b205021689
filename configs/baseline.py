"""CNN-5 trained on ADNI-1 (AD against CN) and tested on ADNI-2, ADNI-3 and AIBL.

    python launch.py --config=configs/baseline.py

The paper's values (first row of its Table 1) stand beside ours in the report. On simulated cohorts
expect all targets above chance and a spread of a few points between folds.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "baseline"
    return config
