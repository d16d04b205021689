"""The sections of a config: every field with its default, its rule and its documentation.

The ``ConfigDict`` of ``configs/base.py`` and ``docs/config.md`` are generated from these classes.
Bounds are generous: they refuse what cannot have been meant, or what would fail only later; what
the machine can hold is checked against the plan.
"""

from dataclasses import asdict, dataclass, make_dataclass
from typing import TYPE_CHECKING

from mri_jax.errors import UserError
from mri_jax.evaluation.baselines import BASELINES
from mri_jax.models.spec import ATTENTION, BATCH, NO_ATTENTION, NORMS, PRESETS, CNNSpec
from mri_jax.settings.fields import (
    Choice,
    Either,
    Exactly,
    Flag,
    Joined,
    Many,
    Number,
    Text,
    Whole,
    field,
)
from mri_jax.site_shifts import SHIFT_SETS, SHIFTS
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.normalise import METHODS, Normalisation

AUTO = "auto"
"""The type of activations that suits what computes."""
SEED = Whole(0, 2**63 - 1)
NAME, NO_NAME = Text(), Text(empty=True)
PATH = Text(longest=4096, empty=True)
COHORTS = Many(NAME, 1, 100, distinct=True)
EPOCHS = Whole(1, 100_000)
STEPS = Whole(0, 100_000_000)
STATISTICS = ("keep", "adapt")
LAYER_SETS = {
    "all": "all layers",
    "low": "first conv layer",
    "high": "last conv and FC layers",
    "head": "FC layers",
}
"""Named sets of layers that a fine-tuning trains; the name of a conv layer is one, too.

What belongs to a conv layer (`CNNSpec.of_conv`) trains with it.
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The question asked of the targets."""

    positive: str = field(NAME, "diagnosis of label 1", "AD")
    negative: str = field(NAME, "diagnosis of label 0", "CN")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the networks are trained on."""

    name: str = field(NO_NAME, "name of the networks in tables; empty: the name of the model", "")
    cohorts: tuple[str, ...] = field(COHORTS, "cohorts, pooled", ("ADNI1",))
    positive: str = field(NO_NAME, "diagnosis of label 1; empty: the one of the task", "")
    negative: str = field(NO_NAME, "diagnosis of label 0; empty: the one of the task", "")
    size_like: tuple[str, ...] = field(
        Many(NAME, 0, 100, distinct=True),
        "cohorts to whose size and class ratio the source is subsampled; empty: all subjects",
        (),
    )

    @property
    def pooled(self) -> str:
        """The name of the pooled cohorts in tables."""
        return "+".join(self.cohorts)


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Every site left out once, and tested with networks that were trained on all others."""

    minimum: int = field(
        Whole(0, 100_000),
        "scans of each class that a site needs to be left out by itself; 0: no site is left out",
        0,
        before=0,
    )
    cohorts: tuple[str, ...] = field(
        Many(NAME, 0, 100, distinct=True),
        "the sites; empty: every cohort of the table, or those of a simulated study of many sites",
        (),
        before=(),
    )
    small: str = field(
        Choice(("pool", "drop")),
        "what becomes of smaller sites: left out together as one, or not used at all",
        "pool",
        before="pool",
    )
    left_out: tuple[str, ...] = field(
        Many(NAME, 0, 100, distinct=True),
        "of a variant, the sites that its networks never see; leave it empty, the table says it",
        (),
        before=(),
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where scans come from and how they reach the device."""

    cohort: str = field(PATH, "the cohort table; empty, with store: simulated cohorts", "")
    store: str = field(PATH, "the store of volumes of the table's scans", "")
    repeated: str = field(
        Choice(("refuse", "remove")),
        "a person in several cohorts: refuse the study, or remove the later rows in the order "
        "source, then targets; simulated cohorts always remove, as the paper does",
        "refuse",
    )
    placement: str = field(
        Choice(("auto", "device", "stream")),
        "where volumes live while networks are trained; auto: by their size",
        "auto",
        free=True,
    )
    threads: int = field(Whole(1, 256), "threads that read volumes", 2, free=True)
    prefetch: int = field(Whole(1, 1024), "batches read ahead", 8, free=True)
    normalisation: str = field(
        Choice(METHODS), "how intensities inside the brain are normalised", "zscore"
    )
    histogram_reference: str = field(
        Choice(("template", "training")),
        "what histograms are matched to: the template's, or the mean of the training scans of each "
        "fold",
        "template",
    )
    clip: tuple[float, float] = field(
        Many(Number(0, 100), 2, 2, rising=True),
        "percentiles to which intensities are clipped",
        (0.5, 99.5),
    )
    background: float = field(Number(-1e4, 1e4), "the constant outside the brain", 0.0)

    @property
    def simulated(self) -> bool:
        """Whether the study makes its own cohorts."""
        return not self.cohort

    @property
    def intensities(self) -> Normalisation:
        """How intensities become unitless, but for a reference of training scans."""
        low, high = self.clip
        return Normalisation(
            method=self.normalisation,
            clip=(float(low), float(high)),
            background=float(self.background),
        )


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """The simulated cohorts that stand in when no cohort table is given."""

    grid: str = field(Choice(tuple(GRIDS)), "grid of the volumes", "demo")
    seed: int = field(SEED, "seed of the simulation", 2021)
    subjects_per_class: int = field(
        Whole(1, 100_000), "subjects a class of the source; the other cohorts scale with it", 60
    )
    paper_counts: bool = field(Flag(), "take the paper's numbers of subjects instead", False)
    shift: str = field(
        Joined(("sites", *SHIFT_SETS), SHIFTS),
        "what differs between sites; sites: scanners, ages, disease stages and shares of patients, "
        "as in the paper's cohorts; otherwise that alone (docs/simulation.md)",
        "sites",
        before="sites",
    )
    strength: float = field(
        Number(0, 10, open_least=True),
        "multiplies how far scanners and populations are from the first site",
        1.0,
        before=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network; see `mri_jax.models.CNNSpec`."""

    preset: str = field(
        Choice((*PRESETS, "")),
        "a member of the family; empty: the network that repetitions describe",
        "cnn5",
    )
    repetitions: tuple[int, ...] = field(
        Many(Whole(1, 20), 0, 10), "conv layers in each block, where preset is empty", ()
    )
    filters: tuple[int, ...] = field(
        Many(Whole(1, 4096), 1, 10), "filters in each block", (8, 16, 32, 64, 128)
    )
    width: float = field(Number(0, 100, open_least=True), "factor on the filters", 1.0)
    fc: tuple[int, ...] = field(
        Many(Whole(1, 65536), 0, 10), "sizes of the hidden FC layers", (128, 64)
    )
    dropout: tuple[float, ...] = field(
        Many(Number(0, 1, open_most=True), 1, 11), "rate before each FC layer", (0.5, 0.5, 0.0)
    )
    momentum: float = field(
        Number(0, 1, open_most=True), "momentum of BatchNorm's running statistics", 0.99
    )
    epsilon: float = field(Number(0, 1, open_least=True), "added to BatchNorm's variance", 1e-5)
    dtype: str = field(
        Choice(("float32", "bfloat16", AUTO)),
        "type of the activations; auto: bfloat16 on GPUs and TPUs, float32 on CPUs",
        "float32",
    )
    attention: str = field(
        Choice(ATTENTION),
        "the gate after the pooling of some blocks (docs/attention.md)",
        NO_ATTENTION,
        before=NO_ATTENTION,
    )
    attention_blocks: tuple[int, ...] = field(
        Many(Whole(1, 10), 0, 10, rising=True),
        "which blocks these are, from 1; empty: the last two, where there is attention",
        (),
        before=(),
    )
    norm: str = field(
        Choice(NORMS),
        "whose statistics normalise the output of a convolution: the batch's, or those of each "
        "volume's channels (instance) or groups of channels (group)",
        BATCH,
        before=BATCH,
    )
    residual: bool = field(
        Flag(), "add the input of a block to the output of its convolutions", False, before=False
    )

    @property
    def spec(self) -> CNNSpec:
        """The architecture; of type ``auto`` that on a CPU.

        Raises:
          UserError: Its fields contradict each other; the message begins with one of them.
        """
        values = asdict(self)
        if self.dtype == AUTO:
            values["dtype"] = "float32"
        preset = values.pop("preset")
        if not preset:
            return CNNSpec.from_dict(values)
        if values.pop("repetitions"):
            raise UserError(f"repetitions: {self.repetitions} must be () where preset is given")
        return CNNSpec.preset(preset, **values)


@dataclass(frozen=True, kw_only=True)
class Train:
    """How source networks are trained."""

    folds: int = field(Whole(2, 1000), "networks, each with another part of the source held out", 5)
    batch: int = field(Whole(1, 4096), "volumes a step", 2)
    accumulate: int = field(
        Whole(1, 4096),
        "into how many parts a batch is divided, which the network sees in turn, each with batch "
        "statistics of its own; their gradients are averaged. batch must be a multiple of it",
        1,
        before=1,
    )
    learning_rate: float = field(Number(0, 1), "learning rate of Adam", 1e-4)
    weight_decay: float = field(Number(0, 100), "decay a step, times the learning rate", 0.0)
    clip_norm: float = field(Number(0, 1e6), "largest norm of the gradient; 0: any", 0.0)
    class_weights: str = field(
        Choice(("none", "balanced")),
        "weights of the classes in the loss; balanced: inverse to their frequency",
        "none",
    )
    label_smoothing: float = field(
        Number(0, 1, open_most=True), "probability spread over the classes in the loss", 0.0
    )
    min_epochs: int = field(EPOCHS, "fewest epochs", 30)
    max_epochs: int = field(EPOCHS, "most epochs", 50)
    patience: int = field(EPOCHS, "epochs without a fall of the held-out loss until the end", 10)
    min_delta: float = field(Number(0, 100), "smallest fall of the held-out loss that counts", 1e-3)
    # The same in steps, for cohorts so small that an epoch has few: of each limit the later one
    # holds, and `max_epochs` is raised to reach `min_steps`. The paper has none.
    min_steps: int = field(
        STEPS, "fewest steps, also where max_epochs has fewer; 0: any", 0, before=0
    )
    patience_steps: int = field(
        STEPS, "steps without a fall of the held-out loss until the end; 0: any", 0, before=0
    )


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """How networks are fine-tuned."""

    layers: tuple[str, ...] = field(
        Many(NAME, 0, 1000, distinct=True),
        "sets of layers, each a way of fine-tuning: all, low, high, head, conv1, conv2, ...; "
        "empty: no fine-tuning",
        (),
    )
    statistics: tuple[str, ...] = field(
        Many(Choice(STATISTICS), 1, 2, distinct=True),
        "what becomes of the statistics of frozen BatchNorm layers",
        ("keep",),
    )
    cohort: str = field(NAME, "the cohort that is fine-tuned on", "ADNI2")
    parts: int = field(Whole(2, 1000), "parts of the cohort; one adapts, the others test", 5)
    repeats: int = field(
        Whole(1, 1000), "how many of the parts adapt in turn; how many draws of each of labels", 1
    )
    labels: tuple[float, ...] = field(
        Many(Number(0, 100, open_least=True, open_most=True), 0, 100, rising=True),
        "percentages of the cohort's subjects to adapt on, drawn from all parts but the last, "
        "which tests; empty: whole parts adapt",
        (),
        before=(),
    )
    learning_rate: float = field(Number(0, 1), "learning rate of Adam", 1e-5)
    epochs: int = field(EPOCHS, "number of epochs; with stopping=inner the largest number", 20)
    stopping: str = field(
        Choice(("fixed", "inner")),
        "what ends a tuning: the number of epochs, or early stopping on a fifth of the part",
        "fixed",
    )
    # Thresholds and temperatures of tuned networks come from these scores.
    inner_folds: int = field(
        Either(Exactly(0), Whole(2, 1000)),
        "folds of the cross-validation inside the adapting part; each is one more tuning of every "
        "network; 0: none",
        5,
    )


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a training volume is altered; see `mri_jax.training.augment`."""

    flip: bool = field(Flag(), "mirror left and right", False)
    shift: int = field(Whole(0, 64), "largest shift in voxels", 0)
    intensity: float = field(Number(0, 1), "SD of a factor and of an offset", 0.0)
    bias_field: float = field(Number(0, 1), "SD of the logarithm of a smooth field", 0.0)
    noise: float = field(Number(0, 1), "SD of noise", 0.0)


@dataclass(frozen=True, kw_only=True)
class _Baselines:
    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of those that are asked for."""
        return tuple(name for name, wanted in asdict(self).items() if wanted)


if TYPE_CHECKING:

    class Baselines(_Baselines):
        """Plain classifiers beside the networks: a field for each of `BASELINES`."""

else:
    Baselines = make_dataclass(
        "Baselines",
        [(each.name, bool, field(Flag(), each.about, True)) for each in BASELINES],
        bases=(_Baselines,),
        namespace={"__doc__": "Plain classifiers beside the networks.", "__module__": __name__},
        frozen=True,
        kw_only=True,
    )
