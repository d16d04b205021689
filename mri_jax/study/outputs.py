"""The results folder: what a finished plan says, in the files named by ``mri_jax.runs.results``."""

import io
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from etils import epath

import mri_jax
from mri_jax import files, sealed
from mri_jax.cohort import flow as flows
from mri_jax.errors import UserError
from mri_jax.evaluation import predictions as table
from mri_jax.evaluation.metrics import ensemble, metrics_table
from mri_jax.evaluation.variants import described
from mri_jax.filenames import safe_name
from mri_jax.models import CNN, CNNSpec
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.plan import Answer, Entry, Plan, TrainStage
from mri_jax.runs import results
from mri_jax.settings.study import Study
from mri_jax.study import events
from mri_jax.study.feeds import Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.study.verdicts import Name, chance_of, name_of
from mri_jax.training.checkpoints import load_params
from mri_jax.volumes.store import VolumeStore

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")
# What stands in a stage's note and not in its row of the plan, or there under its own name.
_INSIDE = ("kind", "fingerprint", "seen", "normalisation", *sealed.OWN)
# How many differing fields a message names.
_SHOWN = 4


def write_config(workdir: epath.Path, study: Study) -> None:
    """Writes ``config.json``."""
    study.write(workdir / results.CONFIG)


def check_config(workdir: epath.Path, study: Study) -> None:
    """Check that ``config.json``, where a study has begun, is the same.

    Raises:
      UserError: The work directory holds another study (the differing fields are named), or a
        store or a model, among whose files results would be lost.
    """
    for name, kind in (("store.json", "a store of volumes"), ("model.json", "an exported model")):
        if (workdir / name).exists():
            raise UserError(f"--workdir: {workdir} is {kind}; choose another folder for results")
    # A config without a plan was written by versions that wrote it before they checked the plan.
    if not (workdir / results.CONFIG).exists() or not (workdir / results.PLAN).exists():
        return
    differ = Study.read(workdir / results.CONFIG).unlike(study)
    if differ:
        shown = "; ".join(
            f"{name} is {_shown(there)}, not {_shown(here)}"
            for name, (there, here) in list(differ.items())[:_SHOWN]
        )
        if len(differ) > _SHOWN:
            shown += f"; and {len(differ) - _SHOWN} more fields"
        raise UserError(
            f"{workdir}: is the work directory of another config: {shown}; choose another "
            "--workdir (finished stages are found all the same)"
        )


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)


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
        note = folders.note(stage) if done else {}
        if isinstance(stage, TrainStage):
            length = stage.fit.stopping
            note |= {"min_epochs": length.min_epochs, "max_epochs": length.max_epochs}
            note |= {"patience": length.patience if len(stage.validation) else None}
            note |= {"not_learnt": ""} | dict((remarks or {}).get(name_of(entry), {}))
            note |= {"chance_loss": chance_of(stage)} if stage.kind == "source" else {}
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


def write_provenance(workdir: epath.Path, catalogue: Catalogue, store: VolumeStore) -> None:
    """Write ``provenance.json``: what made the results, for the record."""
    devices = jax.local_devices()
    files.write_json(
        workdir / results.PROVENANCE,
        {
            "simulated": catalogue.simulated,
            "mri_jax": mri_jax.__version__,
            "git_commit": commit_of(Path(mri_jax.__file__).resolve().parent),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {name: _version(name) for name in _PACKAGES},
            "devices": [f"{d.platform}:{d.device_kind}" for d in devices],
            "command": sys.argv,
            "near_duplicates": asdict(catalogue.searched) if catalogue.searched else None,
            **results.written_path("store", store.path, workdir),
            "store_fingerprint": store.info.fingerprint,
            "preprocessing": _preprocessing(catalogue, store),
            "data_fingerprint": files.fingerprint(
                catalogue.frame[["subject_id", "session_id", "identity"]].to_numpy().tolist()
            ),
        },
    )


