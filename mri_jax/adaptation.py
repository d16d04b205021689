"""The methods that adapt a network to a target site: what each is, needs and is called.

A method that minimises more than cross-entropy has an objective, a module of
`mri_jax.training.objectives`. Nothing else names a method: ``docs/adaptation.md`` shows how one is
added.
"""

import re
from dataclasses import dataclass

STAGE = "adapted-"
"""What the stages of adapted networks begin with in tables: ``adapted-coral``."""
UNDIAGNOSED, TRANSDUCTIVE = "undiagnosed", "transductive"
"""Marks of stages whose methods saw more than the adaptation part: scans of the target that have
no diagnosis, and those of the test part. Both without labels."""
_MARKED = re.compile(rf"(.+?)(-{UNDIAGNOSED})?(-{TRANSDUCTIVE})?")
_PART = re.compile(r"(.+)-(patients|labels)(\d+(?:\.\d+)?)")
ALL, NORMS = ".*", r"bn\d+/.*"
SCRATCH, SOURCE, BASELINES = "scratch", "source", "baselines"


@dataclass(frozen=True)
class Rate:
    """A number that a method needs, a field of the config: ``config.adaptation.METHOD_NAME``.

    Attributes:
      name: Its name after that of the method.
      about: One line of documentation.
      default: Its value in a new config.
      most: Its largest value; the least is 0.
      whole: Whether it is a whole number, of at least 1.
    """

    name: str
    about: str
    default: float
    most: float
    whole: bool = False


@dataclass(frozen=True)
class Method:
    """A way to adapt a network to a target site.

    Attributes:
      name: In the config and in stages.
      shown: What people call a network adapted by it.
      about: What it does, one line.
      cited: Where it comes from.
      start: `SCRATCH`, `SOURCE` (the source network), the name of a set of layers that are
        fine-tuned first, or of another method; `BASELINES`: it adapts the features of plain
        classifiers, and no network.
      source_labels: Whether it trains on the source's scans with their labels.
      target_labels: Whether it trains on the adaptation part with its labels; a method that does
        not sees that part without them, if at all.
      trains: Which parameters train, as a pattern over their paths; empty: none.
      statistics: Whether BatchNorm's statistics, if the network has some, are estimated anew on the
        adaptation part, after any training, so that these test.
      objective: Module of `mri_jax.training.objectives` that has its loss; empty: cross-entropy.
      gated: Whether the network gets a spatial gate after its last block, and no other.
      rates: Numbers that it needs.
    """

    name: str
    shown: str
    about: str
    cited: str
    start: str
    source_labels: bool = False
    target_labels: bool = False
    trains: str = ALL
    statistics: bool = False
    objective: str = ""
    gated: bool = False
    rates: tuple[Rate, ...] = ()

    @property
    def label_free(self) -> bool:
        """Whether it uses the adaptation part without its labels."""
        return not self.target_labels

    @property
    def norms_alone(self) -> bool:
        """Whether it changes BatchNorm layers and nothing else, and so needs them."""
        return self.start != BASELINES and self.trains in ("", NORMS)

    def stage(self, marks: tuple[str, ...] = ()) -> str:
        """Returns the name in tables: ``adapted-coral``, ``adapted-coral-transductive``.

        Args:
          marks: Of `UNDIAGNOSED` and `TRANSDUCTIVE`, in this order, those that methods without
            labels get.
        """
        return "-".join([STAGE + self.name, *(marks if self.label_free else ())])


