"""Who is simulated: age, sex, disease stage and wanted volumes, each a pure function of names.

A scan is named by (seed, cohort, diagnosis, index); nothing else of the settings but ``effect`` and
``shifts`` enters it, so it is the same whoever else is made.
"""

import dataclasses

import numpy as np

from mri_jax.seeding import generator, stream_seed
from mri_jax.simulation.regions import REGIONS
from mri_jax.simulation.settings import SimulationSettings
from mri_jax.simulation.sites import Site, site_named

# Mean and SD of the latent disease stage (0 healthy, 1 typical of AD).
STAGE = {"CN": (0.0, 0.2), "sMCI": (0.35, 0.4), "pMCI": (0.8, 0.35), "AD": (1.0, 0.3)}
# Volumes at stage 1 relative to stage 0, in the order of REGIONS.
RATIO_AT_STAGE_1 = np.array([0.765, 0.78, 0.88, 0.95, 1.55])
# SD of log volumes among people of equal stage, age and sex, and their correlation. Large
# ventricles go with small tissue, hence its sign.
RESIDUAL_SD = np.array([0.15, 0.15, 0.08, 0.04, 0.40])
RESIDUAL_CORRELATION = 0.3
# Change of log volume a year, about the cohorts' mean age; and women against men.
AGE_SLOPE = np.array([-0.005, -0.004, -0.003, -0.002, 0.025])
FEMALE = np.array([0.01, 0.01, 0.0, 0.005, -0.10])
MIDDLE_AGE = 73.0
AGE_SD, AGE_RANGE = 6.5, (55.0, 92.0)
# Years by which a diagnosis' mean age differs from that of the cognitively normal.
AGE_OFFSET = {"CN": 0.0, "sMCI": -0.5, "pMCI": -0.3, "AD": 0.5}
INTRACRANIAL_ML = {"F": (1390.0, 105.0), "M": (1570.0, 120.0)}
# Progress of the stage a year, for people who are scanned again in a later cohort.
PROGRESS = {"CN": 0.005, "sMCI": 0.02, "AD": 0.05}
# One in `EVERY` subjects of a later cohort has been in an earlier one under the same index: (later,
# earlier) -> (remainder of the index, years between). People with pMCI do not return as such.
EVERY = 15
RETURNING = {
    ("ADNI2", "ADNI1"): (7, 4.0),
    ("ADNI3", "ADNI1"): (11, 10.0),
    ("ADNI3", "ADNI2"): (3, 6.0),
}
_BOUND = 2.5


@dataclasses.dataclass(frozen=True)
class SimulatedScan:
    """One scan to make.

    Attributes:
      subject_id: The person; the same in every cohort.
      session_id: Months since the person's first scan, ``m000`` and so on.
      cohort: The site of this scan.
      diagnosis: Its class there.
      index: Number within cohort and class, from 0.
      home: Cohort in which the person was first seen.
      age: Years at this scan.
      sex: ``F`` or ``M``.
      stage: Latent disease stage, severity and effect included.
      intracranial_ml: True volume inside the skull, native space.
      targets: (5,) wanted change of log volume against the template, in template space.
      anatomy_seed: Seed of the person's own shape.
      scan_seed: Seed of this scan's noise, bias and registration.
      site: The scanner and population.
    """

    subject_id: str
    session_id: str
    cohort: str
    diagnosis: str
    index: int
    home: str
    age: float
    sex: str
    stage: float
    intracranial_ml: float
    targets: np.ndarray
    anatomy_seed: int
    scan_seed: int
    site: Site

    @property
    def name(self) -> str:
        """``SUBJECT_SESSION``."""
        return f"{self.subject_id}_{self.session_id}"


def scans_of(settings: SimulationSettings) -> list[SimulatedScan]:
    """Returns every scan that the settings ask for, cohort by cohort, class by class."""
    return [
        scan_named(settings, request.name, diagnosis, index)
        for request in settings.cohorts
        for diagnosis, count in request.to_json()["counts"].items()
        for index in range(count)
    ]


def scan_named(
    settings: SimulationSettings, cohort: str, diagnosis: str, index: int
) -> SimulatedScan:
    """Returns one scan, whoever else is made."""
    home, years = home_of(cohort, diagnosis, index)
    site = site_named(home, settings.shifts, settings.strength)
    rng = generator(settings.seed, "person", home, diagnosis, index)
    sex = "F" if rng.random() < 0.5 else "M"
    age = site.age + settings.effect * AGE_OFFSET[diagnosis] + AGE_SD * _bounded(rng)
    age = float(np.clip(age, *AGE_RANGE)) + years
    mean, deviation = stage_of(diagnosis, settings.effect)
    stage = mean + deviation * _bounded(rng)
    stage = site.severity * (stage + settings.effect * PROGRESS.get(diagnosis, 0.0) * years)
    middle, width = INTRACRANIAL_ML[sex]
    intracranial = middle + width * _bounded(rng)
    residual = RESIDUAL_SD * np.clip(
        np.linalg.cholesky(residual_correlation()) @ rng.standard_normal(len(REGIONS)),
        -_BOUND, _BOUND,
    )  # fmt: skip
    return SimulatedScan(
        subject_id=f"SIM{home}{diagnosis}{index:04d}",
        session_id=f"m{round(12 * years):03d}",
        cohort=cohort,
        diagnosis=diagnosis,
        index=index,
        home=home,
        age=age,
        sex=sex,
        stage=float(stage),
        intracranial_ml=float(intracranial),
        targets=expected_log_volumes(stage, age, sex == "F") + residual,
        anatomy_seed=stream_seed(settings.seed, "anatomy", home, diagnosis, index),
        scan_seed=stream_seed(settings.seed, "scan", cohort, diagnosis, index),
        site=site_named(cohort, settings.shifts, settings.strength),
    )


def stage_of(diagnosis: str, effect: float) -> tuple[float, float]:
    """Returns mean and SD of the stage; with effect 0 those of the healthy in both classes."""
    (mean, deviation), (_, healthy) = STAGE[diagnosis], STAGE["CN"]
    return effect * mean, healthy + min(effect, 1.0) * (deviation - healthy)


def expected_log_volumes(stage: float, age: float, female: float) -> np.ndarray:
    """Returns (5,) mean change of log volume from the template at a stage, age (years) and sex."""
    return (
        stage * np.log(RATIO_AT_STAGE_1) + AGE_SLOPE * (age - MIDDLE_AGE) + FEMALE * (female - 0.5)
    )


def residual_correlation() -> np.ndarray:
    """Returns (5, 5) correlation of log volumes among equals."""
    sign = np.where(RATIO_AT_STAGE_1 < 1, 1.0, -1.0)
    return RESIDUAL_CORRELATION * np.outer(sign, sign) + (1 - RESIDUAL_CORRELATION) * np.eye(
        len(sign)
    )


def home_of(cohort: str, diagnosis: str, index: int) -> tuple[str, float]:
    """Returns the cohort that saw this person first, and the years since."""
    if diagnosis in PROGRESS:
        for (later, earlier), (remainder, years) in RETURNING.items():
            if later == cohort and index % EVERY == remainder:
                return earlier, years
    return cohort, 0.0


def _bounded(rng: np.random.Generator) -> float:
    return float(np.clip(rng.standard_normal(), -_BOUND, _BOUND))
