"""Every field of a config, with its rule: what ``configs/*.py`` may hold.

The defaults stand in ``configs/base.py``. Bounds are generous: they refuse what cannot have been
meant, or what would fail only later; what the machine can hold is checked against the plan.
"""

from dataclasses import dataclass
from typing import Any

from mri_jax.models.spec import FORMS, PRESETS
from mri_jax.study.fields import (
    Choice,
    Either,
    Exactly,
    Flag,
    Many,
    Number,
    Overrides,
    Text,
    Whole,
    field,
)
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.normalise import METHODS

SEED = Whole(0, 2**63 - 1)
NAME, NO_NAME = Text(), Text(empty=True)
PATH = Text(longest=4096, empty=True)
COHORTS = Many(NAME, 1, 100, distinct=True)
EPOCHS = Whole(1, 100_000)
STEPS = Whole(0, 100_000_000)
SIZES = Many(Whole(1, 65536), 1, 10)
STATISTICS = ("keep", "adapt")
# What a variant may change; the rest of a study is one for all its variants.
VARIED = ("task", "source", "targets", "model", "train", "finetune", "augment")


@dataclass(frozen=True, kw_only=True)
class Task:
    """The question asked of the targets."""

    positive: str = field(NAME, "diagnosis of label 1")
    negative: str = field(NAME, "diagnosis of label 0")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the networks are trained on."""

    name: str = field(NO_NAME, "name of the networks in tables; empty: that of the model")
    cohorts: tuple[str, ...] = field(COHORTS, "cohorts, pooled")
    positive: str = field(NO_NAME, "diagnosis of label 1; empty: that of the task")
    negative: str = field(NO_NAME, "diagnosis of label 0; empty: that of the task")
    size_like: tuple[str, ...] = field(
        Many(NAME, 0, 100, distinct=True),
        "cohorts to whose size and class ratio the source is subsampled; empty: all subjects",
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where scans come from and how they reach the device."""

    cohort: str = field(PATH, "the cohort table; empty, with store: simulated cohorts")
    store: str = field(PATH, "the store of volumes")
    repeated: str = field(Choice(("refuse", "remove")), "a person in several cohorts")
    placement: str = field(
        Choice(("auto", "device", "stream")), "where volumes live while networks are trained"
    )
    threads: int = field(Whole(1, 256), "threads that read volumes")
    prefetch: int = field(Whole(1, 1024), "batches read ahead")
    normalisation: str = field(Choice(METHODS), "of intensities inside the brain")
    histogram_reference: str = field(
        Choice(("template", "training")), "what histograms are matched to"
    )
    clip: tuple[float, float] = field(
        Many(Number(0, 100), 2, 2, rising=True), "percentiles to which intensities are clipped"
    )
    background: float = field(Number(-1e4, 1e4), "the constant outside the brain")


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """The simulated cohorts that stand in when no cohort table is given."""

    grid: str = field(Choice(tuple(GRIDS)), "of the volumes")
    seed: int = field(SEED, "of the simulation")
    subjects_per_class: int = field(Whole(1, 100_000), "scales the default counts")
    paper_counts: bool = field(Flag(), "the paper's numbers of subjects")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network; see `mri_jax.models.CNNSpec`."""

    preset: str = field(
        Choice((*PRESETS, "")), "a member of the family; empty: the one that repetitions describe"
    )
    repetitions: tuple[int, ...] = field(Many(Whole(1, 20), 0, 10), "conv layers in each block")
    filters: tuple[int, ...] = field(Many(Whole(1, 4096), 1, 10), "filters in each block")
    width: float = field(Number(0, 100, open_least=True), "factor on the filters")
    fc: tuple[int, ...] = field(Many(Whole(1, 65536), 0, 10), "sizes of the hidden FC layers")
    dropout: tuple[float, ...] = field(
        Many(Number(0, 1, open_most=True), 1, 11), "rate before each FC layer"
    )
    momentum: float = field(Number(0, 1, open_most=True), "of BatchNorm's running statistics")
    epsilon: float = field(Number(0, 1, open_least=True), "added to BatchNorm's variance")
    dtype: str = field(Choice(("float32", "bfloat16")), "of the activations")
    form: str = field(Choice(FORMS), "one function, two programs")


@dataclass(frozen=True, kw_only=True)
class Train:
    """How source networks are trained."""

    folds: int = field(Whole(2, 1000), "networks, each with another part of the source held out")
    batch: int = field(Whole(1, 4096), "volumes a step")
    learning_rate: float = field(Number(0, 1), "of Adam")
    weight_decay: float = field(Number(0, 100), "times the learning rate, a step")
    clip_norm: float = field(Number(0, 1e6), "largest norm of the gradient; 0: any")
    class_weights: str = field(Choice(("none", "balanced")), "of the loss")
    label_smoothing: float = field(Number(0, 1, open_most=True), "of the loss")
    min_epochs: int = field(EPOCHS, "never fewer")
    max_epochs: int = field(EPOCHS, "never more")
    patience: int = field(EPOCHS, "epochs without a fall of the held-out loss")
    min_delta: float = field(Number(0, 100), "what counts as a fall")
    min_steps: int = field(STEPS, "never fewer steps, even where max_epochs has fewer; 0: any", 0)
    patience_steps: int = field(STEPS, "steps without a fall of the held-out loss; 0: any", 0)


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """How networks are fine-tuned."""

    layers: tuple[str, ...] = field(
        Many(NAME, 0, 1000, distinct=True), "sets of layers, each a way of fine-tuning"
    )
    statistics: tuple[str, ...] = field(
        Many(Choice(STATISTICS), 1, 2, distinct=True), "of frozen BatchNorm layers"
    )
    cohort: str = field(NAME, "the cohort that is fine-tuned on")
    parts: int = field(Whole(2, 1000), "parts of the cohort; one adapts, the others test")
    repeats: int = field(Whole(1, 1000), "how many parts adapt in turn")
    learning_rate: float = field(Number(0, 1), "of Adam")
    epochs: int = field(EPOCHS, "number, or with stopping=inner largest number, of epochs")
    stopping: str = field(Choice(("fixed", "inner")), "what ends a tuning")
    inner_folds: int = field(
        Either(Exactly(0), Whole(2, 1000)), "cross-validation inside the adapting part; 0: none"
    )


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a training volume is altered; see `mri_jax.training.augment`."""

    flip: bool = field(Flag(), "mirror left and right")
    shift: int = field(Whole(0, 64), "largest shift in voxels")
    intensity: float = field(Number(0, 1), "SD of a factor and an offset")
    bias_field: float = field(Number(0, 1), "SD of the logarithm of a smooth field")
    noise: float = field(Number(0, 1), "SD of noise")


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Plain classifiers beside the networks."""

    age_sex: bool = field(Flag(), "logistic regression on age and sex")
    hippocampus: bool = field(Flag(), "on the hippocampal volume, where the table has it")
    voxels: bool = field(Flag(), "ridge regression on voxels at 4 mm")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole config."""

    name: str = field(NAME, "labels results")
    preset: str = field(NAME, "which of the config's presets this is")
    seed: int = field(SEED, "of every random stream")
    save_seconds: float = field(Number(0, 86400), "least time between saved states")
    task: Task
    source: Source
    targets: tuple[str, ...] = field(COHORTS, "test cohorts")
    data: Data
    simulation: Simulation
    model: Model
    train: Train
    finetune: Finetune
    augment: Augment
    baselines: Baselines
    variants: tuple[dict[str, Any], ...] = field(
        Many(Overrides(), 0, 1000), f"overrides of {', '.join(VARIED)}, a network each"
    )
