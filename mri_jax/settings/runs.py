"""A network variant of a study: what it is trained on and how, with what a study leaves out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mri_jax import adaptation
from mri_jax.adaptation import Method
from mri_jax.errors import UserError
from mri_jax.evaluation.variants import CNN, Variant
from mri_jax.models.spec import BATCH, NO_ATTENTION, CNNSpec
from mri_jax.settings.adapting import Adaptation, check_adaptation
from mri_jax.settings.fields import naming_fields_of, shown
from mri_jax.settings.sections import (
    LAYER_SETS,
    Augment,
    Finetune,
    Sites,
    Source,
    Task,
    Train,
)

if TYPE_CHECKING:
    from mri_jax.settings.study import Study


@dataclass(frozen=True)
class Tuning:
    """One way of fine-tuning.

    Attributes:
      layers: ``all``, ``low``, ``high``, ``head`` or the name of a conv layer.
      statistics: ``keep`` or ``adapt``: what becomes of those of frozen BatchNorm layers.
    """

    layers: str
    statistics: str

    @property
    def stage(self) -> str:
        """The name in tables: ``tuned-high``, ``tuned-high-adapt``."""
        return f"tuned-{self.layers}" + ("-adapt" if self.statistics == "adapt" else "")


@dataclass(frozen=True)
class Run:
    """One network variant: a row, or a few rows, of a table.

    Attributes:
      variant: What tables say of it; its name is made of that.
      spec: The architecture.
      task: The question asked of the targets.
      source: What it is trained on; its diagnoses are filled in.
      targets: Test cohorts, among them the one that is tuned on.
      train: How source networks are trained.
      augment: How training volumes are altered.
      finetune: How they are fine-tuned.
      tunings: The ways of fine-tuning; none: not at all.
      adaptation: How they are adapted otherwise.
    """

    variant: Variant
    spec: CNNSpec
    task: Task
    source: Source
    targets: tuple[str, ...]
    train: Train
    augment: Augment
    finetune: Finetune
    tunings: tuple[Tuning, ...]
    adaptation: Adaptation

    @property
    def methods(self) -> tuple[Method, ...]:
        """The other ways of adapting networks."""
        chosen = (adaptation.named(name) for name in self.adaptation.methods)
        return tuple(method for method in chosen if method.start != adaptation.BASELINES)

    @property
    def harmonises(self) -> tuple[Method, ...]:
        """The ways of adapting plain classifiers."""
        chosen = (adaptation.named(name) for name in self.adaptation.methods)
        return tuple(method for method in chosen if method.start == adaptation.BASELINES)

    @property
    def adapts(self) -> bool:
        """Whether a part of the cohort of `finetune` is set aside to adapt on."""
        return bool(self.tunings or self.adaptation.methods)

    @property
    def name(self) -> str:
        """Its name in tables, e.g. ``cnn5-w1``."""
        return self.variant.name


def run_of(study: "Study", at: str) -> Run:
    """Returns the run of a study without variants; messages put ``at`` before its fields.

    Raises:
      UserError: Its fields contradict one another, or describe no network.
    """
    task, source, train = study.task, study.source, study.train
    with naming_fields_of(f"{at}.model"):
        spec = study.model.spec
    tunings = tuple(_tunings(study.finetune, spec, f"{at}.finetune"))
    targets = study.targets
    adapts = bool(tunings or study.adaptation.methods)
    if adapts and study.finetune.cohort not in targets:
        targets = (study.finetune.cohort, *targets)
    source = replace(
        source,
        positive=source.positive or task.positive,
        negative=source.negative or task.negative,
    )
    for place, asked in ((f"{at}.task", task), (f"{at}.source", source)):
        if asked.positive == asked.negative:
            raise UserError(
                f"{place}.positive: {asked.positive!r} must differ from {place}.negative"
            )
    check_adaptation(study, task, source, at)
    _check_apart(study, source, adapts, at)
    if train.batch % train.accumulate:
        raise UserError(
            f"{at}.train.batch: {train.batch} must be a multiple of {at}.train.accumulate, "
            f"{train.accumulate}"
        )
    if train.min_epochs > train.max_epochs:
        raise UserError(
            f"{at}.train.min_epochs: {train.min_epochs} must be at most {at}.train.max_epochs, "
            f"{train.max_epochs}"
        )
    return Run(
        variant=_variant_of(spec, source.name, study.sites),
        spec=spec,
        task=task,
        source=source,
        targets=targets,
        train=train,
        augment=study.augment,
        finetune=study.finetune,
        tunings=tunings,
        adaptation=study.adaptation,
    )


def _variant_of(spec: CNNSpec, source: str, sites: Sites) -> Variant:
    """Returns what tables say of a network."""
    attention = "" if spec.attention == NO_ATTENTION else spec.attention
    if attention and spec != replace(spec, attention_blocks=()):
        attention = "-".join([attention, *map(str, spec.attention_blocks)])
    return Variant(
        CNN,
        source,
        len(spec.conv_filters),
        spec.width,
        attention,
        norm="" if spec.norm == BATCH else spec.norm,
        residual="residual" if spec.residual else "",
        left_out="+".join(sites.left_out),
    )


def _check_apart(study: "Study", source: Source, adapts: bool, at: str) -> None:
    """Refuses to test on a source cohort with a class of the source: on people trained on."""
    shared = {study.task.positive, study.task.negative} & {source.positive, source.negative}
    tuned = (study.finetune.cohort,) if adapts else ()
    for name, cohorts in (("targets", study.targets), ("finetune.cohort", tuned)):
        both = [cohort for cohort in cohorts if cohort in source.cohorts]
        if both and shared:
            raise UserError(
                f"{at}.{name}: {both[0]!r} is also in {at}.source.cohorts, with the class "
                f"{min(shared)}: networks would be tested on the people that they are trained on"
            )


def _tunings(section: Finetune, spec: CNNSpec, at: str) -> Iterator[Tuning]:
    convs = tuple(name for name in spec.layer_names if name.startswith("conv"))
    sets: Sequence[str] = (*LAYER_SETS, *convs)
    most = 100 * (1 - 1 / section.parts)
    if section.labels and section.labels[-1] > most + 1e-9:
        raise UserError(
            f"{at}.labels: {section.labels[-1]:g} must be at most {most:g}, what the last of the "
            f"{section.parts} parts, which tests, leaves"
        )
    for layers in section.layers:
        if layers not in sets:
            raise UserError(
                f"{at}.layers: {shown(layers)} must be one of {', '.join(sets)} "
                "(docs/config.md has the layers that each trains)"
            )
    if section.repeats > section.parts and not section.labels:
        raise UserError(
            f"{at}.repeats: {section.repeats} must be at most {at}.parts, {section.parts}"
        )
    for layers in section.layers:
        for statistics in section.statistics:
            # Where every layer is tuned no BatchNorm layer is frozen.
            if (layers != "all" and spec.norm == BATCH) or statistics == "keep":
                yield Tuning(layers, statistics)
