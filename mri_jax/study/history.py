"""A row an epoch of every network: ``metrics.jsonl``, and curves for TensorBoard."""

import json
from collections.abc import Callable
from typing import Any

from etils import epath

from mri_jax import files
from mri_jax.filenames import safe_name
from mri_jax.planning.plan import Entry, Plan, TrainStage
from mri_jax.runs import results
from mri_jax.study import events
from mri_jax.study.stages import StageFolders


def write_history(workdir: epath.Path, plan: Plan, folders: StageFolders) -> None:
    """Write ``metrics.jsonl`` and the TensorBoard events anew from the stages' histories."""
    lines = []
    for entry in plan.entries:
        if not isinstance(entry.network, TrainStage):
            continue
        trained, names = entry.network.trained, entry_names(entry)
        for row in folders.history(trained) if trained else ():
            lines.append({**names, **row})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    files.write_text(workdir / results.HISTORY, text)
    if not files.on_bucket(workdir):
        _write_events(workdir / "events", lines)


def _write_events(folder: epath.Path, lines: list[dict[str, Any]]) -> None:
    if folder.exists():
        folder.rmtree()
    networks: dict[epath.Path, list[dict[str, Any]]] = {}
    for line in lines:
        run, stage = (safe_name(line[name], keep="_") for name in ("run", "stage"))
        place = folder / run / stage / f"repeat{line['repeat']}-fold{line['fold']}"
        networks.setdefault(place, []).append(line)
    for place, rows in networks.items():
        content = events.event_file(rows, ("train_loss", "validation_loss"))
        files.write_bytes(place / events.NAME, content)


def entry_names(entry: Entry) -> dict[str, Any]:
    """Returns the columns that name an entry."""
    return {
        "run": entry.run,
        "stage": entry.stage,
        "repeat": entry.repeat,
        "fold": entry.fold,
    }


def epoch_writer(workdir: epath.Path, plan: Plan) -> Callable[[TrainStage, dict[str, Any]], None]:
    """Returns what appends a line an epoch to ``metrics.jsonl``, which `write_history` writes anew.

    Buckets cannot append: there the file is written at the end alone.
    """
    if files.on_bucket(workdir):
        return lambda stage, figures: None
    names: dict[str, dict[str, Any]] = {}
    for entry in plan.entries:
        trained = entry.network.trained if isinstance(entry.network, TrainStage) else None
        if trained:
            names.setdefault(trained.fingerprint, entry_names(entry))
    path = workdir / results.HISTORY

    def write(stage: TrainStage, figures: dict[str, Any]) -> None:
        if stage.fingerprint not in names:  # an inner fold of a tuning
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**names[stage.fingerprint], **figures}) + "\n")

    return write
