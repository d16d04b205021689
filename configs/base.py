"""Every field of a study, with its default; the other configs override a few.

    python launch.py --config=configs/baseline.py:dev --config.model.width=2

The word after the colon is the preset: ``demo`` (the default, 4 mm, minutes on two cores), ``dev``
(2 mm), ``paper`` (1 mm, what the paper states plus the assumptions listed in ``BUILD_NOTES.md``) or
``smoke`` (a few subjects and epochs: does everything run? its scores mean nothing).
"""

from ml_collections import ConfigDict

PRESETS = ("demo", "dev", "paper", "smoke")
TARGETS = ("ADNI2", "ADNI3", "AIBL")


def get_config(preset: str = "demo") -> ConfigDict:
    """The base study: CNN-5 trained on ADNI-1, AD against CN, tested on three targets."""
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is not one of {', '.join(PRESETS)}")
    config = ConfigDict()
    config.name = "base"
    config.preset = preset
    config.seed = 2021
    # The state of a training is saved after an epoch when so many seconds have passed; SIGKILL
    # loses no more than that and an epoch.
    config.save_seconds = 2.0

    # The question asked of the targets; label 1 is the positive diagnosis.
    config.task = ConfigDict({"positive": "AD", "negative": "CN"})

    # What the networks are trained on. Empty diagnoses: those of `task`. `size_like` names cohorts
    # to whose size and class ratio the pooled source is subsampled; empty: all subjects.
    config.source = ConfigDict(
        {"name": "", "cohorts": ("ADNI1",), "positive": "", "negative": "", "size_like": ()}
    )
    config.targets = TARGETS

    config.data = ConfigDict(
        {
            # A cohort table and a store of volumes; both empty: simulated cohorts.
            "cohort": "",
            "store": "",
            # A person in several cohorts: `refuse` the study, or `remove` the later rows, in the
            # order source, then targets. Simulated cohorts always remove, as the paper does.
            "repeated": "refuse",
            # Where volumes live while training: `device`, `stream`, or `auto` by their size.
            "placement": "auto",
            "threads": 2,
            "prefetch": 8,
            # `zscore`, `minmax`, `histogram` or `none`. Histograms are matched to the `template`'s,
            # or to the mean of the `training` scans of each fold.
            "normalisation": "zscore",
            "histogram_reference": "template",
            "clip": (0.5, 99.5),
            "background": 0.0,
        }
    )
    config.simulation = ConfigDict(
        {"grid": "demo", "seed": 2021, "subjects_per_class": 60, "paper_counts": False}
    )
    config.model = ConfigDict(
        {
            # A member of the family, or empty with `repetitions`: conv layers in each block.
            "preset": "cnn5",
            "repetitions": (),
            "filters": (8, 16, 32, 64, 128),
            "width": 1.0,
            "fc": (128, 64),
            "dropout": (0.5, 0.5, 0.0),
            "momentum": 0.99,
            "epsilon": 1e-5,
            "dtype": "float32",
            "form": "fast",
        }
    )
    config.train = ConfigDict(
        {
            "folds": 5,
            "batch": 2,
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "clip_norm": 0.0,  # 0: no clipping
            "class_weights": "none",  # or `balanced`: inverse to the class's frequency
            "label_smoothing": 0.0,
            "min_epochs": 30,
            "max_epochs": 50,
            "patience": 10,
            "min_delta": 1e-3,
            # The same in steps, for cohorts so small that an epoch has few: of each limit the later
            # one holds, and `max_epochs` is raised to reach `min_steps`. 0: none (the paper).
            "min_steps": 0,
            "patience_steps": 0,
        }
    )
    config.finetune = ConfigDict(
        {
            # Empty `layers`: no fine-tuning. Each of: all, low, high, head, conv1, conv2, ...
            "layers": (),
            "statistics": ("keep",),
            "cohort": "ADNI2",
            "parts": 5,  # the cohort is cut into this many; one part adapts, the others test
            "repeats": 1,
            "learning_rate": 1e-5,
            "epochs": 20,
            # `fixed` number of epochs, or `inner`: early stopping on a fifth of the adapting part
            "stopping": "fixed",
            # Cross-validation inside the adapting part: scores for thresholds and temperatures of
            # tuned networks. 0: none; each further part is one more tuning of every network.
            "inner_folds": 5,
        }
    )
    config.augment = ConfigDict(
        {
            "flip": False,
            "shift": 0,
            "intensity": 0.0,
            "bias_field": 0.0,
            "noise": 0.0,
        }
    )
    config.baselines = ConfigDict({"age_sex": True, "hippocampus": True, "voxels": True})
    # Network variants: each a dictionary of overrides of this config; empty: one network.
    config.variants = ()
    _apply_preset(config, preset)
    return config


def _apply_preset(config: ConfigDict, preset: str) -> None:
    if preset == "demo":
        # A quarter of the paper's subjects make a quarter of its steps an epoch: a higher rate.
        config.train.update(
            {
                "learning_rate": 3e-4,
                "min_epochs": 12,
                "max_epochs": 20,
                "patience": 5,
                # Smaller cohorts take as many steps as this preset's own (48 an epoch) at least.
                "min_steps": 576,
                "patience_steps": 240,
            }
        )
        config.finetune.update({"epochs": 10, "inner_folds": 3})
    elif preset == "smoke":
        config.simulation.subjects_per_class = 12
        config.train.update({"min_epochs": 8, "max_epochs": 8, "patience": 8})
        config.finetune.update({"epochs": 4, "inner_folds": 2})
    elif preset == "dev":
        config.simulation.update({"grid": "dev", "subjects_per_class": 100})
        config.train.update({"min_steps": 2400, "patience_steps": 800})  # of 80 an epoch
    else:
        config.simulation.update({"grid": "paper", "paper_counts": True})
