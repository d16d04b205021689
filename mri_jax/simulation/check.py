"""Whether simulated cohorts are what they claim to be: effect sizes, deformations, classifiers.

These checks judge the simulation, not a method: what a classifier reaches here says nothing about
real scans.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from etils import epath
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mri_jax.cohort.table import read_table
from mri_jax.errors import UserError
from mri_jax.evaluation.baselines import block_mean, fit_voxels
from mri_jax.evaluation.delong import auc_interval
from mri_jax.simulation import people
from mri_jax.simulation.cohorts import paths_in, settings_in
from mri_jax.simulation.regions import REGIONS
from mri_jax.simulation.settings import SCANNER_SHIFTS, SimulationSettings
from mri_jax.simulation.sites import site_named
from mri_jax.volumes.normalise import Normalisation, normalise
from mri_jax.volumes.store import VolumeStore

# Positive class, negative class, and the published effect size of the hippocampus.
CONTRASTS = {("AD", "CN"): 1.6, ("pMCI", "sMCI"): 0.7}
# Fewer people a class than this say nothing about an effect or a classifier.
MINIMUM = 10
STANDARD_ERRORS = 3.0


@dataclasses.dataclass(frozen=True)
class Finding:
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
        """The finding as text."""
        state = ("pass" if self.passed else "FAIL") if self.rule else "    "
        limits = "" if np.isnan(self.low) else f"[{self.low:6.3f}, {self.high:6.3f}]"
        return f"{state}  {self.what:<74} {self.value:7.3f}  {limits:<17} {self.rule}".rstrip()


def check(out: epath.PathLike) -> list[Finding]:
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
    table, truth = read_table(paths.table_path), pd.read_csv(paths.truth_path)
    findings = [*_deformation(truth), *_effects(truth, settings)]
    return [*findings, *_classifiers(table, VolumeStore(paths.store_path), settings)]


def cohens_d(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Cohen's d with pooled SD, and its standard error (Hedges and Olkin 1985, equation 5.14)."""
    n, m = len(first), len(second)
    pooled = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
    d = float((first.mean() - second.mean()) / np.sqrt(pooled))
    return d, float(np.sqrt((n + m) / (n * m) + d**2 / (2 * (n + m))))


def target_d(
    settings: SimulationSettings, cohort: str, positive: str, negative: str, counts: tuple[int, int]
) -> np.ndarray:
    """(5,) effect sizes of log volumes that the settings imply at a site.

    Args:
      settings: Effect and shifts.
      cohort: The site.
      positive: A class.
      negative: Another.
      counts: People in each, which weigh their variances.
    """
    site = site_named(cohort, settings.shifts)
    change = np.log(people.RATIO_AT_STAGE_1)
    means, variances = [], []
    for diagnosis in (positive, negative):
        mean, deviation = people.stage_of(diagnosis, settings.effect)
        years = settings.effect * people.AGE_OFFSET[diagnosis]
        means.append(site.severity * mean * change + people.AGE_SLOPE * years)
        variances.append(
            (site.severity * deviation * change) ** 2
            + people.RESIDUAL_SD**2
            + (people.AGE_SLOPE * people.AGE_SD) ** 2
            + (people.FEMALE / 2) ** 2
        )
    pooled = np.average(variances, axis=0, weights=np.array(counts) - 1)
    return (means[0] - means[1]) / np.sqrt(pooled)


def _deformation(truth: pd.DataFrame) -> Iterator[Finding]:
    nan = float("nan")
    smallest = float(truth["minimum_jacobian"].min())
    yield Finding("smallest Jacobian of any deformation", smallest, nan, nan, "> 0", smallest > 0)
    for name in REGIONS:
        error = np.log(truth[f"{name}_ml"] / truth[f"{name}_target_ml"])
        worst = float(np.sqrt((error**2).mean()))
        what = f"{name}: root mean square log error of achieved volumes"
        yield Finding(what, worst, nan, nan, "< 0.05", worst < 0.05)


def _effects(truth: pd.DataFrame, settings: SimulationSettings) -> Iterator[Finding]:
    for (cohort, rows), ((positive, negative), published) in itertools.product(
        truth.groupby("cohort", sort=False), CONTRASTS.items()
    ):
        first, second = (rows[rows["diagnosis"] == label] for label in (positive, negative))
        if min(len(first), len(second)) < MINIMUM:
            continue
        targets = target_d(settings, cohort, positive, negative, (len(first), len(second)))
        for name, target in zip(REGIONS, targets, strict=True):
            column = f"{name}_ml"
            d, _ = cohens_d(np.log(first[column]), np.log(second[column]))
            error = _error_at(target, len(first), len(second))
            low, high = target - STANDARD_ERRORS * error, target + STANDARD_ERRORS * error
            what = f"{cohort} {positive} against {negative}: effect size of {name}"
            rule = f"within {STANDARD_ERRORS:g} SE of {target:.2f}"
            if name == REGIONS[0]:
                rule += f" (published about {-published:g})"
            yield Finding(what, d, low, high, rule, low <= d <= high)


def _error_at(d: float, n: int, m: int) -> float:
    return float(np.sqrt((n + m) / (n * m) + d**2 / (2 * (n + m))))


def _classifiers(
    table: pd.DataFrame, store: VolumeStore, settings: SimulationSettings
) -> Iterator[Finding]:
    """A voxel-wise linear classifier within and across sites; sites from intensities."""
    cohorts = list(dict.fromkeys(table["cohort"]))
    voxels, levels = _features(table, store)
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
) -> Iterator[Finding]:
    """Whether healthy people's scans betray their site by the distribution of intensities."""
    shifted = {"contrast", "gamma"} & set(settings.shifts) & set(SCANNER_SHIFTS)
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
        yield Finding(what, found.estimate, low, high, rule, low > 0.5)


def _auc(what: str, label: np.ndarray, score: np.ndarray, effect: float, level: float) -> Finding:
    found = auc_interval(label, score, level)
    low, high = _limits(found.estimate, found.low, found.high)
    if effect == 0:
        return Finding(what, found.estimate, low, high, "interval holds 0.5", low <= 0.5 <= high)
    return Finding(what, found.estimate, low, high, "", True)


def _limits(estimate: float, low: float, high: float) -> tuple[float, float]:
    """A perfect separation has no measurable variance; its limits are the estimate."""
    return (estimate, estimate) if np.isnan(low) else (low, high)


def _halves(label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to test on.

    Scores pooled over cross-validation folds fall below chance where there is no effect, since
    leaving people out shifts the rest away from them; independent halves do not.
    """
    rows = np.arange(len(label))
    train, test = train_test_split(rows, test_size=0.5, stratify=label, random_state=seed % 2**32)
    return np.sort(train), np.sort(test)


def _features(table: pd.DataFrame, store: VolumeStore) -> tuple[np.ndarray, np.ndarray]:
    """(N, V) normalised volumes at 4 mm, and (N, P) percentiles of normalised intensities."""
    voxels, levels = [], []
    for subject, session in zip(table["subject_id"], table["session_id"], strict=True):
        mask = np.asarray(store.mask(subject, session))
        volume = normalise(store.volume(subject, session), mask, Normalisation())
        voxels.append(block_mean(volume, store.info.grid.spacing).astype(np.float16))
        levels.append(np.percentile(volume[mask], np.arange(5, 100, 5)))
    flat = np.stack(voxels)
    return flat[:, flat.any(axis=0)].astype(np.float32), np.stack(levels)


__all__ = ["CONTRASTS", "Finding", "check", "cohens_d", "target_d"]
