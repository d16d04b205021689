"""The simulated cohorts that a study makes for itself when it is given no cohort table.

Every scan is a function of settings and its own name, so that a plan can be drawn up, and finished
stages found, before any of them is made.
"""

import pandas as pd

from mri_jax.errors import UserError
from mri_jax.planning.catalogue import Catalogue, Key, catalogue_of
from mri_jax.settings.study import Study, named
from mri_jax.simulation import (
    CLASSES,
    NAMES,
    SITES,
    CohortRequest,
    SimulationSettings,
    cohorts_of_shift,
    default_cohorts,
    planned_table,
)
from mri_jax.site_shifts import SHIFTS, shifts_named


def cohort_requests(study: Study, names: tuple[str, ...] = ()) -> tuple[CohortRequest, ...]:
    """Returns the cohorts (or some by name) and diagnoses that the study needs, no others.

    ``simulation.subjects_per_class`` scales the default counts, in which the source and the
    fine-tuned cohort have 60 AD and 60 CN; ``simulation.paper_counts`` takes the paper's.
    """
    names = names or study.cohorts
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UserError(
            f"{named('data.cohort')}: is empty, so that cohorts are simulated, and {unknown[0]!r} "
            f"is not among {', '.join(NAMES)}; give the table that has it, and its store"
        )
    choice = study.simulation
    classes: dict[str, None] = {}
    for run in study.runs:
        for name in (
            run.source.positive,
            run.source.negative,
            run.task.positive,
            run.task.negative,
        ):
            classes[name] = None
        undiagnosed = run.adaptation.undiagnosed
        if undiagnosed and undiagnosed not in CLASSES:
            raise UserError(
                f"{named('adaptation.undiagnosed')}: simulated people are {', '.join(CLASSES)}, "
                f"and none is {undiagnosed!r}; give {named('data.cohort')}, whose table has them"
            )
        if undiagnosed:
            classes[undiagnosed] = None
    strange = [name for name in classes if name not in CLASSES]
    if strange:
        raise UserError(
            f"{named('task')}, {named('source')}: simulated people are {', '.join(CLASSES)}, not "
            f"{strange[0]!r}"
        )
    requests = default_cohorts(
        classes=tuple(classes), names=names, paper_counts=choice.paper_counts
    )
    requests = _scaled(study, requests)
    if choice.shift == "sites":
        return requests
    return cohorts_of_shift(shifts_named(choice.shift), requests, names[0])


def site_counts(study: Study) -> dict[str, tuple[int, int]]:
    """Returns how many scans of the negative and the positive class each site would have."""
    requests = cohort_requests(study, study.sites.cohorts or SITES)
    labels = (study.task.negative, study.task.positive)
    return {r.name: (r.counts.get(labels[0], 0), r.counts.get(labels[1], 0)) for r in requests}


def _scaled(study: Study, requests: tuple[CohortRequest, ...]) -> tuple[CohortRequest, ...]:
    """Returns cohorts of the size that a study asks for."""
    choice = study.simulation
    if choice.paper_counts or choice.subjects_per_class == 60:
        return requests
    if choice.subjects_per_class < 60:
        # Fewer: as many of every class, so that five folds still have some of each.
        return tuple(
            CohortRequest(
                r.name, {c: min(n, choice.subjects_per_class) for c, n in r.counts.items()}
            )
            for r in requests
        )
    factor = choice.subjects_per_class / 60
    return tuple(
        CohortRequest(r.name, {c: round(n * factor) for c, n in r.counts.items()}) for r in requests
    )


def settings_of(study: Study) -> SimulationSettings:
    """Returns what the study simulates."""
    choice = study.simulation
    return SimulationSettings(
        grid=choice.grid,
        seed=choice.seed,
        cohorts=cohort_requests(study),
        shifts=SHIFTS if choice.shift == "sites" else shifts_named(choice.shift),
        strength=float(choice.strength),
    )


def catalogue_to_make(study: Study) -> Catalogue:
    """Returns the catalogue of cohorts that need not exist yet.

    The finished cohorts have the same scans, with the same identities.
    """
    settings = settings_of(study)
    table = planned_table(settings)
    frame = table.drop(columns="fingerprint")
    return catalogue_of(frame, _identities(table), study, settings.volume_grid)


def _identities(planned: pd.DataFrame) -> dict[Key, str]:
    keys = zip(planned["subject_id"], planned["session_id"], strict=True)
    return dict(zip(keys, planned["fingerprint"], strict=True))
