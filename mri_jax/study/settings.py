"""What a study is, typed: the only place that reads a config.

A config is a nested mapping with the fields of `mri_jax.study.config`, which checks each of them.
`Study.from_config` checks what fields say together and turns them into frozen dataclasses; every
other module takes those.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from typing import Any

from mri_jax.errors import UserError
from mri_jax.filenames import refuse_alike
from mri_jax.files import expanded
from mri_jax.models import CNNSpec
from mri_jax.settings import sections
from mri_jax.settings.fields import read, shown
from mri_jax.settings.sections import VARIED, Config
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.loop import FitSettings
from mri_jax.training.step import LossSettings, OptimizerSettings, StepSettings
from mri_jax.training.stopping import StepLimits, StoppingSettings
from mri_jax.volumes.normalise import Normalisation


@dataclass(frozen=True)
class Source:
    """What the networks of a run are trained on.

    Attributes:
      cohorts: Their names; several are pooled.
      positive: The diagnosis of label 1.
      negative: The diagnosis of label 0.
      size_like: Subsample to the number of subjects a class that these cohorts have; empty: none.
    """

    cohorts: tuple[str, ...]
    positive: str
    negative: str
    size_like: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """One way of fine-tuning.

    Attributes:
      layers: ``all``, ``low``, ``high``, ``head`` or the name of a conv layer.
      statistics: ``keep`` or ``adapt``: of frozen BatchNorm layers.
    """

    layers: str
    statistics: str

    @property
    def stage(self) -> str:
        """The name in tables: ``tuned-high``, ``tuned-high-adapt``."""
        return f"tuned-{self.layers}" + ("-adapt" if self.statistics == "adapt" else "")


@dataclass(frozen=True)
class Finetuning:
    """How networks are fine-tuned; no tunings means not at all."""

    tunings: tuple[Tuning, ...]
    cohort: str
    parts: int
    repeats: int
    learning_rate: float
    epochs: int
    stopping: str
    inner_folds: int


@dataclass(frozen=True)
class Run:
    """One network variant: a row, or a few rows, of a table.

    Attributes:
      name: Its name in tables, e.g. ``cnn5-w1``.
      spec: The architecture.
      source: What it is trained on.
      positive: Diagnosis of label 1 in the test cohorts.
      negative: Diagnosis of label 0 in the test cohorts.
      targets: Test cohorts.
      folds: How many networks.
      train: How source networks are trained; class weights are set for each fold.
      limits: Of their length in steps, which a plan turns into epochs.
      balanced: Whether the loss weighs classes inversely to their frequency.
      finetuning: How they are fine-tuned.
    """

    name: str
    spec: CNNSpec
    source: Source
    positive: str
    negative: str
    targets: tuple[str, ...]
    folds: int
    train: FitSettings
    limits: StepLimits
    balanced: bool
    finetuning: Finetuning


@dataclass(frozen=True)
class SimulationChoice:
    """The simulated cohorts that stand in when no cohort table is given."""

    grid: str
    seed: int
    subjects_per_class: int
    paper_counts: bool


@dataclass(frozen=True)
class Data:
    """Where scans come from and how they reach the device.

    ``reference`` is what ``histogram`` matches to: the ``template``, or the mean histogram of the
    ``training`` scans of each fold.
    """

    cohort: str
    store: str
    repeated: str
    placement: str
    threads: int
    prefetch: int
    normalisation: Normalisation
    reference: str
    simulation: SimulationChoice

    @property
    def simulated(self) -> bool:
        """Whether the study makes its own cohorts."""
        return not self.cohort


@dataclass(frozen=True)
class Study:
    """A whole study.

    Attributes:
      name: The config's name; labels results, never a random stream.
      preset: ``demo``, ``dev``, ``paper`` or ``smoke``.
      seed: Of every random stream.
      data: The scans.
      runs: The network variants, in the order of the tables.
      baselines: Which plain classifiers stand beside: of ``age_sex``, ``hippocampus``, ``voxels``.
      save_seconds: Least time between saved states of a training.
    """

    name: str
    preset: str
    seed: int
    data: Data
    runs: tuple[Run, ...]
    baselines: tuple[str, ...]
    save_seconds: float

    @property
    def divisible(self) -> int:
        """The largest number that divides every variant's batch."""
        return math.gcd(*(run.train.batch for run in self.runs))

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Every cohort that is trained on or tested on, in the order source, targets."""
        return _cohorts(self.runs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Study":
        """Check a config and type it.

        Raises:
          UserError: A field is unknown, of the wrong type or out of range; the message names it.
        """
        base = read(Config, config, "config")
        runs = tuple(_runs(config, base))
        names = [run.name for run in runs]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise UserError(f"config.variants: two variants are both called {repeated.pop()!r}")
        refuse_alike(names, "config.variants")
        refuse_alike(_cohorts(runs), "config.source.cohorts, config.targets")
        return cls(
            name=base.name,
            preset=base.preset,
            seed=base.seed,
            data=_data(base),
            runs=runs,
            baselines=tuple(name for name, wanted in asdict(base.baselines).items() if wanted),
            save_seconds=float(base.save_seconds),
        )


def _cohorts(runs: Sequence[Run]) -> tuple[str, ...]:
    names: list[str] = []
    for run in runs:
        names += run.source.cohorts + run.source.size_like
    for run in runs:
        names += run.targets
        if run.finetuning.tunings:
            names.append(run.finetuning.cohort)
    return tuple(dict.fromkeys(names))


def _runs(config: Mapping[str, Any], base: Config) -> Iterator[Run]:
    if not base.variants:
        yield _run(base, "config")
    for number, variant in enumerate(base.variants):
        at = f"config.variants[{number}]"
        for name in variant:
            if name in config and name not in VARIED:
                raise UserError(
                    f"{at}.{name}: is one for all variants; they may change {', '.join(VARIED)}"
                )
        yield _run(read(Config, merged(config, variant), at), at)


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``config`` with nested ``overrides``."""
    result = copy.deepcopy(dict(config))
    for name, value in overrides.items():
        inside = result.get(name)
        if isinstance(value, Mapping) and isinstance(inside, Mapping):
            result[name] = merged(inside, value)
        else:
            result[name] = value
    return result


