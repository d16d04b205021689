"""The results folder: what a finished plan says, in the files named by ``mri_jax.runs.results``."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files, sealed
from mri_jax.arrays import write_npz
from mri_jax.cohort import flow as flows
from mri_jax.errors import UserError
from mri_jax.evaluation import predictions as table
from mri_jax.evaluation.metrics import ensemble, metrics_table
from mri_jax.evaluation.variants import described
from mri_jax.planning.catalogue import UNKNOWN, Catalogue
from mri_jax.planning.plan import Answer, BaselineStage, Entry, Plan, TrainStage
from mri_jax.runs import results
from mri_jax.study.stages import StageFolders
from mri_jax.study.verdicts import Name, chance_of, judged, name_of

# What stands in a stage's note and not in its row of the plan, or there under its own name.
_INSIDE = ("kind", "fingerprint", "seen", "normalisation", *sealed.OWN)


def write_plan(
    workdir: epath.Path,
    plan: Plan,
    folders: StageFolders,
    remarks: Mapping[Name, Mapping[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """Writes ``plan.json`` and returns its rows: one an entry, with its stage and its faults.

    Args:
      workdir: The results folder.
      plan: The plan.
      folders: Where its stages are.
      remarks: From `mri_jax.study.verdicts`, once there are predictions.
    """
    rows = []
    for entry in plan.entries:
        stage = entry.network
        done = folders.finished(stage)
        note = _note(stage, folders) if done else {}
        if isinstance(stage, TrainStage):
            length = stage.fit.stopping
            note |= {"min_epochs": length.min_epochs, "max_epochs": length.max_epochs}
            note |= {"patience": length.patience if len(stage.validation) else None}
            note |= {"not_learnt": ""} | dict((remarks or {}).get(name_of(entry), {}))
            trained = stage.trained
            if trained is not None and judged(trained):
                note |= {"chance_loss": chance_of(trained)}
        rows.append(
            {
                "kind": stage.kind,
                "run": entry.run,
                "stage": entry.stage,
                "repeat": entry.repeat,
                "fold": entry.fold,
                **asdict(entry.variant),
                "fingerprint": stage.fingerprint,
                **results.written_path("folder", folders.folder(stage), workdir),
                "finished": done,
                **{k: v for k, v in note.items() if k not in _INSIDE},
            }
        )
    files.write_json(workdir / results.PLAN, {"stages": rows})
    return rows


def _note(stage: TrainStage | BaselineStage, folders: StageFolders) -> dict[str, Any]:
    """Returns what is known of a finished stage; of an adapted network with what led to it.

    Seconds and memory are those of everything that was done after the source network was trained.
    """
    if not isinstance(stage, TrainStage):
        return folders.note(stage)
    line = [s for s in (*stage.ancestors, stage) if s.kind != "source" or s is stage]
    notes = [folders.note(each) for each in line]
    merged = {name: value for note in notes for name, value in note.items()}
    merged["seconds"] = round(sum(float(note.get("seconds", 0)) for note in notes), 3)
    if peaks := [note["process_bytes"] for note in notes if "process_bytes" in note]:
        merged["process_bytes"] = max(peaks)
    return {"trainable_parameters": 0, **merged}


def write_cohort(workdir: epath.Path, plan: Plan, catalogue: Catalogue) -> None:
    """Write ``cohort.csv`` (the scans that were used, with their label) and ``flow.csv``."""
    labels: dict[int, int] = {}
    shown: set[int] = set()
    for stage in plan.stages():
        for examples in stage.examples:
            for row, label in zip(examples.rows, examples.labels, strict=True):
                if label == UNKNOWN:
                    shown.add(row)
                else:
                    labels[row] = label
    frame = catalogue.frame.iloc[sorted(labels)]
    used = frame.assign(label=[labels[row] for row in sorted(labels)])
    files.write_csv(workdir / results.COHORT, used.drop(columns="identity"))
    subjects = catalogue.frame["subject_id"]
    why = pd.Series("another diagnosis than the study's", index=subjects.unique())
    why[subjects.iloc[sorted(shown - labels.keys())].unique()] = (
        "no diagnosis: adapted on, not tested"
    )
    lost = flows.lost_between(catalogue.frame, used, why)
    flow = flows.extend(catalogue.flow, flows.ANALYSED, used, lost)
    files.write_csv(workdir / results.FLOW, flow)


def predictions_of(plan: Plan, catalogue: Catalogue, folders: StageFolders) -> pd.DataFrame:
    """Returns the predictions table of a finished plan; logits of failed networks are NaN."""
    read: dict[str, pd.DataFrame | None] = {}
    parts = []
    for entry in plan.entries:
        for answer in entry.answers:
            name = answer.stage.fingerprint
            if name not in read:
                failed = folders.failure(answer.stage)
                read[name] = None if failed else folders.logits(answer.stage)
            parts.append(_part(entry, answer, catalogue, read[name]))
    frame = described(
        pd.concat(parts, ignore_index=True), {entry.run: entry.variant for entry in plan.entries}
    )
    return table.validate(frame, results.PREDICTIONS)


def _part(
    entry: Entry, answer: Answer, catalogue: Catalogue, logits: pd.DataFrame | None
) -> pd.DataFrame:
    """Returns the rows of an answer; ``logits`` are those of its stage, None of a failed one."""
    keys = [catalogue.keys[row] for row in answer.examples.rows]
    try:
        values = (
            np.full((len(keys), 2), np.nan)
            if logits is None
            else logits.loc[keys, ["logit_0", "logit_1"]].to_numpy()
        )
    except KeyError as error:
        raise UserError(
            f"{answer.stage.kind}-{answer.stage.fingerprint[:16]}: its logits.csv lacks scans that "
            f"it was asked about ({error}); move the folder away to have it built again"
        ) from None
    cohorts = catalogue.frame["cohort"].to_numpy()
    return pd.DataFrame(
        {
            "run": entry.run,
            "stage": entry.stage,
            "repeat": answer.repeat,
            "fold": entry.fold,
            # The held-out fold of pooled cohorts is one validation set.
            "cohort": answer.cohort
            if answer.split == "validation"
            else [cohorts[row] for row in answer.examples.rows],
            "split": answer.split,
            "subject_id": [subject for subject, _ in keys],
            "session_id": [session for _, session in keys],
            "label": list(answer.examples.labels),
            "logit_0": values[:, 0],
            "logit_1": values[:, 1],
            "probability": table.probability_of(values),
        }
    )


def write_features(
    workdir: epath.Path, plan: Plan, catalogue: Catalogue, folders: StageFolders
) -> None:
    """Write ``features.npz`` where networks were asked for features: of each, and of its scans.

    ``RUN/STAGE/foldK/features`` is (N, F); ``RUN/foldK/cohort``, ``.../target`` (whether it is of
    the target), ``.../label`` and ``.../scan`` (``SUBJECT SESSION``) are (N,), the same for all
    stages of a fold.
    """
    arrays: dict[str, np.ndarray] = {}
    cohorts = catalogue.frame["cohort"].to_numpy()
    for entry in plan.entries:
        stage = entry.features
        if stage is None or folders.failure(stage):
            continue
        rows, fold = list(stage.tested.rows), f"fold{entry.fold}"
        arrays[f"{entry.run}/{entry.stage}/{fold}/features"] = folders.features(stage)
        of = ("adaptation", "test") if entry.variant.left_out else ("adaptation",)
        target = {answer.cohort for answer in entry.answers if answer.split in of}
        arrays[f"{entry.run}/{fold}/cohort"] = cohorts[rows].astype(str)
        arrays[f"{entry.run}/{fold}/target"] = np.isin(cohorts[rows].astype(str), list(target))
        arrays[f"{entry.run}/{fold}/label"] = np.array(stage.tested.labels)
        arrays[f"{entry.run}/{fold}/scan"] = np.array([" ".join(catalogue.keys[r]) for r in rows])
    if arrays:
        write_npz(workdir / results.FEATURES, arrays)


def write_scores(workdir: epath.Path, predictions: pd.DataFrame) -> pd.DataFrame:
    """Write ``predictions.csv`` and ``metrics.csv`` (folds and ensembles); returns the latter."""
    metrics = metrics_table(pd.concat([predictions, ensemble(predictions)], ignore_index=True))
    files.write_csv(workdir / results.METRICS, metrics)
    files.write_csv(workdir / results.PREDICTIONS, predictions)
    return metrics
