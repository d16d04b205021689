"""What to simulate: cohorts, counts, grid, seed, and which differences between sites exist."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.site_shifts import POPULATION_SHIFTS, SHIFTS
from mri_jax.typed import build
from mri_jax.volumes.grids import Grid, grid_named

# Raise it whenever the same settings give other bytes: caches then start afresh.
VERSION = 3

CLASSES = ("CN", "sMCI", "pMCI", "AD")
COHORTS = ("ADNI1", "ADNI2", "ADNI3", "AIBL")
SITES = tuple(f"SITE{number}" for number in range(1, 8))
"""Sites of a study of many sites; nobody is seen at two of them."""
NAMES = (*COHORTS, *SITES)

# So many times fewer patients has a cohort of another population.
_FEWER = 3
# Subjects of the reference study (Guan et al. 2021, Section 2.1).
PAPER_COUNTS: Mapping[str, Mapping[str, int]] = {
    "ADNI1": {"AD": 205, "CN": 231, "pMCI": 165, "sMCI": 147},
    "ADNI2": {"AD": 162, "CN": 205, "pMCI": 88, "sMCI": 253},
    "ADNI3": {"AD": 60, "CN": 329},
    "AIBL": {"AD": 71, "CN": 447, "pMCI": 11, "sMCI": 20},
}
# The same four sites in small: 60 and 60 where a study trains and fine-tunes, and elsewhere the
# paper's imbalance (prevalence is itself a difference between sites).
SMALL_COUNTS: Mapping[str, Mapping[str, int]] = {
    "ADNI1": {"AD": 60, "CN": 60, "pMCI": 40, "sMCI": 40},
    "ADNI2": {"AD": 60, "CN": 60, "pMCI": 30, "sMCI": 70},
    "ADNI3": {"AD": 20, "CN": 100},
    "AIBL": {"AD": 20, "CN": 100, "pMCI": 10, "sMCI": 20},
}
# Sites of ordinary size and two small ones, whose classes have fewer than ten scans.
SITE_COUNTS: Mapping[str, Mapping[str, int]] = {
    "SITE1": {"AD": 24, "CN": 24},
    "SITE2": {"AD": 20, "CN": 28},
    "SITE3": {"AD": 24, "CN": 24},
    "SITE4": {"AD": 22, "CN": 22},
    "SITE5": {"AD": 28, "CN": 20},
    "SITE6": {"AD": 6, "CN": 9},
    "SITE7": {"AD": 8, "CN": 5},
}


@dataclasses.dataclass(frozen=True)
class CohortRequest:
    """How many people of which diagnosis to make at one site.

    Attributes:
      name: One of `NAMES`.
      counts: Class (one of `CLASSES`) to number of scans; absent classes are 0.

    Raises:
      UserError: A name is unknown, or a count is negative or not a whole number.
    """

    name: str
    counts: Mapping[str, int]

    def __post_init__(self):
        if self.name not in NAMES:
            raise UserError(f"cohort: {self.name!r} is unknown; choose one of {', '.join(NAMES)}")
        for label, count in self.counts.items():
            if label not in CLASSES:
                raise UserError(
                    f"cohort {self.name}: class {label!r} is unknown; "
                    f"choose one of {', '.join(CLASSES)}"
                )
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise UserError(
                    f"cohort {self.name}: {label}={count!r} must be a whole number of at least 0"
                )

    @property
    def total(self) -> int:
        """Scans in all."""
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """Name and counts in the order of `CLASSES`, zeros left out."""
        counts = {label: self.counts[label] for label in CLASSES if self.counts.get(label)}
        return {"name": self.name, "counts": counts}


@dataclasses.dataclass(frozen=True)
class SimulationSettings:
    """Everything that determines the simulated cohorts.

    Attributes:
      grid: ``demo``, ``dev`` or ``paper``.
      seed: Seed of every random draw.
      cohorts: The sites and their counts; each site at most once.
      effect: Multiplies every difference between diagnoses; 0 makes them exchangeable.
      shifts: Those of `SHIFTS` in which sites differ. In the others every site is like ADNI1.
      strength: Multiplies how far scanners and populations are from those of ADNI1.
      raw: Whole heads in scanner space (a BIDS tree) instead of a volume store.

    Raises:
      UserError: A field is out of its range.
    """

    grid: str
    seed: int
    cohorts: tuple[CohortRequest, ...]
    effect: float = 1.0
    shifts: tuple[str, ...] = SHIFTS
    raw: bool = False
    strength: float = 1.0

    def __post_init__(self):
        grid_named(self.grid)
        object.__setattr__(self, "cohorts", tuple(self.cohorts))
        if not any(request.total for request in self.cohorts):
            raise UserError("cohorts: at least one subject must be asked for")
        names = [request.name for request in self.cohorts]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise UserError(f"cohort {repeated[0]}: is given more than once")
        unknown = [shift for shift in self.shifts if shift not in SHIFTS]
        if unknown:
            raise UserError(f"shifts: {unknown[0]!r} is unknown; choose among {', '.join(SHIFTS)}")
        object.__setattr__(self, "shifts", tuple(s for s in SHIFTS if s in self.shifts))
        if not 0 <= self.effect <= 2:
            raise UserError(f"effect: {self.effect} must be from 0 (no disease) to 2")
        if not 0 < self.strength <= 10:
            raise UserError(f"strength: {self.strength} must be above 0, at most 10")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed: {self.seed} must be from 0 to 2**63 - 1")

    @property
    def volume_grid(self) -> Grid:
        """The grid of the volumes."""
        return grid_named(self.grid)

    @property
    def total(self) -> int:
        """Scans in all."""
        return sum(request.total for request in self.cohorts)

    def to_json(self) -> dict[str, Any]:
        """JSON-serialisable form; equal forms give equal bytes."""
        return {
            "version": VERSION,
            "grid": self.grid,
            "seed": int(self.seed),
            "cohorts": [request.to_json() for request in self.cohorts if request.total],
            "effect": float(self.effect),
            "shifts": list(self.shifts),
            "raw": bool(self.raw),
            # Left out at 1, as in cohorts of versions that did not have it.
            **({"strength": float(self.strength)} if self.strength != 1 else {}),
        }

    @classmethod
    def from_json(cls, value: Any, source: str) -> "SimulationSettings":
        """Returns what `to_json` wrote; ``source`` names the file in errors."""
        if isinstance(value, dict):
            value = {name: v for name, v in value.items() if name != "version"}
        return build(cls, value, f"{source}: settings")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `to_json`."""
        return files.fingerprint(self.to_json())


