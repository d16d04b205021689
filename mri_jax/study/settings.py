"""What a study is, typed: the only place that reads a config.

A config is a nested mapping with the fields of ``configs/base.py``. `Study.from_config` checks it
and turns it into frozen dataclasses; every other module takes those.
"""

import copy
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mri_jax.errors import UserError
from mri_jax.models import CNNSpec
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.loop import FitSettings
from mri_jax.training.step import LossSettings, OptimizerSettings, StepSettings
from mri_jax.training.stopping import StoppingSettings
from mri_jax.volumes.grids import grid_named
from mri_jax.volumes.normalise import METHODS, Normalisation

STATISTICS = ("keep", "adapt")


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
        names: list[str] = []
        for run in self.runs:
            names += run.source.cohorts + run.source.size_like
        for run in self.runs:
            names += run.targets
            if run.finetuning.tunings:
                names.append(run.finetuning.cohort)
        return tuple(dict.fromkeys(names))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Study":
        """Check a config and type it.

        Raises:
          UserError: A field is unknown, of the wrong type or out of range; the message names it.
        """
        variants: tuple[Mapping[str, Any], ...] = tuple(config["variants"]) or ({},)
        runs = tuple(_run(merged(config, variant)) for variant in variants)
        names = [run.name for run in runs]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise UserError(f"config.variants: two variants are both called {repeated.pop()!r}")
        section = config["baselines"]
        return cls(
            name=config["name"],
            preset=config["preset"],
            seed=_whole(config, "seed", 0),
            data=_data(config),
            runs=runs,
            baselines=tuple(name for name in section if section[name]),
            save_seconds=_number(config, "save_seconds", 0.0),
        )


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """A copy of ``config`` with nested ``overrides``.

    Raises:
      UserError: An override names a field that does not exist; the nearest one is named.
    """
    result = copy.deepcopy(dict(config))
    for name, value in overrides.items():
        if name not in result:
            raise UserError(unknown_field(f"{at}{name}", [f"{at}{known}" for known in result]))
        if isinstance(value, Mapping):
            result[name] = merged(result[name], value, f"{at}{name}.")
        else:
            result[name] = value
    return result


