"""What a study consists of: stages, each named by a fingerprint of all that determines it.

Two entries of a plan (rows of tables) may share a stage: CNN-AD1 of the related-task study is CNN-5
of the baseline study, and is trained once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mri_jax.cohort.leakage import Seen
from mri_jax.evaluation.variants import Variant
from mri_jax.planning.catalogue import Examples
from mri_jax.training.job import FitSettings

NONE = Examples((), ())
"""No scans."""
EVALUATE, FEATURES = "evaluate", "features"
"""The kind of a stage that finds features."""
STATISTICS = "statistics"
"""The kind of a stage in which nothing trains."""


@dataclass(frozen=True)
class TrainStage:
    """A network to train: from scratch, or on from its parent; or its parent's with new statistics.

    Attributes:
      kind: ``source``; ``tune``; ``adapt``: trained by a method of `mri_jax.adaptation`; or
        ``statistics``: nothing trains, BatchNorm's statistics are estimated on `unlabelled`.
      fingerprint: Fingerprint of all that determines the network.
      fit: How it is trained.
      seed: Seed of its random streams.
      purpose: Names them.
      train: What it learns from.
      validation: What stops it; empty where nothing does.
      class_weights: ``none``, or ``balanced``: classes weigh alike in the loss.
      seen: Subjects and scans that it or an ancestor was shown, early stopping included.
      parent: The network it starts from.
      reference: Scans whose mean histogram its volumes are matched to; None: normalisation
        knows no training scans.
      label: For people: ``cnn5-w1``, ``cnn5-w1 tuned-high``. Determines nothing.
      unlabelled: Scans that it is shown without their labels.
    """

    kind: str
    fingerprint: str
    fit: FitSettings
    seed: int
    purpose: tuple[str | int, ...]
    train: Examples
    validation: Examples
    class_weights: str
    seen: Seen
    parent: "TrainStage | None" = None
    reference: Examples | None = None
    label: str = ""
    unlabelled: Examples = field(default=NONE)

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Everything it reads."""
        return tuple(e for e in (self.train, self.validation, self.unlabelled) if len(e))

    @property
    def ancestors(self) -> tuple["TrainStage", ...]:
        """The networks that it descends from, the first of them first."""
        return (*self.parent.ancestors, self.parent) if self.parent else ()

    @property
    def trained(self) -> "TrainStage | None":
        """The training that made it what it is: its own, or that before its new statistics.

        None where statistics alone tell it from a source network, whose training is told there.
        """
        if self.kind != STATISTICS or self.parent is None:
            return self
        return None if self.parent.kind == "source" else self.parent.trained

    @property
    def drawn(self) -> tuple[str | int, ...]:
        """The purpose of its first parameters, from scratch: those of its fold's source network."""
        return "source", self.fold

    @property
    def fold(self) -> int:
        """The source fold that was held out from it or its parent."""
        return int(self.purpose[self.purpose.index("source") + 1])


@dataclass(frozen=True)
class EvaluateStage:
    """Logits of a network for a set of scans, or its penultimate features.

    Attributes:
      fingerprint: Fingerprint of the network and the scans.
      network: The network.
      tested: The scans.
      kind: `EVALUATE` (logits) or `FEATURES`.
    """

    fingerprint: str
    network: TrainStage
    tested: Examples
    kind: str = EVALUATE

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Everything it reads."""
        return (self.tested,)

    @property
    def reference(self) -> Examples | None:
        """What its network's volumes are matched to."""
        return self.network.reference


@dataclass(frozen=True)
class BaselineStage:
    """A plain classifier: fitted on a fold's training scans, and its logits for sets of scans.

    Attributes:
      name: As in `mri_jax.evaluation.baselines.BASELINES`.
      fingerprint: Fingerprint of all that determines the logits.
      seed: Seed of its inner folds.
      train: What it learns from.
      tested: Scans it is asked about.
      seen: As of a network.
      covariates: Columns that it is fitted on; empty for ``voxels``.
      reference: As of a network.
      site: The cohort whose features are harmonised to those of the source; empty: none.
      unlabelled: Scans of that cohort to which the harmonisation is fitted.
      kept: Columns whose relation to the features is kept by it.
    """

    name: str
    fingerprint: str
    seed: int
    train: Examples
    tested: Examples
    seen: Seen
    covariates: tuple[str, ...] = ()
    reference: Examples | None = None
    site: str = ""
    unlabelled: Examples = field(default=NONE)
    kept: tuple[str, ...] = ()
    kind: str = "baseline"

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Everything it reads."""
        return tuple(e for e in (self.train, self.tested, self.unlabelled) if len(e))


Stage = TrainStage | EvaluateStage | BaselineStage


@dataclass(frozen=True)
class Answer:
    """Where a part of an entry's predictions comes from.

    Attributes:
      stage: Whose logits.
      cohort: The cohort column.
      split: The split column.
      examples: The scans, with the labels of the task.
      repeat: Value of the repeat column.
    """

    stage: EvaluateStage | BaselineStage
    cohort: str
    split: str
    examples: Examples
    repeat: int


@dataclass(frozen=True)
class Entry:
    """One network (or baseline) as a study names it.

    Attributes:
      variant: What the network is, or which baseline.
      stage: ``source``, ``tuned-LAYERS`` or ``adapted-METHOD``.
      repeat: Which fine-tuning part; 0 for a source.
      fold: The source fold held out.
      network: The stage that makes it.
      answers: What is asked of it.
      features: Its features of held-out source scans and of the target's test part, where they show
        how far apart the sites are.
    """

    variant: Variant
    stage: str
    repeat: int
    fold: int
    network: TrainStage | BaselineStage
    answers: tuple[Answer, ...] = field(default=())
    features: EvaluateStage | None = None

    @property
    def run(self) -> str:
        """The name of the variant in tables."""
        return self.variant.name


@dataclass(frozen=True)
class Plan:
    """A plan: all entries of a study."""

    entries: tuple[Entry, ...]

    def rows(self) -> list[int]:
        """Returns the rows of `Catalogue.frame` that some stage reads, in order."""
        return sorted({row for s in self.stages() for e in s.examples for row in e.rows})

    def stages(self) -> list[Stage]:
        """Returns every stage once, parents before children."""
        found: dict[str, Stage] = {}
        for stage in self._all():
            found.setdefault(stage.fingerprint, stage)
        return list(found.values())

    def _all(self) -> Iterator[Stage]:
        networks = [entry.network for entry in self.entries]
        for entry in self.entries:
            asked = [a.stage.network for a in entry.answers if isinstance(a.stage, EvaluateStage)]
            networks += asked
        for network in networks:
            if isinstance(network, TrainStage):
                yield from network.ancestors
        yield from networks
        for entry in self.entries:
            yield from (answer.stage for answer in entry.answers)
            if entry.features:
                yield entry.features
