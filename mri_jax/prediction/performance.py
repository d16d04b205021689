"""What an ensemble is worth, from the predictions of its run: calibration, points, scores."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from mri_jax.evaluation.calibration import temperature
from mri_jax.evaluation.delong import auc_interval
from mri_jax.evaluation.intervals import wilson
from mri_jax.evaluation.metrics import ensemble, score_of
from mri_jax.evaluation.operating import best_threshold, unlearnt_split
from mri_jax.prediction.model import (
    ARGMAX,
    HELD_OUT,
    CohortRates,
    Distribution,
    OperatingPoint,
    Rate,
    ScoreGroup,
    Tested,
)
from mri_jax.problems import counted
from mri_jax.runs.trained import TrainedRun
from mri_jax.volumes.store import KEY

# A temperature or a threshold from fewer scans of a class says too little.
FEWEST = 10
# Bounds of the search for a temperature: a result beside them is no minimum.
_TEMPERATURES = (0.011, 99.0)


_FITTED_ON = {
    "validation": "held-out source folds",
    "inner": "cross-validation inside the tuned part",
    "adaptation": "adaptation part, which was seen without labels",
}
"""What people call the splits that temperatures and thresholds are fitted on."""


@dataclass(frozen=True)
class Performance:
    """What an ensemble is worth.

    Attributes:
      temperature: Divides its logits; None where it cannot be told.
      calibration: How the temperature was found, or why not: a sentence.
      points: Its operating points, with their rates on every test cohort.
      groups: The scores of each class of each cohort.
      tested: Its AUC on every test cohort.
    """

    temperature: float | None
    calibration: str
    points: tuple[OperatingPoint, ...]
    groups: tuple[ScoreGroup, ...]
    tested: tuple[Tested, ...]


def performance_of(run: TrainedRun, variant: str, stage: str) -> Performance:
    """Returns what the networks of a variant and stage (of repeat 0) are worth together."""
    rows = run.results.predictions
    rows = rows[(rows["run"] == variant) & (rows["stage"] == stage) & (rows["repeat"] == 0)]
    fitted_on = rows[rows["split"] == unlearnt_split(stage)]
    together = ensemble(rows)
    found, sentence = _temperature(fitted_on, stage)
    return Performance(
        temperature=found,
        calibration=sentence,
        points=tuple(_points(fitted_on, together, stage)),
        groups=tuple(_groups(run, rows, together)),
        tested=tuple(_tested(together)),
    )


def _temperature(rows: pd.DataFrame, stage: str) -> tuple[float | None, str]:
    what = _FITTED_ON[unlearnt_split(stage)]
    if (reason := _too_few(rows, what)) is not None:
        return None, f"Not calibrated: {reason}."
    found = temperature(rows["label"].to_numpy(), score_of(rows))
    if not _TEMPERATURES[0] < found < _TEMPERATURES[1]:
        return None, f"Not calibrated: the scores of the {what} give no finite temperature."
    scans = len(rows[KEY].drop_duplicates())
    return found, f"Temperature {found:.3g}, fitted on the {what} ({counted(scans, 'scan')})."


def _too_few(rows: pd.DataFrame, what: str) -> str | None:
    scans = rows.drop_duplicates(KEY)["label"]
    fewest = min(int((scans == 0).sum()), int((scans == 1).sum()))
    if not len(scans):
        return f"the run holds no scores from {what}"
    if fewest < FEWEST:
        return f"the {what} hold {counted(fewest, 'scan')} of a class, fewer than {FEWEST}"
    return None


def _points(rows: pd.DataFrame, together: pd.DataFrame, stage: str) -> Iterator[OperatingPoint]:
    yield OperatingPoint(
        ARGMAX, 0.0, "The more probable class, as in the run's tables.", _rates(together, 0.0)
    )
    what = _FITTED_ON[unlearnt_split(stage)]
    if _too_few(rows, what) is None:
        cut = best_threshold(rows["label"].to_numpy(), score_of(rows))
        basis = f"Highest balanced accuracy on the {what}, single networks."
        yield OperatingPoint(HELD_OUT, cut, basis, _rates(together, cut))


def _rates(together: pd.DataFrame, cut: float) -> tuple[CohortRates, ...]:
    found = []
    for cohort, group in together.groupby("cohort", sort=False):
        positive, above = group["label"].to_numpy() == 1, score_of(group) > cut
        pair = [
            Rate(len(right), wilson(int(right.sum()), len(right)))
            for right in (above[positive], ~above[~positive])
        ]
        if all(rate.n for rate in pair):
            found.append(CohortRates(str(cohort), *pair))
    return tuple(found)


def _groups(
    run: TrainedRun, of_stage: pd.DataFrame, together: pd.DataFrame
) -> Iterator[ScoreGroup]:
    held_out = of_stage[of_stage["split"] == "validation"]
    named = run.results.cohort[[*KEY, "diagnosis"]]
    for rows, held in ((held_out, True), (together, False)):
        rows = rows.merge(named, on=KEY)
        for cohort, of_cohort in rows.groupby("cohort", sort=False):
            for label in (1, 0):
                group = of_cohort[of_cohort["label"] == label]
                if len(group):
                    names = "+".join(sorted(set(group["diagnosis"])))
                    scores = Distribution.of(score_of(group))
                    yield ScoreGroup(str(cohort), names, label, held, scores)


def _tested(together: pd.DataFrame) -> Iterator[Tested]:
    for cohort, group in together.groupby("cohort", sort=False):
        label = group["label"].to_numpy()
        counts = int((label == 1).sum()), int((label == 0).sum())
        if all(counts):
            yield Tested(str(cohort), *counts, auc_interval(label, score_of(group)))