def default_cohorts(
    classes: Iterable[str] = CLASSES,
    names: Iterable[str] = COHORTS,
    paper_counts: bool = False,
) -> tuple[CohortRequest, ...]:
    """Returns the study's sites with their default counts.

    Args:
      classes: Which diagnoses to make.
      names: Which sites to make.
      paper_counts: The paper's exact counts rather than a small mirror of them; it has none of
        `SITES`.

    Returns:
      One request a site that has any of the classes (ADNI3 has no MCI).
    """
    table = {**(PAPER_COUNTS if paper_counts else SMALL_COUNTS), **SITE_COUNTS}
    classes = tuple(classes)
    requests = []
    for name in names:
        CohortRequest(name, dict.fromkeys(classes, 0))
        request = CohortRequest(name, {c: n for c, n in table[name].items() if c in classes})
        if request.total:
            requests.append(request)
    return tuple(requests)


def cohorts_of_shift(
    shifts: Iterable[str], requests: Iterable[CohortRequest], first: str = COHORTS[0]
) -> tuple[CohortRequest, ...]:
    """Returns cohorts of which every other than the first has another share of patients, or none.

    Args:
      shifts: What differs. Where no people do, each cohort has the classes in the first one's
        proportion; where they do, a third of the patients for its size.
      requests: The cohorts.
      first: The one that the others are compared with.

    Returns:
      Cohorts of the same sizes, but for rounding; counts are at least 1.
    """
    asked = {request.name: request for request in requests}
    model = asked.get(first)
    if model is None:
        return tuple(asked.values())
    healthy, others = CLASSES[0], not set(POPULATION_SHIFTS).isdisjoint(shifts)
    found = []
    for request in asked.values():
        weights = {label: float(count) for label, count in model.counts.items() if count}
        if request.name != first and others:
            weights = {c: w / (1 if c == healthy else _FEWER) for c, w in weights.items()}
        share = request.total / sum(weights.values())
        counts = {c: max(1, round(w * share)) for c, w in weights.items()}
        found.append(request if request.name == first else CohortRequest(request.name, counts))
    return tuple(found)


def parse_cohort(text: str) -> CohortRequest:
    """Read ``NAME:AD=60,CN=60``.

    Raises:
      UserError: The text has another form, or a name or count is wrong.
    """
    name, colon, rest = text.partition(":")
    counts: dict[str, int] = {}
    for item in rest.split(",") if colon and rest else ():
        label, equals, number = item.partition("=")
        label = label.strip()
        try:
            value = int(number)
        except ValueError:
            raise UserError(f"--cohort {text!r}: {item!r} is not CLASS=NUMBER") from None
        if not equals or label in counts:
            raise UserError(f"--cohort {text!r}: class {label!r} is given twice")
        counts[label] = value
    if not counts:
        raise UserError(f"--cohort {text!r}: is not NAME:CLASS=NUMBER,...")
    return CohortRequest(name.strip(), counts)
