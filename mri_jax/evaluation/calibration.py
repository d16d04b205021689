"""Are the probabilities honest? Reliability, ECE, Brier score, temperature scaling."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import expit

from mri_jax.evaluation.intervals import wilson

BINS = 10


def temperature(label: np.ndarray, score: np.ndarray) -> float:
    """Returns the temperature that minimises the log loss of ``sigmoid(score / temperature)``.

    Guo et al. 2017 (arXiv:1706.04599). Fit it on scores of subjects that the network neither
    trained on nor is tested on.

    Args:
      label: (N,) 0 or 1.
      score: (N,) difference of the logits.

    Returns:
      Between 0.01 and 100; NaN where a class is absent, a score is NaN or the scores are all zero.
      A network that separates the subjects perfectly gets the lower bound: their scores cannot say
      more.
    """
    label, score = np.asarray(label), np.asarray(score, float)
    if len(np.unique(label)) < 2 or np.isnan(score).any() or not np.any(score):
        return float("nan")
    margin = np.where(label == 1, score, -score)
    found = optimize.minimize_scalar(
        lambda log_t: float(np.logaddexp(0.0, -margin / np.exp(log_t)).sum()),
        bounds=(np.log(0.01), np.log(100.0)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(found.x))


def brier(label: np.ndarray, probability: np.ndarray) -> float:
    """Returns the mean squared difference between probability and label."""
    return float(np.mean((np.asarray(probability, float) - np.asarray(label)) ** 2))


def reliability(label: np.ndarray, probability: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Observed share of positives against predicted probability, in bins of equal width.

    Returns:
      A row a bin that holds a scan: ``low``, ``high`` (edges), ``n``, ``predicted`` (mean),
      ``observed`` with Wilson's ``observed_low`` and ``observed_high``.
    """
    label, probability = np.asarray(label), np.asarray(probability, float)
    place = _place(probability, bins)
    rows = []
    for index in np.unique(place):
        inside = place == index
        count, hits = int(inside.sum()), int(label[inside].sum())
        share = wilson(hits, count)
        rows.append(
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "n": count,
                "predicted": float(probability[inside].mean()),
                "observed": share.estimate,
                "observed_low": share.low,
                "observed_high": share.high,
            }
        )
    return pd.DataFrame(rows)


def _place(probability: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((probability * bins).astype(int), bins - 1)


def ece(label: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean absolute gap of `reliability`, weighted by bin size."""
    label, probability = np.asarray(label), np.asarray(probability, float)
    sums = np.bincount(_place(probability, bins), weights=label - probability, minlength=bins)
    return float(np.abs(sums).sum() / len(label))


@dataclass(frozen=True)
class Calibration:
    """Means over networks.

    Attributes:
      ece: Expected calibration error.
      brier: Brier score.
      temperature: Mean temperature applied; 1 before scaling.
    """

    ece: float
    brier: float
    temperature: float


def of_networks(
    label: np.ndarray, score: np.ndarray, tested: np.ndarray, temperatures: np.ndarray
) -> Calibration:
    """ECE and Brier score of J networks at their temperatures, averaged.

    Args:
      label: (N,) 0 or 1.
      score: (J, N) differences of the logits.
      tested: (J, N) bool.
      temperatures: (J,); 1 leaves the scores as they are.
    """
    pairs = [
        (label[t], expit(s[t] / temperature_))
        for s, t, temperature_ in zip(score, tested, temperatures, strict=True)
    ]
    return Calibration(
        float(np.mean([ece(*pair) for pair in pairs])),
        float(np.mean([brier(*pair) for pair in pairs])),
        float(np.mean(temperatures)),
    )
