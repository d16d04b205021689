"""Results folders in, everything a report shows out: each table's statistics, and cautions."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.evaluation import differences, families, left_out, summary, thresholds
from mri_jax.evaluation.cells import MethodScores, entries
from mri_jax.evaluation.families import Family, Method
from mri_jax.evaluation.left_out import LeftOut
from mri_jax.evaluation.predictions import KEY
from mri_jax.evaluation.variants import UNKNOWN, Variant, described, of_rows
from mri_jax.problems import counted
from mri_jax.runs import labels, results
from mri_jax.runs.results import Results

TOLERANCE = 1e-4
"""Two runs that claim the same network may differ this much in a logit (other devices)."""

COVARIATES = ("age", "sex", "snr", "correlation", "leakage")
"""What the score of controls is held against, as far as the scans have it."""

CLASSES = ("negative", "positive")
"""Names of labels 0 and 1 where the diagnoses behind them are unknown or several."""


@dataclass(frozen=True)
class FamilyAnalysis:
    """One table of the study with its statistics.

    Attributes:
      family: Which methods, which pairs.
      entries: The scores behind it.
      summary: From `summary.summarise`.
      differences: From `differences.compare`.
      anova: From `differences.anova_table`.
      points: From `thresholds.operating_points`.
      calibration: From `thresholds.calibration_table`.
      classes: What labels 0 and 1 stand for, e.g. ``("CN", "AD")``.
      left_out: What methods of which every site was left out once say of sites; None of others.
    """

    family: Family
    entries: tuple[MethodScores, ...]
    summary: pd.DataFrame
    differences: pd.DataFrame
    anova: pd.DataFrame
    points: pd.DataFrame
    calibration: pd.DataFrame
    classes: tuple[str, str] = CLASSES
    left_out: LeftOut | None = None

    def tested(self, cohort: str) -> list[MethodScores]:
        """Returns the entries of a target cohort that have scores."""
        return [
            e
            for e in self.entries
            if e.cohort == cohort and e.split == "test" and e.scores is not None
        ]

    @property
    def title(self) -> str:
        """What the table shows, in people's words."""
        first = self.family.networks[0]
        return self.family.title.replace(f" of {first.run}:", f" of {labels.of_run(first)}:")

    @property
    def short(self) -> str:
        """The first words of the title, which tell it from those of the other tables."""
        return self.title.partition(":")[0]

    @property
    def cohorts(self) -> list[str]:
        """Target cohorts, in order."""
        return list(dict.fromkeys(e.cohort for e in self.entries if e.split == "test"))

    def label(self, method: str) -> str:
        """Returns the label of a method of the table for people."""
        return labels.label(self._named(method))

    def pair(self, first: str, second: str) -> str:
        """Returns what the difference between two methods of the table is called."""
        return labels.pair(self._named(first), self._named(second))

    def _named(self, method: str) -> Method:
        return next((m for m in self.family.methods if m.name == method), Method(method))

    def subjects(self, cohort: str) -> str:
        """Returns ``32 AD, 41 CN``: who stands behind every figure of a cohort."""
        cells = self.tested(cohort)
        if not cells or cells[0].scores is None:
            return "no subjects"
        positive, negative = cells[0].scores.counts
        return f"{positive} {self.classes[1]}, {negative} {self.classes[0]}"


