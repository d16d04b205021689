"""A finished run with real networks, trained in this process on tiny volumes."""

from collections.abc import Callable, Mapping
from pathlib import Path

from configs.finetune_high import get_config
from mri_jax.settings.study import Study
from mri_jax.study.run import run as run_study
from mri_jax.study.running import Running
from tests.compiling import quickly
from tests.tiny import SMALL_MODEL, make_cohorts


def make_run(
    folder: Path,
    factors: Mapping[str, float] | None = None,
    say: Callable[[str], None] = lambda _: None,
    how: Running | None = None,
    **fields: object,
) -> Path:
    """Train and write ``folder/run`` with its stages in ``folder/stages``; returns the run.

    Args:
      folder: Also gets the cohort table and the store, unless they are there.
      factors: On the intensities of single subjects.
      say: Where the study's summary goes.
      how: How it runs; by default to its end without a report.
      **fields: Overrides such as ``finetune={"inner_folds": 2}``.
    """
    table, store = folder / "data" / "cohort.csv", folder / "data" / "store"
    if not table.exists():
        make_cohorts(table.parent, 10, ("ADNI1", "ADNI2"), factors)
    config = get_config("smoke").to_dict()
    config["data"] |= {"cohort": str(table), "store": str(store)}
    config["model"] |= SMALL_MODEL
    config["targets"] = ("ADNI2",)
    config["train"] |= {"folds": 3, "learning_rate": 1e-3, "min_epochs": 4, "max_epochs": 4}
    config["finetune"] |= {"epochs": 2, "statistics": ("keep",), "inner_folds": 2}
    config["baselines"] |= {"voxels": False}
    for name, value in fields.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    how = how or Running(say=say, report=False)
    # How its programs are compiled is no property of what tests look for in a run.
    with quickly():
        run_study(Study.parse(config), folder / "run", folder / "stages", how)
    return folder / "run"
