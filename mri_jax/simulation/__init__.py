"""Multi-site cohorts with a known truth, written as a cohort table and a volume store."""

from mri_jax.simulation.cohorts import SimulatedCohorts, simulate
from mri_jax.simulation.settings import (
    CLASSES,
    COHORTS,
    NAMES,
    PAPER_COUNTS,
    SITES,
    CohortRequest,
    SimulationSettings,
    cohorts_of_shift,
    default_cohorts,
    parse_cohort,
)
from mri_jax.simulation.table import planned_table

__all__ = [
    "CLASSES",
    "COHORTS",
    "NAMES",
    "PAPER_COUNTS",
    "SITES",
    "CohortRequest",
    "SimulatedCohorts",
    "SimulationSettings",
    "cohorts_of_shift",
    "default_cohorts",
    "parse_cohort",
    "planned_table",
    "simulate",
]
