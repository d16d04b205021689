"""Who may be explained by whom: a scan only by networks that have it as a test subject."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.runs.trained import SOURCE, Member, TrainedRun
from mri_jax.seeding import generator
from mri_jax.volumes.store import KEY
from mri_jax.volumes.stream import Key

# Splits of the predictions table in which no network was trained on the scan; what others were
# fine-tuned on is unseen by a source network too.
_ALLOWED = ("test", "validation")


@dataclass(frozen=True)
class ExplainedScan:
    """A scan to explain.

    Attributes:
      key: (subject_id, session_id).
      cohort: Its cohort.
      label: 1 for the positive diagnosis.
      members: For each stage, the networks that may explain it, by fold.
    """

    key: Key
    cohort: str
    label: int
    members: dict[str, tuple[Member, ...]]


@dataclass(frozen=True)
class ScanChoice:
    """Which scans are asked for.

    Attributes:
      cohort: Name of the cohort.
      subjects: Only these; empty takes `per_class` of each class, drawn by the seed.
      per_class: How many subjects; 0 takes all.
      seed: Seed of the draw.
    """

    cohort: str
    subjects: tuple[str, ...] = ()
    per_class: int = 0
    seed: int = 0


def select_scans(
    run: TrainedRun, variant: str, stages: Sequence[str], choice: ScanChoice
) -> list[ExplainedScan]:
    """Returns the scans that are asked for and that every stage may explain.

    A scan of a target cohort is explained by all five networks, unless it was fine-tuned on (then
    by none of any stage, so that stages are compared on the same scans); a scan of the source
    cohort by the one network whose fold it was held out from (it chose that network's epoch).

    Args:
      run: The run.
      variant: Network variant.
      stages: ``source`` and tuned ones; the first repeat of each.
      choice: Which scans.

    Raises:
      UserError: The cohort or a subject is not there, or was trained on.
    """
    cohort = choice.cohort
    networks = {(s, m.fold): m for s in stages for m in run.ensemble(variant, s)}
    rows = _rows(run, variant, stages)
    _check_cohort(run, rows, cohort, variant)
    rows = rows[rows["cohort"] == cohort]
    unseen = (rows["split"] == "adaptation") & (rows["stage"] == SOURCE)
    allowed = rows[rows["split"].isin(_ALLOWED) | unseen]
    complete = allowed.groupby(KEY)["stage"].transform("nunique") == len(stages)
    allowed = allowed[complete]
    if allowed.empty:
        raise UserError(f"cohort: {cohort!r} has no scan that networks of {variant} may explain")
    _check_subjects(choice.subjects, allowed, rows, cohort)
    wanted = set(choice.subjects) or _drawn(allowed, choice)
    chosen = allowed[allowed["subject_id"].isin(wanted)]
    scans = []
    for key, group in chosen.groupby(KEY):
        folds = {s: sorted(group.loc[group["stage"] == s, "fold"]) for s in stages}
        absent = [f"{s} fold {f}" for s in stages for f in folds[s] if (s, f) not in networks]
        if absent:
            raise UserError(f"{run.results.path}: network {absent[0]} has no checkpoint")
        members = {s: tuple(networks[s, f] for f in folds[s]) for s in stages}
        scans.append(ExplainedScan((key[0], key[1]), cohort, int(group["label"].iloc[0]), members))
    return scans


def classes_of(run: TrainedRun, variant: str, cohort: str) -> tuple[str, str]:
    """Diagnoses of label 0 and 1 among a cohort's scans.

    They are other ones than the networks learned where these were trained on a related task.

    Raises:
      UserError: A label stands for several diagnoses.
    """
    rows = _rows(run, variant, (SOURCE,))
    rows = rows[rows["cohort"] == cohort]
    learned = run.diagnoses(variant)
    names = []
    for label in (0, 1):
        found = sorted(set(rows.loc[rows["label"] == label, "diagnosis"]))
        if len(found) > 1:
            raise UserError(f"cohort: label {label} of {cohort!r} stands for {', '.join(found)}")
        names.append(found[0] if found else learned[label])
    return names[0], names[1]


def _rows(run: TrainedRun, variant: str, stages: Sequence[str]) -> pd.DataFrame:
    """Predictions of the chosen networks, each with the scan's own cohort and diagnosis."""
    table = run.results.predictions
    rows = table[
        (table["run"] == variant) & table["stage"].isin(list(stages)) & (table["repeat"] == 0)
    ]
    own = run.results.cohort
    columns = [*KEY, "cohort", "diagnosis"]
    if not set(columns) <= set(own.columns):
        raise UserError(f"{run.results.path}: holds no cohort.csv with {', '.join(columns)}")
    return rows.drop(columns="cohort").merge(own[columns], on=KEY)


def _check_cohort(run: TrainedRun, rows: pd.DataFrame, cohort: str, variant: str) -> None:
    there = sorted(set(rows["cohort"]))
    if cohort not in there:
        raise UserError(
            f"cohort: {cohort!r} is not one that {variant} was tested on; choose one of "
            f"{', '.join(there)}"
        )


def _check_subjects(
    subjects: Sequence[str], allowed: pd.DataFrame, rows: pd.DataFrame, cohort: str
) -> None:
    for subject in subjects:
        if (allowed["subject_id"] == subject).any():
            continue
        if (rows["subject_id"] == subject).any():
            raise UserError(
                f"subject: {subject} was fine-tuned on, so it is no test subject of all the "
                f"networks; name another of {cohort}, or --stage {SOURCE}"
            )
        raise UserError(f"subject: {subject} is not among the scans of {cohort}")


def _drawn(allowed: pd.DataFrame, choice: ScanChoice) -> set[str]:
    chosen: set[str] = set()
    for label in (0, 1):
        found = np.array(sorted(set(allowed.loc[allowed["label"] == label, "subject_id"])))
        order = generator(choice.seed, "explain", choice.cohort, label).permutation(len(found))
        chosen |= set(found[order[: choice.per_class or None]].tolist())
    return chosen


def scans_of(run: TrainedRun, cohort: str) -> tuple[Key, ...]:
    """Returns every scan of a cohort that the run used.

    Raises:
      UserError: The run used none.
    """
    table = run.results.cohort
    if "cohort" not in table or not (table["cohort"] == cohort).any():
        raise UserError(f"cohort: {cohort!r} is not in the run's cohort.csv")
    rows = table.loc[table["cohort"] == cohort, KEY]
    return tuple(zip(rows[KEY[0]], rows[KEY[1]], strict=True))


def load_networks(scans: Sequence[ExplainedScan], forms: str | None) -> dict[Member, ScoredNetwork]:
    """Returns every network that explains one of the scans, computed by some forms."""
    members = dict.fromkeys(m for scan in scans for group in scan.members.values() for m in group)
    read = {member: member.load() for member in members}
    return {m: ScoredNetwork.of(r.spec, r.variables, forms) for m, r in read.items()}
