"""What is said of a study before it runs."""

from collections import Counter
from collections.abc import Sequence

from mri_jax.planning import fits
from mri_jax.planning.catalogue import Catalogue, Key
from mri_jax.planning.fingerprints import earlier_names
from mri_jax.planning.plan import FEATURES, STATISTICS, Plan, TrainStage
from mri_jax.problems import counted, listed
from mri_jax.settings.presets import unmeant
from mri_jax.settings.study import Study, named
from mri_jax.study.stages import StageFolders
from mri_jax.training.step import NUMERICS_VERSION

_KINDS = {
    "source": ("source network", "source networks"),
    "tune": ("fine-tuning", "fine-tunings"),
    "inner": ("fine-tuning inside cross-validation", "fine-tunings inside cross-validation"),
    "adapt": ("adaptation", "adaptations"),
    STATISTICS: ("estimation of statistics", "estimations of statistics"),
    "evaluate": ("evaluation", "evaluations"),
    FEATURES: ("set of features", "sets of features"),
    "baseline": ("baseline", "baselines"),
}
"""What one and several stages of a kind are called."""


def announcement(study: Study, plan: Plan, catalogue: Catalogue, folders: StageFolders) -> str:
    """Returns what is said of a study before it runs."""
    told = [
        unmeant(study.preset, catalogue.grid.spacing),
        _narrow(study),
        *_in_parts(study),
        *notes_on(plan, catalogue),
    ]
    notes = [f"note: {note}" for note in told if note]
    again = trained_again(study, plan, catalogue, folders)
    return "\n".join([summary(plan, folders), *again, *lengths(study, plan), *notes])


def _narrow(study: Study) -> str:
    """Returns what is said of networks that do not compute in float32; nothing where all do."""
    narrow = [run.name for run in study.runs if run.spec.dtype == "bfloat16"]
    which = "" if len(narrow) == len(study.runs) else f" of {listed(narrow)}"
    said = "are of bfloat16, parameters, statistics and loss of float32"
    return f"activations{which} {said} ({named('model.dtype')})" if narrow else ""


def _in_parts(study: Study) -> list[str]:
    """Returns what is said of BatchNorm where it has the statistics of single volumes."""
    alone = [
        run.name
        for run in study.runs
        if run.spec.norm == "batch" and 1 < run.train.accumulate == run.train.batch
    ]
    if not alone:
        return []
    which = f"{named('train.accumulate')} divides a batch of {listed(alone)} into single volumes"
    return [f"{which}, each of which BatchNorm normalises by itself, as an instance norm would"]


def notes_on(plan: Plan, catalogue: Catalogue) -> list[str]:
    """Returns what the user should know of the cohort table, and of targets with one class."""
    tested: dict[str, set[int]] = {}
    for entry in plan.entries:
        for answer in entry.answers:
            if answer.split == "test":
                tested.setdefault(answer.cohort, set()).update(answer.examples.labels)
    possible = {0: "negatives alone: SPE and ACC", 1: "positives alone: SEN and ACC"}
    return [
        *catalogue.notes,
        *_excluded(catalogue.excluded_among(plan.rows()), len(plan.rows())),
        *(
            f"{cohort} is tested on {possible[labels.pop()]} can be had, and no AUC"
            for cohort, labels in tested.items()
            if len(labels) == 1
        ),
    ]


def _excluded(analysed: Sequence[Key], total: int) -> list[str]:
    """Returns a line where scans are analysed that quality control leaves out."""
    if not analysed:
        return []
    told = (
        f"{len(analysed)} of {counted(total, 'scan')} analysed, though excluded by quality control "
        f"(exclusions.csv of the store): {listed(map(' '.join, analysed))}; "
        "python -m mri_jax qc STORE --cohort TABLE --cohort-out NEW.csv writes a table without them"
    )
    return [told]


def trained_again(
    study: Study, plan: Plan, catalogue: Catalogue, folders: StageFolders
) -> list[str]:
    """Returns a line for each earlier version of the numerics whose networks are trained again."""
    found: Counter[int] = Counter()
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and not folders.finished(stage):
            names = earlier_names(stage, study, catalogue)
            found.update(version for version, name in names.items() if folders.has_result(name))
    other = f"trained with other numerics (version %s, now {NUMERICS_VERSION}) and"
    one = f"finished network was {other} is trained again; it stays where it is"
    many = f"finished networks were {other} are trained again; they stay where they are"
    return [counted(count, one, many) % version for version, count in sorted(found.items())]


def lengths(study: Study, plan: Plan) -> list[str]:
    """Returns a line for each run whose limits in steps change its limits in epochs."""
    lines = []
    for run in study.runs:
        stages = (e.network for e in plan.entries if e.run == run.name and e.stage == "source")
        stage = next(s for s in stages if isinstance(s, TrainStage))
        length, asked = stage.fit.stopping, fits.length(run.train)
        if length != asked:
            steps = len(stage.train) // stage.fit.batch
            raised = length.max_epochs > asked.max_epochs
            epochs = f"{length.min_epochs} to {length.max_epochs}"
            if length.min_epochs == length.max_epochs:
                epochs = f"exactly {length.max_epochs}"
            lines.append(
                f"{run.name}: {steps} steps an epoch, so {epochs} epochs, patience "
                f"{length.patience} "
                f"({named('train.min_steps')}={run.train.min_steps}, "
                f"patience_steps={run.train.patience_steps}"
                + (f", which raise max_epochs={asked.max_epochs})" if raised else ")")
            )
    return lines


def summary(plan: Plan, folders: StageFolders) -> str:
    """Returns how many stages there are of each kind, and how many are finished."""
    finished: dict[str, list[bool]] = {kind: [] for kind in _KINDS}
    for stage in plan.stages():
        inner = "inner" in getattr(stage, "purpose", ())
        finished["inner" if inner else stage.kind].append(folders.finished(stage))
    lines = [
        f"{len(done)} {_KINDS[kind][len(done) > 1]} ({sum(done)} cached)"
        for kind, done in finished.items()
        if done
    ]
    return "stages: " + ", ".join(lines)
