"""All experiments of the paper in one study; networks that several of them need are trained once.

    python launch.py --config=configs/paper.py:smoke     # does all of it run? scores mean nothing
    python launch.py --config=configs/paper.py:paper --config.data.cohort=C --config.data.store=S

Depth (Table 1), width (Table 2), fine-tuning of all, low, high and single layers (Figs. 2 and 3,
and beyond) and related tasks (Fig. 5). Settings are what the paper states; where it is silent, the
assumptions are listed in `BUILD_NOTES.md` with the field that changes each.
"""

from configs import base, depth, finetune_layers, task_transfer, width

TUNED = {
    "finetune": {
        "layers": ("low", "high", *finetune_layers.LAYERS),
        "statistics": ("keep", "adapt"),
    }
}


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "paper"
    config.variants = (
        {**depth.VARIANTS[0], **TUNED},
        *depth.VARIANTS[1:],
        *width.VARIANTS[1:],
        *task_transfer.VARIANTS,
    )
    return config
