"""The archives whose tables a reader knows, and what a user may choose in reading them.

ADNI and AIBL have options of their own and stand in `mri_jax.cohort.adni` and `aibl`. A further
archive is a reader beside `mri_jax.cohort.ppmi`, an entry here, and its page in ``docs/``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mri_jax.cohort import abide, nacc, oasis3, ppmi
from mri_jax.cohort.assemble import CohortSource
from mri_jax.cohort.sheets import Reading


@dataclass(frozen=True)
class Archive:
    """One archive.

    Attributes:
      title: Its name.
      read: Reads the folder of tables and that of images.
      scans: Options of the choice of a scan that its images can answer.
      days: How far a scan may be from the visit that labels it.
      loni: Whether images are those of the LONI archive.
      sites: Whether its cohorts are sites.
      history: Whether later visits say how MCI goes on.
      window: Months around the horizon in which a visit counts as at it.
    """

    title: str
    read: Callable[[Path, Path, Reading], CohortSource]
    scans: tuple[str, ...] = ()
    days: float = 90.0
    loni: bool = False
    sites: bool = True
    history: bool = False
    window: float = 0.0


ARCHIVES = {
    "abide": Archive("ABIDE", abide.read),
    "ppmi": Archive(
        "PPMI", ppmi.read, ("days", "level", "acceleration", "repeats", "field"), loni=True
    ),
    # Visits are told by days, about a year apart: none falls on the horizon to the month.
    "oasis3": Archive(
        "OASIS-3", oasis3.read, ("days", "repeats", "field"), 180.0, sites=False, history=True,
        window=6.0,
    ),
    "nacc": Archive(
        "NACC", nacc.read, ("days", "acceleration", "repeats", "field"), 180.0, history=True,
        window=6.0,
    ),
}  # fmt: skip
