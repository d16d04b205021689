"""The simulated cohorts that a study makes for itself when it is given no cohort table."""

from etils import epath

from mri_jax.simulation import CohortRequest, SimulationSettings, default_cohorts, simulate
from mri_jax.study.settings import Study
from mri_jax.study.stages import lock_of


def cohort_requests(study: Study) -> tuple[CohortRequest, ...]:
    """The cohorts and diagnoses that the study needs, no others.

    ``simulation.subjects_per_class`` scales the default counts, in which the source and the
    fine-tuned cohort have 60 AD and 60 CN; ``simulation.paper_counts`` takes the paper's.
    """
    choice = study.data.simulation
    classes: dict[str, None] = {}
    for run in study.runs:
        for name in (run.source.positive, run.source.negative, run.positive, run.negative):
            classes[name] = None
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


def simulated_cohorts(study: Study, root: epath.Path) -> tuple[epath.Path, epath.Path]:
    """The cohort table and the store, made unless they are there already.

    Args:
      study: Says which cohorts.
      root: Where simulated cohorts are kept, a folder a fingerprint.
    """
    choice = study.data.simulation
    settings = SimulationSettings(
        grid=choice.grid, seed=choice.seed, cohorts=cohort_requests(study)
    )
    name = settings.fingerprint[:16]
    with lock_of(root / f"{name}.lock").acquire(timeout=-1):
        made = simulate(settings, root / name)
    return made.table_path, made.store_path
