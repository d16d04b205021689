"""Fig. 5 of the paper: do networks trained on AD against CN tell pMCI from sMCI in ADNI-2?

    python launch.py --config=configs/task_transfer.py

CNN-AD1 is trained on AD and CN of ADNI-1, CNN-AD2 on those of ADNI-1 and ADNI-2, CNN-MCI on pMCI
and sMCI of ADNI-1; widths 1 and 4. The paper shows a figure and prints no numbers. CNN-AD2 differs
from CNN-AD1 in two ways, more subjects and scanners of the target; CNN-AD2S (ours) is CNN-AD2
subsampled to CNN-AD1's size and class ratio, which separates them. On simulated cohorts pMCI and
sMCI differ much less than AD and CN: expect AUCs between chance and the baseline's.
"""

from configs import base

SOURCES = (
    {"name": "CNN-AD1", "cohorts": ("ADNI1",), "positive": "AD", "negative": "CN"},
    {"name": "CNN-AD2", "cohorts": ("ADNI1", "ADNI2"), "positive": "AD", "negative": "CN"},
    {
        "name": "CNN-AD2S",
        "cohorts": ("ADNI1", "ADNI2"),
        "positive": "AD",
        "negative": "CN",
        "size_like": ("ADNI1",),
    },
    {"name": "CNN-MCI", "cohorts": ("ADNI1",), "positive": "pMCI", "negative": "sMCI"},
)
TASK = {"positive": "pMCI", "negative": "sMCI"}
VARIANTS = tuple(
    {"task": TASK, "targets": ("ADNI2",), "source": source, "model": {"width": width}}
    for width in (1.0, 4.0)
    for source in SOURCES
)


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "task_transfer"
    config.targets = ("ADNI2",)
    config.variants = VARIANTS
    return config
