"""What a prediction needs of a run, and nothing of its subjects: networks, settings, references.

A `PortableModel` is made from a run (`build`) or read from an exported folder (`folder`); what is
predicted depends on the model alone, so both give equal outputs. References are percentiles and
moments; no score of a subject and no id is kept. That a network was trained on a volume is
recognised by the volume's digest, which tells nothing to whoever does not have that very volume.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mri_jax.errors import UserError
from mri_jax.evaluation.delong import Interval
from mri_jax.models import CNNSpec
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.pipeline import PreprocessSettings

PERCENTS = (2.5, *range(5, 100, 5), 97.5)
FAR_PERCENT = 97.5
ARGMAX = "argmax"
HELD_OUT = "held-out"
POINTS = (ARGMAX, HELD_OUT)
PENULTIMATE = "penultimate"
LAYERS = "layers"
KINDS = (PENULTIMATE, LAYERS)
"""Kinds of features in which a scan's distance from the training scans is measured."""
MEANING = {
    PENULTIMATE: "the penultimate features, from which the networks decide",
    LAYERS: "the mean and spread of the response of every filter of the conv layers",
}


def digest_of(volume: np.ndarray) -> str:
    """32 hexadecimal digits by which a normalised volume (X, Y, Z, 1) float32 is recognised."""
    return hashlib.sha256(np.ascontiguousarray(volume).data).hexdigest()[:32]


def widths(spec: CNNSpec) -> dict[str, int]:
    """Returns how many features of each kind a network has."""
    maps = (spec.conv_filters[last - 1] for _, last in spec.stretches)
    return {PENULTIMATE: spec.fc[-1], LAYERS: 2 * sum(maps)}


@dataclass(frozen=True)
class Distribution:
    """Scores of a group without the scores of anyone.

    Attributes:
      n: How many.
      percentiles: At `PERCENTS`.
    """

    n: int
    percentiles: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Distribution":
        """Summarise (N,) values."""
        found = np.percentile(np.asarray(values, float), PERCENTS)
        return cls(len(values), tuple(float(x) for x in found))

    def share_below(self, value: float) -> float:
        """Percent of the group below a value, 2.5 to 97.5 (the ends are not told)."""
        return float(np.interp(value, self.percentiles, PERCENTS))


@dataclass(frozen=True)
class ScoreGroup:
    """Where the scores of one class of one cohort lie.

    Attributes:
      cohort: Its name.
      diagnosis: Its diagnosis.
      label: 1 for the positive diagnosis.
      held_out: Scores of the training cohort, each by the network that held the scan out; otherwise
        of the ensemble.
      scores: Logits of the probability.
    """

    cohort: str
    diagnosis: str
    label: int
    held_out: bool
    scores: Distribution


@dataclass(frozen=True)
class Rate:
    """A share of the subjects of one class, with Wilson's 95% interval."""

    n: int
    share: Interval


@dataclass(frozen=True)
class CohortRates:
    """What the ensemble decided about a test cohort at an operating point."""

    cohort: str
    sensitivity: Rate
    specificity: Rate


@dataclass(frozen=True)
class OperatingPoint:
    """Above which score the positive class is decided.

    Attributes:
      name: One of `POINTS`.
      threshold: On the logit of the ensemble's probability.
      basis: Where it comes from, a sentence.
      rates: Rates of the run's test cohorts.
    """

    name: str
    threshold: float
    basis: str
    rates: tuple[CohortRates, ...]

    @property
    def probability(self) -> float:
        """The threshold as a probability."""
        return 1 / (1 + math.exp(-self.threshold))


