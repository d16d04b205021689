"""What is said of a training that failed or taught hardly anything: in log and ``plan.json``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mri_jax.evaluation import learning
from mri_jax.evaluation.families import SOURCE
from mri_jax.planning.plan import BaselineStage, Entry, Plan, TrainStage
from mri_jax.study.stages import StageFolders


def of_training(stage: TrainStage, note: Mapping[str, Any]) -> str:
    """Returns what a finished training's own losses say; empty where nothing is wrong.

    Args:
      stage: The training.
      note: What `StageFolders.note` keeps of it.
    """
    if note.get("failed"):
        return f"{learning.FAILED}: {note['failed']}; it is neither tuned nor scored"
    reason = _hardly(stage, note)
    return f"{learning.HARDLY}: {reason}" if reason else ""


def judged(stage: TrainStage) -> bool:
    """Returns whether a training's losses say what it learnt: from scratch, with scans held out."""
    return stage.parent is None and len(stage.validation) > 0


def _hardly(stage: TrainStage, note: Mapping[str, Any]) -> str:
    loss = note.get("best_validation_loss")
    if not judged(stage) or loss is None:
        return ""
    return learning.hardly(float(loss), chance_of(stage))


def chance_of(stage: TrainStage) -> float:
    """Returns the held-out loss of a network that knows nothing of the scans, in nats."""
    return learning.chance_loss(np.array(stage.validation.labels), _balanced(stage))


def _balanced(stage: TrainStage) -> bool:
    return stage.class_weights == "balanced"


def _descends(network: TrainStage | BaselineStage) -> bool:
    """Returns whether a source network is among a network's ancestors."""
    return isinstance(network, TrainStage) and any(s.kind == "source" for s in network.ancestors)


Name = tuple[str, str, int, int]


def name_of(entry: Entry) -> Name:
    """Run, stage, repeat and fold: what names a network in a results folder."""
    return entry.run, entry.stage, entry.repeat, entry.fold


def remarks(
    plan: Plan, folders: StageFolders, predictions: pd.DataFrame
) -> dict[Name, dict[str, str]]:
    """Returns why networks of a finished plan are ``failed`` or ``not_learnt``, by name.

    A network that descends from a source network is named where that is. One that a method trains
    from scratch is judged by its own training, before statistics of the target. Nothing is said of
    the others.
    """
    networks = [e for e in plan.entries if isinstance(e.network, TrainStage)]
    balanced = {e.run: _balanced(e.network) for e in networks if isinstance(e.network, TrainStage)}
    unlearnt = {
        (row["run"], row["fold"]): row["reason"]
        for row in learning.unlearnt(predictions, balanced).to_dict("records")
    }
    found = {}
    for entry in networks:
        failed = folders.failure(entry.network)
        reason = unlearnt.get((entry.run, entry.fold))
        if failed:
            found[name_of(entry)] = {"failed": failed}
            continue
        if entry.stage != SOURCE:
            reason = f"it {learning.INHERITED}" if reason and _descends(entry.network) else ""
            trained = entry.network.trained if isinstance(entry.network, TrainStage) else None
            if trained is not None and judged(trained):
                reason = _hardly(trained, folders.note(trained))
        if reason:
            found[name_of(entry)] = {"not_learnt": reason}
    return found
