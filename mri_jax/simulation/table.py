"""What a study is told of simulated scans: the cohort table, mostly known before any is made."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from mri_jax import files
from mri_jax.seeding import generator
from mri_jax.simulation.people import SimulatedScan, scans_of
from mri_jax.simulation.phantom import head_size, template_ml
from mri_jax.simulation.regions import HIPPOCAMPUS
from mri_jax.simulation.settings import CohortRequest, SimulationSettings

# SD of the log error with which a study measures the hippocampus and the skull's inside.
HIPPOCAMPUS_ERROR, INTRACRANIAL_ERROR = 0.04, 0.015

COLUMNS = (
    "subject_id",
    "session_id",
    "cohort",
    "diagnosis",
    "age",
    "sex",
    "image",
    "hippocampus_ml",
    "intracranial_ml",
    "field_strength",
    "shared_with",
)


def planned_table(settings: SimulationSettings) -> pd.DataFrame:
    """Returns the cohort table of scans that need not exist: for planning a study without volumes.

    Args:
      settings: Which scans.

    Returns:
      `COLUMNS` as `simulate` would write them, in its order, but for ``hippocampus_ml``, which
      rests on the wanted volume (the achieved one lies within 2% of it); and
      ``fingerprint``, which names everything that determines the scan's volume, whoever else is
      made: equal fingerprints are equal volumes up to rounding.

    Example:
      >>> from mri_jax.simulation import CohortRequest, SimulationSettings
      >>> asked = CohortRequest("AIBL", {"AD": 2, "CN": 3})
      >>> table = planned_table(SimulationSettings(grid="demo", seed=1, cohorts=(asked,)))
      >>> table["diagnosis"].value_counts().to_dict()
      {'CN': 3, 'AD': 2}
    """
    scans = scans_of(settings)
    middle = template_ml()[HIPPOCAMPUS]
    table = table_of(
        [
            table_row(scan, middle * float(np.exp(scan.targets[HIPPOCAMPUS])), settings)
            for scan in scans
        ]
    )
    return table.assign(fingerprint=[scan_fingerprint(settings, scan) for scan in scans])


def scan_fingerprint(settings: SimulationSettings, scan: SimulatedScan) -> str:
    """Returns SHA-256 of what determines a scan: settings without the cohorts, and its name."""
    alone = dataclasses.replace(
        settings, cohorts=(CohortRequest(scan.cohort, {scan.diagnosis: 1}),)
    )
    return files.fingerprint({**alone.to_json(), "index": scan.index})


def table_row(
    scan: SimulatedScan, hippocampus_ml: float, settings: SimulationSettings
) -> dict[str, Any]:
    """Returns a row of `COLUMNS` without ``shared_with``.

    Args:
      scan: The scan.
      hippocampus_ml: Volume of its hippocampi in template space.
      settings: With which it is made.

    Returns:
      Hippocampus and intracranial volume in native space (mL) with a measurement error of
      `HIPPOCAMPUS_ERROR` and `INTRACRANIAL_ERROR`; ``image`` is empty but for raw heads.
    """
    rng = generator(settings.seed, "measurement", scan.cohort, scan.diagnosis, scan.index)
    error = np.exp(rng.standard_normal(2) * (HIPPOCAMPUS_ERROR, INTRACRANIAL_ERROR))
    native = hippocampus_ml * head_size(scan.intracranial_ml)
    return {
        "subject_id": scan.subject_id,
        "session_id": scan.session_id,
        "cohort": scan.cohort,
        "diagnosis": scan.diagnosis,
        "age": round(scan.age, 2),
        "sex": scan.sex,
        "image": f"rawdata/{raw_path(scan)}" if settings.raw else "",
        "hippocampus_ml": round(native * error[0], 4),
        "intracranial_ml": round(scan.intracranial_ml * error[1], 1),
        "field_strength": scan.site.field_strength,
    }


def raw_path(scan: SimulatedScan) -> str:
    """Path of a raw head in ``rawdata/``: one BIDS tree a cohort."""
    name = f"sub-{scan.subject_id}_ses-{scan.session_id}_T1w.nii.gz"
    return f"{scan.cohort}/sub-{scan.subject_id}/ses-{scan.session_id}/anat/{name}"


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns `COLUMNS` of rows, with the other cohorts in which each person occurs."""
    table = pd.DataFrame(rows)
    table["shared_with"] = shared_with(table)
    return table[list(COLUMNS)]


def shared_with(table: pd.DataFrame) -> list[str]:
    """Returns the other cohorts of each row's person, ``+`` between names."""
    cohorts = table.groupby("subject_id")["cohort"].agg(set)
    return [
        "+".join(sorted(cohorts[subject] - {cohort}))
        for subject, cohort in zip(table["subject_id"], table["cohort"], strict=True)
    ]