@dataclass(frozen=True, eq=False)
class FeatureReference:
    """Where features of one kind of a network's training scans lie.

    Attributes:
      mean: (F,) float64.
      precision: (F, F) float64, inverse of their shrunk covariance.
      typical: Median Mahalanobis distance of the scans that were held out from the network.
    """

    mean: np.ndarray
    precision: np.ndarray
    typical: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Returns (N,) distances of (N, F) features, in units of `typical`."""
        apart = np.asarray(features, np.float64) - self.mean
        squared = np.einsum("ni,ij,nj->n", apart, self.precision, apart)
        return np.sqrt(np.maximum(squared, 0.0)) / self.typical


@dataclass(frozen=True, eq=False)
class FoldNetwork:
    """One network of an ensemble.

    Attributes:
      fold: The source fold that was held out.
      variables: ``{"params": ..., "batch_stats": ...}``, NumPy.
      features: Features of its training scans, by kind (`KINDS`).
      trained_on: Digests (`digest_of`) of its training volumes.
    """

    fold: int
    variables: dict[str, Any]
    features: Mapping[str, FeatureReference]
    trained_on: frozenset[str]


@dataclass(frozen=True)
class Tested:
    """The AUC of an ensemble on a test cohort of the run, with DeLong's 95% interval."""

    cohort: str
    n_positive: int
    n_negative: int
    auc: Interval


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The networks of one stage, one a fold.

    Attributes:
      stage: ``source`` or ``tuned-LAYERS``.
      networks: By fold.
      temperature: Divides the logits of every network for calibrated probabilities; None without.
      calibration: What it was fitted on, or why there is none: a sentence.
      points: Operating points, `ARGMAX` first.
      groups: Where scores lie.
      tested: On the run's test cohorts.
      distance_limits: By kind of features, the `FAR_PERCENT` percentile of the held-out scans'
        distances, pooled over folds.
      distance_n: How many held-out scans that is.
    """

    stage: str
    networks: tuple[FoldNetwork, ...]
    temperature: float | None
    calibration: str
    points: tuple[OperatingPoint, ...]
    groups: tuple[ScoreGroup, ...]
    tested: tuple[Tested, ...]
    distance_limits: Mapping[str, float]
    distance_n: int

    def distances(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """By kind, (N,) medians over the networks of the distances of features (networks, N, F)."""
        return {
            kind: np.median(
                [
                    network.features[kind].distance(rows)
                    for network, rows in zip(self.networks, features[kind], strict=True)
                ],
                axis=0,
            )
            for kind in KINDS
        }

    def networks_trained_on(self, digest: str) -> int:
        """Returns how many of the networks were trained on the volume of that digest."""
        return sum(digest in network.trained_on for network in self.networks)

    def point(self, name: str) -> OperatingPoint | None:
        """Returns the operating point of that name, where it could be fitted."""
        return next((point for point in self.points if point.name == name), None)


@dataclass(frozen=True)
class FigureReference:
    """A figure of quality among the training scans.

    Attributes:
      n: Scans for which it is known.
      median: Its median.
      low: Below is an outlier (or beyond the limits of any head); minus infinity: never.
      high: Above is one.
    """

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TrainingGroup:
    """How many scans of a class the source networks were trained on, over all folds."""

    cohort: str
    diagnosis: str
    n: int
    ages: tuple[float, float, float] | None


@dataclass(frozen=True)
class ModelProvenance:
    """What made a model.

    Attributes:
      mri_jax: Version of the package that built it.
      versions: Versions of the packages that its run computed with.
      networks: Fingerprint of each network, by name.
      store_fingerprint: Fingerprint of the store of its training volumes.
    """

    mri_jax: str
    versions: Mapping[str, str | None] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)
    store_fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class PortableModel:
    """All of it.

    Attributes:
      name: The variant, e.g. ``cnn5-w1``.
      simulated: Whether the networks were trained on simulated scans.
      negative: The diagnosis of label 0 that the source networks learned.
      positive: The diagnosis of label 1.
      spec: The architecture.
      grid: Grid of the volumes.
      settings: How a raw scan becomes such a volume; None where the run's store does not say.
      never_raw: The training volumes never were raw scans; ``settings`` are stated as equivalent.
      normalisation: Normalisation of intensities.
      ensembles: ``source`` first where it is there.
      quality: Figures among the training scans.
      training: Who they were.
      notes: What limits the model, from the run, a sentence each.
      provenance: What made the model.
    """

    name: str
    simulated: bool
    negative: str
    positive: str
    spec: CNNSpec
    grid: Grid
    settings: PreprocessSettings | None
    never_raw: bool
    normalisation: Normalisation
    ensembles: tuple[Ensemble, ...]
    quality: Mapping[str, FigureReference]
    training: tuple[TrainingGroup, ...]
    notes: tuple[str, ...]
    provenance: ModelProvenance

    def only(self, stages: Sequence[str]) -> "PortableModel":
        """Returns the model with some of its ensembles, in the order asked for.

        Raises:
          UserError: It has none of that name.
        """
        there = {ensemble.stage: ensemble for ensemble in self.ensembles}
        for stage in stages:
            if stage not in there:
                raise UserError(f"stage: {stage!r} is not of the model; it has {', '.join(there)}")
        return replace(self, ensembles=tuple(there[stage] for stage in dict.fromkeys(stages)))
