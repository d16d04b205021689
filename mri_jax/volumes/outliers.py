"""Which figures of quality are outliers, among scans that can be compared.

A scan is compared with those of its own scanner, where the scanner is known and made at least
`FEWEST_FOR_OUTLIERS` of the cohort's scans; otherwise with all of its cohort, if that has so many;
otherwise with nobody, and only the fixed `quality.LIMITS` hold. Scans of unlike scanners are not
pooled: their spread would hide outliers of one and flag good scans of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mri_jax.problems import counted
from mri_jax.volumes import scanners
from mri_jax.volumes.quality import FIGURES, LIMITS
from mri_jax.volumes.store import KEY

# A figure is flagged when it lies this many robust SDs from the median of the scans compared with.
ROBUST_SDS = 4.0
FEWEST_FOR_OUTLIERS = 8
# Values that a figure can have; a limit beyond them flags nothing.
POSSIBLE = {
    "correlation": (-1.0, 1.0),
    "brain_ml": (0.0, np.inf),
    "scale": (0.0, np.inf),
    "shear": (0.0, np.inf),
    "snr": (0.0, np.inf),
    "leakage": (0.0, 1.0),
    "missing": (0.0, 1.0),
}

FIXED = "fixed limits only"

Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Group:
    """Scans that are compared with each other.

    Attributes:
      cohort: Theirs.
      scanner: Theirs; empty where it is unknown, or where the whole cohort is compared.
      scans: How many scans have their limits from here.
      compared: How many scans the limits are made of; 0 where only `quality.LIMITS` hold.
      bounds: For every figure, the values that are no outliers.
      middles: For every figure that is known, median and robust SD.
    """

    cohort: str
    scanner: str
    scans: int
    compared: int
    bounds: Bounds
    middles: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Cohort and scanner in words."""
        return f"{self.cohort}, {self.scanner}" if self.scanner else self.cohort

    @property
    def blind(self) -> tuple[str, ...]:
        """Figures that no value could flag: the scans differ too much among themselves."""
        return tuple(
            name
            for name, (least, most) in POSSIBLE.items()
            if name in self.middles and _is_blind(name, self.bounds[name], least, most)
        )

    def describe(self) -> str:
        """Returns one line: what the limits come from, and which of them cannot flag anything."""
        if not self.compared:
            return (
                f"{self.name}: {counted(self.scans, 'scan')}, {FIXED} (outliers need "
                f"{FEWEST_FOR_OUTLIERS} scans of a scanner or cohort)"
            )
        basis = f"{counted(self.compared, 'scan')} of the {'scanner' if self.scanner else 'cohort'}"
        limits = ", ".join(
            f"{name} (limit {self.bounds[name][FIGURES[name][1] == 'high']:.3g})"
            for name in self.blind
        )
        cannot = f"; cannot flag anything, the scans differ too much: {limits}" if limits else ""
        return f"{self.name}: {counted(self.scans, 'scan')}, limits from {basis}{cannot}"


def _is_blind(name: str, bounds: tuple[float, float], least: float, most: float) -> bool:
    side = FIGURES[name][1]
    return not ((side != "high" and bounds[0] > least) or (side != "low" and bounds[1] < most))


@dataclass(frozen=True)
class Groups:
    """The groups of an index.

    Attributes:
      groups: In the order of their names.
      of_row: (N,) which of them each row of the index has its limits from.
    """

    groups: tuple[Group, ...]
    of_row: np.ndarray

    def names(self) -> list[str]:
        """Returns the name of each row's group, or that only fixed limits hold."""
        named = [group.name if group.compared else FIXED for group in self.groups]
        return [named[place] for place in self.of_row]


def with_scanners(index: pd.DataFrame, cohort: pd.DataFrame | None) -> pd.DataFrame:
    """Returns an index whose column ``scanner`` is completed from a cohort table.

    The column stays away where neither knows a scanner.
    """
    known = _scanner(index)
    if cohort is not None:
        named = scanners.names(cohort)
        by_key = dict(zip(cohort[KEY].itertuples(index=False, name=None), named, strict=True))
        keys = index[KEY].itertuples(index=False, name=None)
        found = pd.Series([by_key.get(key, "") for key in keys], index=index.index, dtype=object)
        known = known.mask(known == "", found)
    return index.assign(scanner=known) if (known != "").any() else index


def groups_of(index: pd.DataFrame) -> Groups:
    """Returns the groups of scans that are compared.

    Args:
      index: Rows with figures; the columns ``cohort`` and ``scanner`` where they are known.
    """
    cohorts = index["cohort"].fillna("").astype(str).to_numpy() if "cohort" in index else None
    cohorts = np.full(len(index), "", object) if cohorts is None else cohorts
    made_by = _scanner(index).to_numpy()
    numbers = {
        name: pd.to_numeric(index[name], errors="coerce").to_numpy(float)
        for name in FIGURES
        if name in index
    }
    places = np.zeros(len(index), int)
    groups: list[Group] = []
    for cohort in sorted(set(cohorts)):
        whole = cohorts == cohort
        own = {name: whole & (made_by == name) for name in sorted(set(made_by[whole]) - {""})}
        own = {name: rows for name, rows in own.items() if rows.sum() >= FEWEST_FOR_OUTLIERS}
        rest = whole & ~np.logical_or.reduce([np.zeros(len(index), bool), *own.values()])
        for name, rows in own.items():
            places[rows] = len(groups)
            groups.append(_group(cohort, name, rows, rows, numbers))
        if rest.any():
            places[rest] = len(groups)
            groups.append(_group(cohort, "", rest, whole, numbers))
    return Groups(tuple(groups), places)


