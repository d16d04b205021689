"""Plans of many kinds, and what is recorded of their fingerprints.

The configs are kept beside the fingerprints, so that presets may change. To record a new case, add
it to `CASES` and run ``python -m tests.planning.recorded NAME``; a case that is there is never
recorded again, because whoever trained its networks would lose them. Where `NUMERICS_VERSION` is
raised, every case is recorded under the new number beside the older ones, of which the trainings
are kept: a study tells by them what is trained again.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from configs import base
from mri_jax import files
from mri_jax.planning import simulated
from mri_jax.planning.catalogue import Catalogue, catalogue_of
from mri_jax.planning.fingerprints import earlier_names
from mri_jax.planning.plan import TrainStage
from mri_jax.planning.planner import make_plan
from mri_jax.settings.study import Study, merged
from mri_jax.training.step import NUMERICS_VERSION
from mri_jax.volumes.grids import GRIDS

PATH = Path(__file__).with_name("recorded_fingerprints.json")
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "finetune_high demo": ("finetune_high", "demo", {}),
    "finetune_high dev": ("finetune_high", "dev", {}),
    "finetune_high paper": ("finetune_high", "paper", {}),
    "finetune_high smoke": ("finetune_high", "smoke", {}),
    "finetune_layers smoke": ("finetune_layers", "smoke", {}),
    "depth smoke": ("depth", "smoke", {}),
    "width smoke": ("width", "smoke", {}),
    "task_transfer smoke": ("task_transfer", "smoke", {}),
    "paper smoke": ("paper", "smoke", {}),
    "training histograms": (
        "finetune_high",
        "smoke",
        {"data": {"normalisation": "histogram", "histogram_reference": "training"}},
    ),
    "class weights, smoothing, clipping, decay": (
        "baseline",
        "smoke",
        {
            "train": {
                "class_weights": "balanced",
                "label_smoothing": 0.1,
                "clip_norm": 1.0,
                "weight_decay": 1e-4,
            }
        },
    ),
    "augmentation": (
        "baseline",
        "smoke",
        {"augment": {"flip": True, "shift": 1, "intensity": 0.1, "noise": 0.05}},
    ),
    "inner stopping, own store": (
        "finetune_high",
        "smoke",
        {
            "data": {"cohort": "cohort.csv", "store": "store", "background": -1.0},
            "finetune": {"stopping": "inner", "repeats": 2, "inner_folds": 0},
        },
    ),
}


def fingerprints(config: dict[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """By version of the numerics, of each kind of stage: count, first fingerprint, digest of all.

    Of earlier versions these are the trainings alone.
    """
    # Fields that came later have the values of preset `paper`, at which results are as before.
    study = Study.written(merged(base.get_config("paper").to_dict(), _tuples(config)))
    simulates = study.data.simulated
    catalogue = simulated.catalogue_to_make(study) if simulates else _listed(study)
    found: dict[str, dict[str, list[str]]] = {}
    for stage in make_plan(study, catalogue).stages():
        named = {NUMERICS_VERSION: stage}
        if isinstance(stage, TrainStage):
            named |= earlier_names(stage, study, catalogue)
        for version, each in named.items():
            of_kind = found.setdefault(str(version), {}).setdefault(each.kind, [])
            of_kind.append(each.fingerprint)
    return {
        version: {kind: [len(n), n[0], files.fingerprint(n)] for kind, n in kinds.items()}
        for version, kinds in found.items()
    }


def _listed(study: Study) -> Catalogue:
    """A user's table of 40 scans a class and cohort, the volumes' digests made up."""
    rows = [
        {
            "subject_id": f"{cohort}-{i:03d}",
            "session_id": "bl",
            "cohort": cohort,
            "diagnosis": ("AD", "CN")[i % 2],
            "age": 60.0 + (i * 7) % 30,
            "sex": "FM"[(i // 2) % 2],
            "image": "",
        }
        for cohort in study.cohorts
        for i in range(80)
    ]
    identities = {(row["subject_id"], "bl"): files.fingerprint(row["subject_id"]) for row in rows}
    return catalogue_of(pd.DataFrame(rows), identities, study, GRIDS["demo"])


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _record(names: list[str]) -> None:
    there = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    for name in names:
        module, preset, changes = CASES[name]
        config = importlib.import_module(f"configs.{module}").get_config(preset).to_dict()
        config = json.loads(json.dumps(merged(config, changes)))
        case = there.setdefault(name, {"config": config, "fingerprints": {}})
        now = str(NUMERICS_VERSION)
        found = fingerprints(case["config"])
        for version, kinds in case["fingerprints"].items():
            case["fingerprints"][version] = {kind: kinds[kind] for kind in found[version]}
        case["fingerprints"].setdefault(now, found[now])
    PATH.write_text(json.dumps(there, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _record(sys.argv[1:] or list(CASES))
