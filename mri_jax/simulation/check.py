"""Whether simulated cohorts are what they claim to be: effect sizes, deformations, classifiers.

These checks judge the simulation, not a method: what a classifier reaches here says nothing about
real scans.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd
from etils import epath
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mri_jax import files
from mri_jax.cohort.table import read_table
from mri_jax.errors import UserError
from mri_jax.evaluation.delong import auc_interval
from mri_jax.evaluation.linear import fit_voxels
from mri_jax.simulation import people
from mri_jax.simulation.cohorts import paths_in, settings_in
from mri_jax.simulation.features import features_of
from mri_jax.simulation.regions import REGIONS
from mri_jax.simulation.settings import SimulationSettings
from mri_jax.simulation.sites import site_named
from mri_jax.volumes.store import VolumeStore

# Positive class, negative class, and the published effect size of the hippocampus.
CONTRASTS = {("AD", "CN"): 1.6, ("pMCI", "sMCI"): 0.7}
# Fewer people a class than this say nothing about an effect or a classifier.
MINIMUM = 10
STANDARD_ERRORS = 3.0


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One line of the check.

    Attributes:
      what: What was measured, and where.
      value: The measurement.
      low: Lower limit of its interval (of the target's, for effect sizes).
      high: Upper limit.
      rule: What must hold; empty where the figure is only shown.
      passed: Whether it holds.
    """

    what: str
    value: float
    low: float
    high: float
    rule: str
    passed: bool

    def line(self) -> str:
        """Returns the finding as text."""
        state = ("pass" if self.passed else "FAIL") if self.rule else "    "
        limits = "" if np.isnan(self.low) else f"[{self.low:6.3f}, {self.high:6.3f}]"
        return f"{state}  {self.what:<74} {self.value:7.3f}  {limits:<17} {self.rule}".rstrip()


def check(out: epath.PathLike) -> list[Measurement]:
    """Check a folder of simulated cohorts.

    Args:
      out: A finished folder of `simulate`.

    Raises:
      UserError: The folder is not one, is unfinished, or holds raw heads.
    """
    settings = settings_in(out)
    paths = paths_in(out)
    if settings.raw:
        raise UserError(f"{out}: holds raw heads; preprocess them before a check")
    table = read_table(paths.table_path)
    truth = files.read_csv(paths.truth_path, ["subject_id", "session_id", "cohort", "diagnosis"])
    findings = [*_deformation(truth), *_effects(truth, settings)]
    return [*findings, *_classifiers(table, VolumeStore(paths.store_path), settings)]


def hedges_g(first: np.ndarray, second: np.ndarray) -> float:
    """Difference of means in pooled SDs, corrected for small samples (Hedges 1981, equation 6a)."""
    n, m = len(first), len(second)
    pooled = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
    bias = 1 - 3 / (4 * (n + m - 2) - 1)
    return float(bias * (first.mean() - second.mean()) / np.sqrt(pooled))