def unknown_field(name: str, known: Sequence[str]) -> str:
    """The message for a field that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"; did you mean config.{near[0]}?" if near else ""
    return f"config.{name}: no such field{hint}"


def _run(config: Mapping[str, Any]) -> Run:
    task, source = config["task"], config["source"]
    spec = _spec(config["model"])
    train = config["train"]
    finetuning = _finetuning(config["finetune"], spec)
    targets = _names(config, "targets")
    if finetuning.tunings and finetuning.cohort not in targets:
        targets = (finetuning.cohort, *targets)
    return Run(
        name=f"{source['name'] or _model_name(config['model'])}-w{spec.width:g}",
        spec=spec,
        source=Source(
            cohorts=_names(source, "cohorts", "source."),
            positive=source["positive"] or task["positive"],
            negative=source["negative"] or task["negative"],
            size_like=tuple(source["size_like"]),
        ),
        positive=task["positive"],
        negative=task["negative"],
        targets=targets,
        folds=_whole(train, "folds", 2, "train."),
        train=_fit(config, spec),
        balanced=_choice(train, "class_weights", ("none", "balanced"), "train.") == "balanced",
        finetuning=finetuning,
    )


def _model_name(model: Mapping[str, Any]) -> str:
    return model["preset"] or f"cnn{sum(model['repetitions'])}"


def _spec(model: Mapping[str, Any]) -> CNNSpec:
    fields = {k: v for k, v in model.items() if k != "preset"}
    try:
        if model["preset"]:
            if fields.pop("repetitions"):
                raise UserError("repetitions: must be empty where preset is given")
            return CNNSpec.preset(model["preset"], **fields)
        return CNNSpec.from_dict(fields)
    except UserError as error:
        raise UserError(f"config.model.{error}") from None


def _fit(config: Mapping[str, Any], spec: CNNSpec) -> FitSettings:
    train = config["train"]
    clip = _number(train, "clip_norm", 0.0, "train.")
    try:
        return FitSettings(
            step=StepSettings(
                spec=spec,
                optimizer=OptimizerSettings(
                    learning_rate=_number(train, "learning_rate", 0.0, "train."),
                    weight_decay=_number(train, "weight_decay", 0.0, "train."),
                    clip_norm=clip or None,
                ),
                loss=LossSettings(label_smoothing=_number(train, "label_smoothing", 0.0, "train.")),
            ),
            batch=_whole(train, "batch", 1, "train."),
            stopping=StoppingSettings(
                min_epochs=_whole(train, "min_epochs", 1, "train."),
                max_epochs=_whole(train, "max_epochs", 1, "train."),
                patience=_whole(train, "patience", 1, "train."),
                min_delta=_number(train, "min_delta", 0.0, "train."),
            ),
            augment=AugmentSettings(**config["augment"]),
        )
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("config.") else f"config.train.{text}") from None


def _finetuning(section: Mapping[str, Any], spec: CNNSpec) -> Finetuning:
    convs = tuple(name for name in spec.layer_names if name.startswith("conv"))
    sets = ("all", "low", "high", "head", *convs)
    statistics = _names(section, "statistics", "finetune.")
    tunings = []
    for layers in section["layers"]:
        if layers not in sets:
            raise UserError(f"config.finetune.layers: {layers!r} is not one of {', '.join(sets)}")
        for name in statistics:
            if name not in STATISTICS:
                raise UserError(f"config.finetune.statistics: {name!r} is not one of {STATISTICS}")
            if layers != "all" or name == "keep":
                tunings.append(Tuning(layers, name))
    parts = _whole(section, "parts", 2, "finetune.")
    repeats = _whole(section, "repeats", 1, "finetune.")
    if repeats > parts:
        raise UserError(f"config.finetune.repeats: {repeats} is more than finetune.parts, {parts}")
    return Finetuning(
        tunings=tuple(tunings),
        cohort=section["cohort"],
        parts=parts,
        repeats=repeats,
        learning_rate=_number(section, "learning_rate", 0.0, "finetune."),
        epochs=_whole(section, "epochs", 1, "finetune."),
        stopping=_choice(section, "stopping", ("fixed", "inner"), "finetune."),
        inner_folds=_inner_folds(section),
    )


def _inner_folds(section: Mapping[str, Any]) -> int:
    number = _whole(section, "inner_folds", 0, "finetune.")
    if number == 1:
        raise UserError("config.finetune.inner_folds: 1 must be 0 (none) or at least 2")
    return number


def _data(config: Mapping[str, Any]) -> Data:
    section, simulation = config["data"], config["simulation"]
    if bool(section["cohort"]) != bool(section["store"]):
        missing = "store" if section["cohort"] else "cohort"
        raise UserError(
            f"config.data.{missing}: is empty; give both the cohort table and the store, or neither"
        )
    grid_named(simulation["grid"])
    reference = _choice(section, "histogram_reference", ("template", "training"), "data.")
    if reference == "training" and section["normalisation"] != "histogram":
        raise UserError(
            "config.data.histogram_reference: 'training' needs config.data.normalisation=histogram"
        )
    return Data(
        cohort=section["cohort"],
        store=section["store"],
        repeated=_choice(section, "repeated", ("refuse", "remove"), "data."),
        placement=_choice(section, "placement", ("auto", "device", "stream"), "data."),
        threads=_whole(section, "threads", 1, "data."),
        prefetch=_whole(section, "prefetch", 1, "data."),
        normalisation=Normalisation(
            method=_choice(section, "normalisation", METHODS, "data."),
            clip=(float(section["clip"][0]), float(section["clip"][1])),
            background=float(section["background"]),
        ),
        reference=reference,
        simulation=SimulationChoice(
            grid=simulation["grid"],
            seed=_whole(simulation, "seed", 0, "simulation."),
            subjects_per_class=_whole(simulation, "subjects_per_class", 1, "simulation."),
            paper_counts=bool(simulation["paper_counts"]),
        ),
    )


def _names(section: Mapping[str, Any], field: str, at: str = "") -> tuple[str, ...]:
    value = section[field]
    if isinstance(value, str) or not value:
        raise UserError(f"config.{at}{field}: {value!r} must be a non-empty sequence of names")
    if len(set(value)) < len(value):
        raise UserError(f"config.{at}{field}: {tuple(value)} has a name twice")
    return tuple(value)


def _whole(section: Mapping[str, Any], field: str, least: int, at: str = "") -> int:
    value = section[field]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"config.{at}{field}: {value!r} must be a whole number, {least} or more")
    return value


def _number(section: Mapping[str, Any], field: str, least: float, at: str = "") -> float:
    value = section[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise UserError(f"config.{at}{field}: {value!r} must be a number, {least:g} or more")
    return float(value)


def _choice(section: Mapping[str, Any], field: str, choices: Sequence[str], at: str = "") -> str:
    value = section[field]
    if value not in choices:
        raise UserError(f"config.{at}{field}: {value!r} is not one of {', '.join(choices)}")
    return value
