"""A search on tiny volumes, in this process."""

from pathlib import Path
from typing import Any

from configs.baseline import get_config
from mri_jax.settings.study import Study
from tests.tiny import SMALL_MODEL, make_cohorts

SPACE = (
    {"field": "model.width", "type": "choice", "options": (0.5, 1.0)},
    {"field": "train.learning_rate", "type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    {"field": "model.attention", "type": "choice", "options": ("none", "se")},
    {
        "field": "model.attention_blocks",
        "type": "choice",
        "options": ((1,), (1, 2)),
        "when": {"model.attention": ("se",)},
    },
)


def study_of(folder: Path, subjects: int = 10, **fields: Any) -> Study:
    """Returns a search of four trials on ``folder/data``, which is made where it is absent.

    Args:
      folder: A temporary folder.
      subjects: Of each class and cohort.
      **fields: Overrides such as ``search={"trials": 2}``.
    """
    table, store = folder / "data" / "cohort.csv", folder / "data" / "store"
    if not table.exists():
        make_cohorts(table.parent, subjects, ("ADNI1", "ADNI2"))
    config = get_config("smoke").to_dict()
    config["data"] |= {"cohort": str(table), "store": str(store)}
    config["model"] |= SMALL_MODEL
    config["targets"] = ("ADNI2",)
    config["train"] |= {"folds": 2, "learning_rate": 1e-3, "min_epochs": 2, "max_epochs": 2}
    config["baselines"] |= {"voxels": False}
    config["search"] |= {"trials": 3, "space": SPACE, "folds": 2, "startup": 1, "prune_after": 1}
    for name, value in fields.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    return Study.parse(config)