@dataclass(frozen=True)
class Analysis:
    """What a report is made of.

    Attributes:
      runs: The results folders.
      simulated: Whether the scans are simulated; then every table and figure says so.
      predictions: Predictions of all runs, each network once.
      sections: A table each.
      seed: Seed of bootstrap and permutations.
      names: What the runs are called.
    """

    runs: tuple[Results, ...]
    simulated: bool
    predictions: pd.DataFrame
    sections: tuple[FamilyAnalysis, ...]
    seed: int
    names: tuple[str, ...]

    @property
    def history(self) -> pd.DataFrame:
        """Epochs of all networks, each network once."""
        frames = [run.history for run in self.runs if len(run.history)]
        if not frames:
            return pd.DataFrame()
        key = ["run", "stage", "repeat", "fold", "epoch"]
        frame = pd.concat(frames, ignore_index=True)
        return frame.drop_duplicates(key) if set(key) <= set(frame.columns) else pd.DataFrame()

    @property
    def plan(self) -> pd.DataFrame:
        """Planned stages of all runs."""
        frames = [run.plan for run in self.runs if len(run.plan)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @functools.cached_property
    def variants(self) -> dict[str, Variant]:
        """What each run is, by its name."""
        return of_rows(self.predictions)

    def method(self, run: str, stage: str) -> Method:
        """Returns a run at a stage, with what the run is."""
        return Method(run, stage, self.variants.get(run, UNKNOWN))

    def label(self, run: str, stage: str) -> str:
        """Returns the label of a run at a stage for people."""
        return labels.label(self.method(run, stage))

    def ordered(self, runs: Iterable[str]) -> list[str]:
        """Returns runs by training set, depth, width, and name."""
        return sorted(runs, key=lambda run: (self.variants.get(run, UNKNOWN).order, run))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Filters or feature maps of all runs."""
        found: dict[str, np.ndarray] = {}
        for run in self.runs:
            found |= run.arrays(name)
        return found


def load_runs(paths: Sequence[str]) -> tuple[Results, ...]:
    """Load results folders.

    Raises:
      UserError: One is not a results folder, is given twice, or some are simulated and others not.
    """
    runs = tuple(results.load(path) for path in paths)
    names = [str(run.path.resolve()) for run in runs]
    if len(set(names)) < len(names):
        raise UserError("RUN: the same results folder is given twice")
    simulated = [run.name for run in runs if run.simulated]
    if simulated and len(simulated) < len(runs):
        real = next(run.name for run in runs if not run.simulated)
        raise UserError(
            f"not comparable: {simulated[0]} is simulated and {real} is not; report them separately"
        )
    return runs


def names_of(runs: Sequence[Results]) -> tuple[str, ...]:
    """Returns the folders' names; the whole path where two are called alike."""
    names = [run.name for run in runs]
    return tuple(
        name if names.count(name) == 1 else str(run.path)
        for name, run in zip(names, runs, strict=True)
    )


def analyse(runs: Sequence[Results], seed: int = 0) -> Analysis:
    """Returns all statistics of one or several runs.

    Raises:
      UserError: The runs cannot stand in one report: two networks under one name, or different
        test sets within one table; the difference is named.
    """
    predictions = _pooled(runs)
    sections = []
    for family in families.declare(predictions):
        found = entries(predictions, family)
        _check_comparable(family, found, runs)
        overview = summary.summarise(predictions, family, seed, found)
        sections.append(
            FamilyAnalysis(
                family=family,
                entries=tuple(found),
                summary=overview,
                differences=differences.compare(predictions, family, seed, found),
                anova=differences.anova_table(overview, family),
                points=thresholds.operating_points(predictions, family, seed, found),
                calibration=thresholds.calibration_table(predictions, family, found),
                classes=_classes(found, runs),
                left_out=_left_out(predictions, family, runs, seed) if family.apart else None,
            )
        )
    simulated = any(run.simulated for run in runs)
    return Analysis(tuple(runs), simulated, predictions, tuple(sections), seed, names_of(runs))


def _left_out(
    predictions: pd.DataFrame, family: Family, runs: Sequence[Results], seed: int
) -> LeftOut:
    """Returns what methods that never saw a site say of sites."""
    arrays: dict[str, np.ndarray] = {}
    for run in runs:
        arrays |= run.arrays(results.FEATURES)

    def features(method: Method) -> Iterator[left_out.Features]:
        for name, values in arrays.items():
            run, _, rest = name.rpartition(f"/{method.stage}/")
            fold, _, what = rest.partition("/")
            if run == method.run and what == "features":
                own = f"{method.run}/{fold}"
                yield values, arrays[f"{own}/cohort"], arrays[f"{own}/target"]

    key = ["subject_id", "session_id"]
    people = [run.cohort for run in runs if set(key) <= set(run.cohort.columns)]
    frame = pd.concat(people, ignore_index=True) if people else pd.DataFrame(columns=key)
    known = [name for name in COVARIATES if name in frame]
    frame = frame[[*key, *known]].drop_duplicates(key)
    if "sex" in known:
        frame["sex"] = frame["sex"].map({"F": 1.0, "M": 0.0})
    for name in known:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return left_out.evaluate(predictions, family.methods, frame, features, known, seed)


def _classes(found: Sequence[MethodScores], runs: Sequence[Results]) -> tuple[str, str]:
    """Returns the diagnoses behind labels 0 and 1 of a table, where each label is one diagnosis."""
    people = [run.cohort for run in runs if {"session_id", "diagnosis"} <= set(run.cohort.columns)]
    if not people:
        return CLASSES
    frame = pd.concat(people, ignore_index=True)
    diagnosis = dict(
        zip(frame["subject_id"] + "/" + frame["session_id"], frame["diagnosis"], strict=True)
    )
    seen: tuple[set[str], set[str]] = (set(), set())
    for entry in found:
        if entry.split == "test" and entry.scores is not None:
            for scan, label in zip(entry.scores.scan, entry.scores.label, strict=True):
                seen[label].add(diagnosis.get(str(scan), ""))
    names = [next(iter(s)) if len(s) == 1 else "" for s in seen]
    return (names[0] or CLASSES[0], names[1] or CLASSES[1])


def _pooled(runs: Sequence[Results]) -> pd.DataFrame:
    """Predictions of all runs; rows that several runs share are kept once."""
    named = zip(names_of(runs), runs, strict=True)
    frame = pd.concat([r.predictions.assign(folder=name) for name, r in named], ignore_index=True)
    frame = described(frame, _known(runs))
    shared = frame[frame.duplicated(KEY, keep=False)]
    if len(shared):
        spread = shared.groupby(KEY, observed=True)[["label", "logit_0", "logit_1"]].agg(
            lambda values: float(np.ptp(values.to_numpy(float)))
        )
        unlike = spread[(spread > TOLERANCE).any(axis=1)]
        if len(unlike):
            run, stage = unlike.index[0][:2]
            rows = shared[(shared["run"] == run) & (shared["stage"] == stage)]
            names = list(dict.fromkeys(rows["folder"]))
            raise UserError(
                f"not comparable: {' and '.join(names[:2])} hold different networks under one "
                f"name ({run}, {stage}); report them separately"
            )
    return frame.drop_duplicates(KEY).drop(columns="folder").reset_index(drop=True)


def _known(runs: Sequence[Results]) -> dict[str, Variant]:
    """Returns what any of the folders says of each run: an older one may not know it."""
    known: dict[str, Variant] = {}
    for folder in runs:
        for run, variant in of_rows(folder.predictions).items():
            if variant != UNKNOWN and known.setdefault(run, variant) != variant:
                raise UserError(
                    f"not comparable: two folders describe {run} differently; "
                    "report them separately"
                )
    return known


def _check_comparable(
    family: Family, found: Sequence[MethodScores], runs: Sequence[Results]
) -> None:
    """Refuse a table whose networks come from several runs with different test sets."""
    if len(runs) < 2:
        return
    for cohort in dict.fromkeys(e.cohort for e in found if e.split == "test"):
        networks = [
            e
            for e in found
            if e.cohort == cohort
            and e.split == "test"
            and e.scores is not None
            and not e.method.variant.is_baseline
        ]
        for first, other in itertools.combinations(networks, 2):
            homes = [_homes(e, runs) for e in (first, other)]
            if homes[0] & homes[1] or first.scores is None or other.scores is None:
                continue
            here, there = set(first.scores.scan), set(other.scores.scan)
            if here != there or not np.array_equal(first.scores.tested, other.scores.tested):
                names = [min(home) for home in homes]
                raise UserError(
                    f"not comparable on {cohort} ({family.key}): {first.method.name} of {names[0]} "
                    f"and {other.method.name} of {names[1]} have different test sets: "
                    f"{counted(len(here - there), 'scan')} only in the first, "
                    f"{len(there - here)} only in the second, {len(here & there)} in both"
                )


def _homes(entry: MethodScores, runs: Sequence[Results]) -> set[str]:
    """Returns the names of the runs that hold an entry's method."""
    found = set()
    for name, run in zip(names_of(runs), runs, strict=True):
        rows = run.predictions
        if ((rows["run"] == entry.method.run) & (rows["stage"] == entry.method.stage)).any():
            found.add(name)
    return found
