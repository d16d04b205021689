"""The simulated cohorts that a study makes for itself when it is given no cohort table.

Every scan is a function of settings and its own name, so that a plan can be drawn up, and finished
stages found, before any of them is made.
"""

from collections.abc import Callable

import pandas as pd
from etils import epath

from mri_jax.errors import UserError
from mri_jax.locks import lock_of
from mri_jax.simulation import (
    CLASSES,
    COHORTS,
    CohortRequest,
    SimulationSettings,
    default_cohorts,
    planned_table,
    simulate,
)
from mri_jax.simulation.cohorts import paths_in
from mri_jax.study.data import Catalogue, Key, catalogue_of, open_catalogue
from mri_jax.study.settings import Study
from mri_jax.training.loop import Interrupted
from mri_jax.volumes.store import VolumeStore


def cohort_requests(study: Study) -> tuple[CohortRequest, ...]:
    """The cohorts and diagnoses that the study needs, no others.

    ``simulation.subjects_per_class`` scales the default counts, in which the source and the
    fine-tuned cohort have 60 AD and 60 CN; ``simulation.paper_counts`` takes the paper's.
    """
    unknown = [name for name in study.cohorts if name not in COHORTS]
    if unknown:
        raise UserError(
            f"config.data.cohort: is empty, so that cohorts are simulated, and {unknown[0]!r} is "
            f"not among {', '.join(COHORTS)}; give the table that has it, and its store"
        )
    choice = study.data.simulation
    classes: dict[str, None] = {}
    for run in study.runs:
        for name in (run.source.positive, run.source.negative, run.positive, run.negative):
            classes[name] = None
    strange = [name for name in classes if name not in CLASSES]
    if strange:
        raise UserError(
            f"config.task, config.source: simulated people are {', '.join(CLASSES)}, not "
            f"{strange[0]!r}"
        )
    requests = default_cohorts(
        classes=tuple(classes), names=study.cohorts, paper_counts=choice.paper_counts
    )
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
    """What the study simulates."""
    choice = study.data.simulation
    return SimulationSettings(grid=choice.grid, seed=choice.seed, cohorts=cohort_requests(study))


def scans_to_make(study: Study, root: epath.Path) -> int:
    """How many scans `make` would simulate; those of a run that was stopped count again."""
    if not study.data.simulated:
        return 0
    settings = settings_of(study)
    return 0 if paths_in(_folder(settings, root)).table_path.exists() else settings.total


def make(
    study: Study, root: epath.Path, interrupted: Callable[[], bool]
) -> tuple[Catalogue, VolumeStore]:
    """The catalogue and the store of cohorts that are made unless they are there already.

    Args:
      study: Says what to simulate.
      root: Where simulated cohorts are kept, a folder a fingerprint.
      interrupted: Whether to stop; asked after every scan.

    Raises:
      Interrupted: ``interrupted`` said so; finished scans are kept.
    """

    def after_scan() -> None:
        if interrupted():
            raise Interrupted

    settings = settings_of(study)
    folder = _folder(settings, root)
    with lock_of(root / f"{folder.name}.lock").acquire(timeout=-1):
        result = simulate(settings, folder, after_scan=after_scan)
    store = VolumeStore(result.store_path)
    identities = _identities(planned_table(settings))
    return open_catalogue(result.table_path, store, study, identities), store


def catalogue_to_make(study: Study) -> Catalogue:
    """The catalogue of cohorts that need not exist yet.

    Plans drawn from it and from the finished cohorts are equal.
    """
    settings = settings_of(study)
    table = planned_table(settings)
    frame = table.drop(columns="fingerprint")
    return catalogue_of(frame, _identities(table), study, settings.volume_grid, simulated=True)


def _identities(planned: pd.DataFrame) -> dict[Key, str]:
    keys = zip(planned["subject_id"], planned["session_id"], strict=True)
    return dict(zip(keys, planned["fingerprint"], strict=True))


def _folder(settings: SimulationSettings, root: epath.Path) -> epath.Path:
    return root / settings.fingerprint[:16]