def _run(config: Config, at: str) -> Run:
    """The run of a config, whose fields messages name beginning with ``at``."""
    task, source = config.task, config.source
    spec = _spec(config.model, f"{at}.model")
    finetuning = _finetuning(config.finetune, spec, f"{at}.finetune")
    targets = config.targets
    if finetuning.tunings and finetuning.cohort not in targets:
        targets = (finetuning.cohort, *targets)
    positive, negative = source.positive or task.positive, source.negative or task.negative
    for place, pair in ((f"{at}.task", astuple(task)), (f"{at}.source", (positive, negative))):
        if pair[0] == pair[1]:
            raise UserError(f"{place}.positive: {pair[0]!r} must differ from {place}.negative")
    return Run(
        name=f"{source.name or _model_name(config.model)}-w{spec.width:g}",
        spec=spec,
        source=Source(source.cohorts, positive, negative, source.size_like),
        positive=task.positive,
        negative=task.negative,
        targets=targets,
        folds=config.train.folds,
        train=_fit(config, spec, f"{at}.train"),
        limits=StepLimits(config.train.min_steps, config.train.patience_steps),
        balanced=config.train.class_weights == "balanced",
        finetuning=finetuning,
    )


def _model_name(model: sections.Model) -> str:
    return model.preset or f"cnn{sum(model.repetitions)}"


def _spec(model: sections.Model, at: str) -> CNNSpec:
    values = asdict(model)
    preset = values.pop("preset")
    if preset and model.repetitions:
        raise UserError(f"{at}.repetitions: {model.repetitions} must be () where preset is given")
    with _fields_of(at):
        if preset:
            del values["repetitions"]
            return CNNSpec.preset(preset, **values)
        return CNNSpec.from_dict(values)


@contextmanager
def _fields_of(at: str) -> Iterator[None]:
    """Put the section before the field that an error begins with."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{at}.{error}") from None


def _fit(config: Config, spec: CNNSpec, at: str) -> FitSettings:
    train = config.train
    with _fields_of(at):
        return FitSettings(
            step=StepSettings(
                spec=spec,
                optimizer=OptimizerSettings(
                    learning_rate=float(train.learning_rate),
                    weight_decay=float(train.weight_decay),
                    clip_norm=float(train.clip_norm) or None,
                ),
                loss=LossSettings(label_smoothing=float(train.label_smoothing)),
            ),
            batch=train.batch,
            stopping=StoppingSettings(
                min_epochs=train.min_epochs,
                max_epochs=train.max_epochs,
                patience=train.patience,
                min_delta=float(train.min_delta),
            ),
            augment=AugmentSettings(**asdict(config.augment)),
        )


def _finetuning(section: sections.Finetune, spec: CNNSpec, at: str) -> Finetuning:
    convs = tuple(name for name in spec.layer_names if name.startswith("conv"))
    sets = ("all", "low", "high", "head", *convs)
    for layers in section.layers:
        if layers not in sets:
            raise UserError(f"{at}.layers: {shown(layers)} must be one of {', '.join(sets)}")
    if section.repeats > section.parts:
        raise UserError(
            f"{at}.repeats: {section.repeats} must be at most {at}.parts, {section.parts}"
        )
    return Finetuning(
        tunings=tuple(
            Tuning(layers, statistics)
            for layers in section.layers
            for statistics in section.statistics
            # Where every layer is tuned no BatchNorm layer is frozen.
            if layers != "all" or statistics == "keep"
        ),
        cohort=section.cohort,
        parts=section.parts,
        repeats=section.repeats,
        learning_rate=float(section.learning_rate),
        epochs=section.epochs,
        stopping=section.stopping,
        inner_folds=section.inner_folds,
    )


def _data(config: Config) -> Data:
    section = config.data
    if bool(section.cohort) != bool(section.store):
        missing = "store" if section.cohort else "cohort"
        raise UserError(
            f"config.data.{missing}: is empty; give both the cohort table and the store, or neither"
        )
    if section.histogram_reference == "training" and section.normalisation != "histogram":
        raise UserError(
            "config.data.histogram_reference: 'training' needs config.data.normalisation=histogram"
        )
    return Data(
        cohort=expanded(section.cohort),
        store=expanded(section.store),
        repeated=section.repeated,
        placement=section.placement,
        threads=section.threads,
        prefetch=section.prefetch,
        normalisation=Normalisation(
            method=section.normalisation,
            clip=(float(section.clip[0]), float(section.clip[1])),
            background=float(section.background),
        ),
        reference=section.histogram_reference,
        simulation=SimulationChoice(**asdict(config.simulation)),
    )