METHODS = (
    Method(
        name="adabn",
        shown="target's statistics (AdaBN)",
        about="BatchNorm's statistics estimated anew on the adaptation part",
        cited="Li et al. 2016",
        start=SOURCE,
        trains="",
        statistics=True,
    ),
    Method(
        name="tent",
        shown="entropy minimised (TENT)",
        about="the target's statistics, then the entropy of decisions minimised over BatchNorm's "
        "scales and biases",
        cited="Wang et al. 2021",
        start="adabn",
        trains=NORMS,
        objective="tent",
        rates=(
            Rate("learning_rate", "learning rate of Adam", 1e-3, 1),
            Rate("epochs", "number of epochs", 10, 100_000, whole=True),
        ),
    ),
    Method(
        name="coral",
        shown="covariances aligned (CORAL)",
        about="source training with the covariances of both sites' penultimate features aligned",
        cited="Sun and Saenko 2016",
        start=SCRATCH,
        source_labels=True,
        statistics=True,
        objective="coral",
        rates=(
            Rate("weight", "weight of the distance of covariances in the loss", 1.0, 1e9),
            Rate("memory", "features of each site that are remembered", 64, 65_536, whole=True),
        ),
    ),
    Method(
        name="dann",
        shown="sites told apart by an adversary (DANN)",
        about="source training against a discriminator of sites, whose gradient is reversed",
        cited="Ganin et al. 2016",
        start=SCRATCH,
        source_labels=True,
        statistics=True,
        objective="dann",
        rates=(
            Rate("weight", "weight of the reversed gradient at the end of its schedule", 1.0, 1e6),
            Rate("hidden", "size of the discriminator's hidden layer", 64, 65_536, whole=True),
        ),
    ),
    Method(
        name="ad2a",
        shown="attention alike at both sites (AD2A)",
        about="source training of a network with a spatial gate, whose weights are to agree "
        "between the sites, against a discriminator of sites",
        cited="Guan et al. 2021",
        start=SCRATCH,
        source_labels=True,
        statistics=True,
        objective="ad2a",
        gated=True,
        rates=(
            Rate(
                "consistency", "weight of the gates' mean squared difference in the loss", 1.0, 1e6
            ),
            Rate("weight", "weight of the reversed gradient at the end of its schedule", 1.0, 1e6),
            Rate("hidden", "size of the discriminator's hidden layer", 64, 65_536, whole=True),
        ),
    ),
    Method(
        name="combat",
        shown="features harmonised (ComBat)",
        about="the features of plain classifiers brought to the source's location and scale, age "
        "and sex kept",
        cited="Johnson et al. 2007",
        start=BASELINES,
        trains="",
    ),
    Method(
        name="lp-ft",
        shown="FC layers, then all layers fine-tuned (LP-FT)",
        about="fine-tuning of the FC layers, then of all layers",
        cited="Kumar et al. 2022",
        start="head",
        target_labels=True,
    ),
    Method(
        name="l2-sp",
        shown="all layers fine-tuned near the source (L2-SP)",
        about="fine-tuning of all layers with a penalty on the distance from the source network",
        cited="Li et al. 2018",
        start=SOURCE,
        target_labels=True,
        objective="l2_sp",
        rates=(Rate("weight", "weight of half the squared distance in the loss", 0.01, 1e6),),
    ),
    Method(
        name="pooled",
        shown="trained on source and adaptation part",
        about="trained from scratch on the source and the adaptation part together",
        cited="",
        start=SCRATCH,
        source_labels=True,
        target_labels=True,
    ),
    Method(
        name="target-only",
        shown="trained on the adaptation part",
        about="trained from scratch on the adaptation part alone",
        cited="",
        start=SCRATCH,
        target_labels=True,
    ),
)


RESAMPLED = tuple(m.name for m in METHODS if m.label_free and m.start != BASELINES)
"""Methods that can be run on the adaptation part drawn to shares of patients."""


def named(name: str) -> Method:
    """Returns the method of that name.

    Raises:
      KeyError: There is none.
    """
    return {method.name: method for method in METHODS}[name]


def field_of(method: Method, rate: Rate) -> str:
    """Returns the name of a rate's field: ``tent_learning_rate``, ``l2_sp_weight``."""
    return f"{method.name.replace('-', '_')}_{rate.name}"


@dataclass(frozen=True)
class Part:
    """Which scans of the target a network is adapted on.

    Attributes:
      repeat: Which of the disjoint parts of the target, or which draw.
      patients: The part is drawn anew to this percentage of patients; None: it is as it is.
      labels: It is this percentage of the target's subjects; None: a whole part.
    """

    repeat: int = 0
    patients: int | None = None
    labels: float | None = None

    @property
    def purpose(self) -> tuple[str | int, ...]:
        """What it adds to the names of random streams."""
        drawn = () if self.patients is None else ("patients", self.patients)
        return (
            self.repeat,
            *drawn,
            *(() if self.labels is None else ("labels", f"{self.labels:g}")),
        )

    @property
    def suffix(self) -> str:
        """What it adds to the names of stages.

        >>> Part(1).suffix, Part(0, patients=20).suffix, Part(0, labels=2.5).suffix
        ('', '-patients20', '-labels2.5')
        """
        if self.patients is not None:
            return f"-patients{self.patients}"
        return "" if self.labels is None else f"-labels{self.labels:g}"


def parted(stage: str) -> tuple[str, Part]:
    """Returns the name of a stage without its part, and the part (of repeat 0).

    >>> parted("tuned-high-labels2.5")
    ('tuned-high', Part(repeat=0, patients=None, labels=2.5))
    >>> parted("adapted-lp-ft")[0], parted("tuned-all-adapt-patients20")[1].patients
    ('adapted-lp-ft', 20)
    """
    found = _PART.fullmatch(stage)
    if not found:
        return stage, Part()
    if found[2] == "patients":
        return found[1], Part(patients=int(float(found[3])))
    return found[1], Part(labels=float(found[3]))


def of_stage(stage: str) -> Method | None:
    """Returns the method of a stage's name; None where it is of no adapted network.

    >>> of_stage("adapted-lp-ft").name, of_stage("adapted-adabn-patients20").name
    ('lp-ft', 'adabn')
    >>> of_stage("tuned-high")
    """
    name = _marked(stage)[0].removeprefix(STAGE)
    return next((m for m in METHODS if stage.startswith(STAGE) and m.name == name), None)


def marks(stage: str) -> tuple[str, ...]:
    """Returns what a stage's network saw beside the adaptation part.

    >>> marks("adapted-adabn-transductive"), marks("adapted-adabn-patients20")
    (('transductive',), ())
    """
    return _marked(stage)[1]


def _marked(stage: str) -> tuple[str, tuple[str, ...]]:
    """Returns the name of a stage without part and marks, and the marks."""
    found = _MARKED.fullmatch(parted(stage)[0])
    if found is None:  # the empty name
        return stage, ()
    return found[1], tuple(mark.removeprefix("-") for mark in found.groups()[1:] if mark)
