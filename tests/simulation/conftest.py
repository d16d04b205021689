"""One small folder of simulated cohorts, made once for all tests that look at one."""

import pytest

from mri_jax.simulation import CohortRequest, SimulatedCohorts, SimulationSettings, simulate


@pytest.fixture(scope="session")
def few() -> SimulationSettings:
    """Seventeen scans; the eighth person of ADNI2 was in ADNI1 before."""
    cohorts = (CohortRequest("ADNI1", {"AD": 8, "CN": 1}), CohortRequest("ADNI2", {"AD": 8}))
    return SimulationSettings("demo", 3, cohorts)


@pytest.fixture(scope="session")
def made(few, tmp_path_factory) -> SimulatedCohorts:
    """The folder of `few`; not to be written to."""
    return simulate(few, tmp_path_factory.mktemp("few") / "out", progress=False, workers=2)