def _scanner(index: pd.DataFrame) -> pd.Series:
    if "scanner" not in index:
        return pd.Series("", index=index.index, dtype=object)
    return index["scanner"].fillna("").astype(str).astype(object)


def _group(
    cohort: str,
    scanner: str,
    rows: np.ndarray,
    compared: np.ndarray,
    numbers: dict[str, np.ndarray],
) -> Group:
    enough = int(compared.sum()) >= FEWEST_FOR_OUTLIERS
    known = {name: values[compared] for name, values in numbers.items()}
    known = {name: values[np.isfinite(values)] for name, values in known.items()}
    return Group(
        cohort,
        scanner,
        int(rows.sum()),
        int(compared.sum()) if enough else 0,
        {name: _bounds(name, values) for name, values in known.items()},
        {name: _middle_and_spread(values) for name, values in known.items() if len(values)},
    )


def _bounds(name: str, known: np.ndarray) -> tuple[float, float]:
    low, high = LIMITS.get(name, (-np.inf, np.inf))
    if len(known) >= FEWEST_FOR_OUTLIERS:
        middle, spread = _middle_and_spread(known)
        low = max(low, middle - ROBUST_SDS * spread)
        high = min(high, middle + ROBUST_SDS * spread)
    return low, high


def _middle_and_spread(known: np.ndarray) -> tuple[float, float]:
    """Returns median and robust SD, with a floor for figures that hardly vary (leakage 0)."""
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    return middle, max(spread, 0.01 * abs(middle), 1e-3)


def widest(groups: Sequence[Group]) -> dict[str, tuple[float, float]]:
    """Returns for each figure the values that are no outliers in at least one of the groups.

    For a scan whose scanner is not known to be any of them.
    """
    named = {name for group in groups for name in group.bounds}
    bounds = {name: [group.bounds[name] for group in groups] for name in FIGURES if name in named}
    return {name: (min(b[0] for b in x), max(b[1] for b in x)) for name, x in bounds.items()}


def outside(figures: Mapping[str, float], bounds: Bounds) -> str:
    """Returns the figures out of bounds, ``"correlation low, leakage high"``; NaN never is."""
    found = []
    for name, (_, side) in FIGURES.items():
        if name not in figures or name not in bounds:
            continue
        low, high = bounds[name]
        if figures[name] < low and side != "high":
            found.append(f"{name} low")
        elif figures[name] > high and side != "low":
            found.append(f"{name} high")
    return ", ".join(found)


def flags(index: pd.DataFrame, groups: Groups | None = None) -> pd.Series:
    """Returns each row's figures that are outliers in its group, in the words of `outside`."""
    groups = groups_of(index) if groups is None else groups
    names = [name for name in FIGURES if name in index]
    rows = index[names].apply(pd.to_numeric, errors="coerce").to_dict("records")
    bounds = [groups.groups[place].bounds for place in groups.of_row]
    found = [outside(row, limits) for row, limits in zip(rows, bounds, strict=True)]
    return pd.Series(found, index=index.index, dtype=object)


def suspicion(index: pd.DataFrame, groups: Groups | None = None) -> np.ndarray:
    """Returns (N,) how far a row's worst figure lies from its group's median, in robust SDs."""
    groups = groups_of(index) if groups is None else groups
    worst = np.zeros(len(index))
    for name, (_, side) in FIGURES.items():
        if name not in index:
            continue
        values = pd.to_numeric(index[name], errors="coerce").to_numpy(float)
        known = [group.middles.get(name, (np.nan, np.nan)) for group in groups.groups]
        middle, spread = np.array(known).reshape(-1, 2)[groups.of_row].T
        distance = (values - middle) / spread
        distance = {"low": -distance, "high": distance, "both": np.abs(distance)}[side]
        worst = np.maximum(worst, np.nan_to_num(distance, nan=0.0))
    return worst


def quality_table(index: pd.DataFrame) -> pd.DataFrame:
    """Returns ``quality.csv``: key, cohort, figures, steps and flags, worst first."""
    columns = [*KEY, "cohort", *(name for name in ("scanner",) if name in index)]
    columns += [name for name in FIGURES if name in index]
    steps = ("inhomogeneity", "brain", "registration", "reading")
    columns += [name for name in steps if name in index]
    table = index[columns].copy().reset_index(drop=True)
    groups = groups_of(table)
    table["flags"] = flags(table, groups).to_numpy()
    table["suspicion"] = np.round(suspicion(table, groups), 2)
    table["limits_from"] = groups.names()
    order = np.lexsort((table["session_id"], table["subject_id"], -table["suspicion"]))
    return table.iloc[order].reset_index(drop=True)
