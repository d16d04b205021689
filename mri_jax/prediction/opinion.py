"""What the ensembles of a model say about scans."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from mri_jax.errors import UserError
from mri_jax.prediction.forward import NetworksOnDevice
from mri_jax.prediction.model import Ensemble, OperatingPoint, PortableModel
from mri_jax.prediction.scans import NewScan
from mri_jax.volumes import outliers, quality


@dataclass(frozen=True)
class Opinion:
    """What one ensemble says about one scan.

    Attributes:
      ensemble: Which.
      probabilities: Probability of the positive class, by network.
      score: Logit of their mean.
      calibrated: Mean of the networks' calibrated probabilities; None without a calibrator.
      point: The operating point.
      distances: By kind of features, the median over the networks of the distance from the
        training scans, in units of the median held-out one.
      trained_on: How many of the networks were trained on this very volume.
    """

    ensemble: Ensemble
    probabilities: tuple[float, ...]
    score: float
    calibrated: float | None
    point: OperatingPoint
    distances: Mapping[str, float]
    trained_on: int

    @property
    def probability(self) -> float:
        """The ensemble's."""
        return float(np.mean(self.probabilities))

    @property
    def positive(self) -> bool:
        """Whether the positive class is decided."""
        return self.score > self.point.threshold

    @property
    def far(self) -> tuple[str, ...]:
        """The kinds of features in which the scan is further than nearly all held-out ones."""
        limits = self.ensemble.distance_limits
        return tuple(kind for kind, distance in self.distances.items() if distance > limits[kind])


@dataclass(frozen=True, eq=False)
class Prediction:
    """All about one scan.

    Attributes:
      scan: The scan.
      opinions: Opinions of each ensemble.
      flags: Figures of quality that are outliers, e.g. ``("snr low",)``.
    """

    scan: NewScan
    opinions: tuple[Opinion, ...]
    flags: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether any network that was asked was trained on the scan."""
        return any(opinion.trained_on for opinion in self.opinions)


def judge(
    model: PortableModel,
    shown: Sequence[NewScan],
    forwards: Sequence[NetworksOnDevice],
    point: str,
    size: int,
) -> Iterator[Prediction]:
    """Ask every ensemble about a batch of scans, filled up to ``size``."""
    if not shown:
        return
    points = points_of(model, point)
    opinions: list[list[Opinion]] = [[] for _ in shown]
    volumes = [scan.volume for scan in shown]
    for ensemble, forward, used in zip(model.ensembles, forwards, points, strict=True):
        answer = forward(volumes, size)
        margins = answer.logits[..., 1] - answer.logits[..., 0]
        distances = ensemble.distances(answer.features)
        # Logarithms of the mean probabilities of the two classes: exact where they saturate.
        score = _log_mean(-np.logaddexp(0, -margins)) - _log_mean(-np.logaddexp(0, margins))
        temperature = ensemble.temperature
        for i in range(len(shown)):
            calibrated = (
                None if temperature is None else float(expit(margins[:, i] / temperature).mean())
            )
            opinions[i].append(
                Opinion(
                    ensemble=ensemble,
                    probabilities=tuple(float(p) for p in expit(margins[:, i])),
                    score=float(score[i]),
                    calibrated=calibrated,
                    point=used,
                    distances={kind: float(far[i]) for kind, far in distances.items()},
                    trained_on=ensemble.networks_trained_on(shown[i].digest),
                )
            )
    for scan, found in zip(shown, opinions, strict=True):
        yield Prediction(scan, tuple(found), _flags(model, scan))


def _log_mean(logs: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))


def points_of(model: PortableModel, name: str) -> list[OperatingPoint]:
    """Returns the operating point of that name, for each ensemble.

    Raises:
      UserError: It could not be fitted for one.
    """
    found = []
    for ensemble in model.ensembles:
        point = ensemble.point(name)
        if point is None:
            raise UserError(
                f"point: {name!r} could not be fitted for the {ensemble.stage} networks (too few "
                f"scans outside training); choose {ensemble.points[0].name}, or another --stage"
            )
        found.append(point)
    return found


def _flags(model: PortableModel, scan: NewScan) -> tuple[str, ...]:
    bounds = {name: (figure.low, figure.high) for name, figure in model.quality.items()}
    bounds = {**quality.LIMITS, **bounds}
    found = outliers.outside(scan.figures, bounds)
    return tuple(found.split(", ")) if found else ()