def _preprocessing(catalogue: Catalogue, store: VolumeStore) -> dict[str, Any]:
    """How the scans came to be volumes: the store's settings, and of how many scans each step."""
    index = store.index.loc[list(catalogue.keys)]
    steps = [name for name in ("inhomogeneity", "brain", "registration") if name in index.columns]
    return {
        "shape": list(store.info.grid.shape),
        "spacing": store.info.grid.spacing,
        "dtype": store.info.dtype,
        "settings": dict(store.info.settings),
        # "none (detected)" is "none": what was done counts, not how it was found out.
        "scans": {
            name: dict(Counter(str(value).partition(" ")[0] for value in index[name]))
            for name in steps
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit_of(package: Path) -> str | None:
    """Returns the commit of the git checkout that a package is run from, ``-dirty`` with changes.

    Args:
      package: The package's folder, at the top of its checkout.

    Returns:
      None where it is not in a checkout of its own: an installed package often lies inside the
      checkout of something else.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package.parent), *arguments]
        done = subprocess.run(
            command, env=own, capture_output=True, timeout=10, check=True, encoding="utf-8"
        )
        return done.stdout.strip()

    try:
        if not Path(git("rev-parse", "--show-toplevel")).samefile(package.parent):
            return None
        git("ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def write_cohort(workdir: epath.Path, plan: Plan, catalogue: Catalogue) -> None:
    """Write ``cohort.csv`` (the scans that were used, with their label) and ``flow.csv``."""
    labels = {
        row: label
        for stage in plan.stages()
        for e in stage.examples
        for row, label in zip(e.rows, e.labels, strict=True)
    }
    frame = catalogue.frame.iloc[sorted(labels)]
    used = frame.assign(label=[labels[row] for row in sorted(labels)])
    files.write_csv(workdir / results.COHORT, used.drop(columns="identity"))
    lost = flows.lost_between(catalogue.frame, used, "another diagnosis than the study's")
    flow = flows.extend(catalogue.flow, flows.ANALYSED, used, lost)
    files.write_csv(workdir / results.FLOW, flow)


def predictions_of(plan: Plan, catalogue: Catalogue, folders: StageFolders) -> pd.DataFrame:
    """The predictions table of a finished plan; logits of failed networks are NaN."""
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
    """The rows of an answer; ``logits`` are those of its stage, None of a failed one."""
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


def write_history(workdir: epath.Path, plan: Plan, folders: StageFolders) -> None:
    """Write ``metrics.jsonl`` and the TensorBoard events anew from the stages' histories."""
    lines = []
    for entry in plan.entries:
        if not isinstance(entry.network, TrainStage):
            continue
        names = entry_names(entry)
        for row in files.read_json(folders.folder(entry.network) / "history.json"):
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
    """The columns that name an entry."""
    return {
        "run": entry.run,
        "stage": entry.stage,
        "repeat": entry.repeat,
        "fold": entry.fold,
    }


def write_first_layer(
    workdir: epath.Path, plan: Plan, volumes: Volumes, folders: StageFolders
) -> None:
    """Write ``filters.npz`` and ``feature_maps.npz``: conv1 of every network, and on one scan.

    Networks whose training failed are not among them.
    """
    entries = [
        e
        for e in plan.entries
        if isinstance(e.network, TrainStage) and e.repeat == 0 and not folders.failure(e.network)
    ]
    if not entries:
        return
    tested = [a for a in entries[0].answers if a.split == "test"]
    scan = (tested or list(entries[0].answers))[0].examples.rows[0]
    filters: dict[str, np.ndarray] = {}
    maps: dict[str, np.ndarray] = {"scan": np.array(" ".join(volumes.catalogue.keys[scan]))}
    for entry in entries:
        name = f"{entry.run}/{entry.stage}/fold{entry.fold}/conv1"
        network = load_params(folders.folder(entry.network))
        filters[name] = np.asarray(network.params["conv1"]["kernel"])
        if entry.fold == 0:
            volume = volumes.reader(entry.network.reference).read(scan)[None]
            maps[name] = first_feature_map(network.spec, network.variables, volume)
    _write_npz(workdir / results.FILTERS, filters)
    _write_npz(workdir / results.FEATURE_MAPS, maps)


def first_feature_map(spec: CNNSpec, variables: dict[str, Any], volume: np.ndarray) -> np.ndarray:
    """(X, Y, Z, F) of conv1 after BatchNorm and ReLU, for one volume (1, X, Y, Z, C)."""

    @jax.jit
    def feature_map(variables: Any, x: jax.Array) -> jax.Array:
        # Everything after the first layer is unused, and XLA leaves it out.
        _, kept = CNN(spec).apply(variables, x, train=False, intermediates=True)
        return kept["conv1/feature_map"]

    return np.asarray(feature_map(variables, volume), np.float32)[0]


def _write_npz(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def write_scores(workdir: epath.Path, predictions: pd.DataFrame) -> pd.DataFrame:
    """Write ``predictions.csv`` and ``metrics.csv`` (folds and ensembles); returns the latter."""
    metrics = metrics_table(pd.concat([predictions, ensemble(predictions)], ignore_index=True))
    files.write_csv(workdir / results.METRICS, metrics)
    files.write_csv(workdir / results.PREDICTIONS, predictions)
    return metrics
