"""A finished run with real networks, trained in this process on tiny volumes."""

from pathlib import Path

from configs.finetune_high import get_config
from mri_jax.study.run import run as run_study
from tests.study.tiny import SMALL_MODEL, make_cohorts


def make_run(folder: Path, **fields: object) -> Path:
    """Train and write ``folder/run`` with its stages in ``folder/stages``; returns the run.

    Args:
      folder: Also gets the cohort table and the store.
      **fields: Overrides such as ``finetune={"inner_folds": 2}``.
    """
    table, store = make_cohorts(folder / "data", subjects=10, cohorts=("ADNI1", "ADNI2"))
    config = get_config("smoke").to_dict()
    config["data"] |= {"cohort": str(table), "store": str(store)}
    config["model"] |= SMALL_MODEL
    config["targets"] = ("ADNI2",)
    config["train"] |= {"folds": 3, "learning_rate": 1e-3, "min_epochs": 4, "max_epochs": 4}
    config["finetune"] |= {"epochs": 2, "statistics": ("keep",), "inner_folds": 2}
    config["baselines"] |= {"voxels": False}
    for name, value in fields.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    run_study(config, folder / "run", folder / "stages", say=lambda _: None, report=False)
    return folder / "run"