def expected_effect(
    settings: SimulationSettings, cohort: str, positive: str, negative: str, counts: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Effect sizes of log volumes that the settings imply at a site, and their sampling error.

    Args:
      settings: Effect and shifts.
      cohort: The site.
      positive: A class.
      negative: Another.
      counts: Scans in each.

    Returns:
      (5,) differences of means in pooled SDs, and (5,) standard errors at these counts, by the
      delta method for normal groups of unequal variance.
    """
    (mean1, variance1), (mean2, variance2) = (
        _log_volumes(settings, cohort, diagnosis, count)
        for diagnosis, count in zip((positive, negative), counts, strict=True)
    )
    n, m = counts
    freedom = n + m - 2
    pooled = ((n - 1) * variance1 + (m - 1) * variance2) / freedom
    effect = (mean1 - mean2) / np.sqrt(pooled)
    of_means = (variance1 / n + variance2 / m) / pooled
    of_pooled = 2 * ((n - 1) * variance1**2 + (m - 1) * variance2**2) / freedom**2
    return effect, np.sqrt(of_means + effect**2 * of_pooled / (4 * pooled**2))


def _log_volumes(
    settings: SimulationSettings, cohort: str, diagnosis: str, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (5,) expected means and variances of the first ``count`` people of a class."""
    change = np.log(people.RATIO_AT_STAGE_1)
    mean, deviation = people.stage_of(diagnosis, settings.effect)
    homes = Counter(people.home_of(cohort, diagnosis, index) for index in range(count))
    means, variances = [], []
    for home, years in homes:
        site = site_named(home, settings.shifts, settings.strength)
        stage = mean + settings.effect * people.PROGRESS.get(diagnosis, 0.0) * years
        age = site.age + settings.effect * people.AGE_OFFSET[diagnosis] + years
        means.append(people.expected_log_volumes(site.severity * stage, age, 0.5))
        variances.append(
            (site.severity * deviation * change) ** 2
            + people.RESIDUAL_SD**2
            + (people.AGE_SLOPE * people.AGE_SD) ** 2
            + (people.FEMALE / 2) ** 2
        )
    share = np.array(list(homes.values())) / count
    middle = share @ np.array(means)
    return middle, share @ (np.array(variances) + (np.array(means) - middle) ** 2)


def _deformation(truth: pd.DataFrame) -> Iterator[Measurement]:
    nan = float("nan")
    smallest = float(truth["minimum_jacobian"].min())
    yield Measurement(
        "smallest Jacobian of any deformation", smallest, nan, nan, "> 0", smallest > 0
    )
    for name in REGIONS:
        error = np.log(truth[f"{name}_ml"] / truth[f"{name}_target_ml"])
        worst = float(np.sqrt((error**2).mean()))
        what = f"{name}: root mean square log error of achieved volumes"
        yield Measurement(what, worst, nan, nan, "< 0.05", worst < 0.05)


def _effects(truth: pd.DataFrame, settings: SimulationSettings) -> Iterator[Measurement]:
    for (cohort, rows), ((positive, negative), published) in itertools.product(
        truth.groupby("cohort", sort=False), CONTRASTS.items()
    ):
        first, second = (rows[rows["diagnosis"] == label] for label in (positive, negative))
        if min(len(first), len(second)) < MINIMUM:
            continue
        targets, errors = expected_effect(
            settings, str(cohort), positive, negative, (len(first), len(second))
        )
        for name, target, error in zip(REGIONS, targets, errors, strict=True):
            column = f"{name}_ml"
            found = hedges_g(np.log(first[column]), np.log(second[column]))
            low, high = target - STANDARD_ERRORS * error, target + STANDARD_ERRORS * error
            what = f"{cohort} {positive} against {negative}: effect size of {name}"
            rule = f"within {STANDARD_ERRORS:g} SE of {target:.2f}"
            if name == REGIONS[0]:
                rule += f" (published about {-published:g})"
            yield Measurement(what, found, low, high, rule, low <= found <= high)


def _classifiers(
    table: pd.DataFrame, store: VolumeStore, settings: SimulationSettings
) -> Iterator[Measurement]:
    """Yields how well voxels tell classes within and across sites, and intensities sites."""
    cohorts = list(dict.fromkeys(table["cohort"]))
    voxels, levels = features_of(table, store)
    for positive, negative in CONTRASTS:
        either = table["diagnosis"].isin((positive, negative))
        chosen = {name: np.flatnonzero((table["cohort"] == name) & either) for name in cohorts}
        label = np.asarray(table["diagnosis"] == positive, int)
        usable = [n for n in cohorts if np.bincount(label[chosen[n]], minlength=2).min() >= MINIMUM]
        title = f"{positive} against {negative}, voxel-wise linear classifier"
        # With several intervals at once, each is widened so that all hold together with 95%.
        level = 1 - 0.05 / max(1, len(usable) ** 2) if settings.effect == 0 else 0.95
        for name in usable:
            rows = chosen[name]
            train, test = (rows[part] for part in _halves(label[rows], settings.seed))
            score = fit_voxels(voxels[train], label[train], settings.seed).logits(voxels[test])
            what = f"{title}: {name}, half to half"
            yield _auc(what, label[test], score[:, 1], settings.effect, level)
        for source, target in itertools.permutations(usable, 2):
            rows = chosen[target]
            known = table["subject_id"].iloc[chosen[source]]
            rows = rows[~table["subject_id"].iloc[rows].isin(known)]
            model = fit_voxels(voxels[chosen[source]], label[chosen[source]], settings.seed)
            score = model.logits(voxels[rows])
            what = f"{title}: {source} to {target}"
            yield _auc(what, label[rows], score[:, 1], settings.effect, level)
    yield from _sites(table, levels, cohorts, settings)


def _sites(
    table: pd.DataFrame, levels: np.ndarray, cohorts: list[str], settings: SimulationSettings
) -> Iterator[Measurement]:
    """Yields whether intensities of healthy people's scans betray their site."""
    shifted = {"contrast", "gamma"} & set(settings.shifts)
    for first, second in itertools.combinations(cohorts, 2):
        rows = np.flatnonzero(table["cohort"].isin((first, second)) & (table["diagnosis"] == "CN"))
        label = np.asarray(table["cohort"].iloc[rows] == second, int)
        if np.bincount(label, minlength=2).min() < MINIMUM:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        train, test = _halves(label, settings.seed)
        score = model.fit(levels[rows][train], label[train]).decision_function(levels[rows][test])
        found = auc_interval(label[test], score)
        low, high = _limits(found.estimate, found.low, found.high)
        what = f"site from intensities: {first} or {second}"
        rule = "interval above 0.5" if shifted else ""
        yield Measurement(what, found.estimate, low, high, rule, low > 0.5)


def _auc(
    what: str, label: np.ndarray, score: np.ndarray, effect: float, level: float
) -> Measurement:
    found = auc_interval(label, score, level)
    low, high = _limits(found.estimate, found.low, found.high)
    if effect == 0:
        return Measurement(
            what, found.estimate, low, high, "interval holds 0.5", low <= 0.5 <= high
        )
    return Measurement(what, found.estimate, low, high, "", True)


def _limits(estimate: float, low: float, high: float) -> tuple[float, float]:
    """Returns the limits; those of a perfect separation, without variance, are the estimate."""
    return (estimate, estimate) if np.isnan(low) else (low, high)


def _halves(label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows to train on and rows to test on.

    Scores pooled over cross-validation folds fall below chance where there is no effect, since
    leaving people out shifts the rest away from them; independent halves do not.
    """
    rows = np.arange(len(label))
    train, test = train_test_split(rows, test_size=0.5, stratify=label, random_state=seed % 2**32)
    return np.sort(train), np.sort(test)


__all__ = ["CONTRASTS", "Measurement", "check", "expected_effect", "hedges_g"]
