"""All checks of all methods of one stage: `sanity` applied to a run's networks and scans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mri_jax.explanation import truth as truths
from mri_jax.explanation.collect import Collected
from mri_jax.explanation.methods import AttributionMethod
from mri_jax.explanation.sanity import (
    AREAS,
    Similarity,
    Verdict,
    cascade,
    judge_agreement,
    judge_cascade,
    judge_permuted,
    judge_truth,
    similarity,
)
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.explanation.setting import ExplanationSetting
from mri_jax.progress import Progress
from mri_jax.runs.trained import TrainedRun

# Scans of each class whose maps the randomisation checks compare.
_CHECKED_SCANS = 2


@dataclass(frozen=True)
class PermutedNetwork:
    """A network that learned permuted labels, for the checks.

    Attributes:
      network: The network.
      fold: Whose source network it is compared with.
      note: How far its training got.
    """

    network: ScoredNetwork
    fold: int
    note: str


class Reference(NamedTuple):
    """The network that is randomised, and the one that learned permuted labels.

    Attributes:
      trained: The network of the stage.
      permuted: Trained on permuted labels, on the same scans.
      note: How far its training got.
    """

    trained: ScoredNetwork
    permuted: ScoredNetwork
    note: str


@dataclass(frozen=True)
class Checked:
    """The checks of a stage.

    Attributes:
      stage: Its name.
      curves: For each method, the similarity after each randomised layer.
      verdicts: The verdict of every method and check.
    """

    stage: str
    curves: dict[str, list[tuple[str, Similarity]]]
    verdicts: list[Verdict]


def check_stage(
    stage: str,
    setting: ExplanationSetting,
    reference: Reference,
    volumes: Sequence[np.ndarray],
    collected: Collected,
    seed: int,
) -> Checked:
    """Randomise, compare and judge.

    Args:
      stage: Name.
      setting: Methods, truth.
      reference: The networks.
      volumes: A few volumes (X, Y, Z, 1) whose maps are compared.
      collected: The maps of all scans.
      seed: Seed of randomised layers and bootstrap.
    """
    random = list(cascade(reference.trained, seed, volumes[0].shape))
    curves: dict[str, list[tuple[str, Similarity]]] = {}
    verdicts: list[Verdict] = []
    total = len(setting.methods) * (len(random) + 2) * len(volumes)
    with Progress(total, "map", f"checks of {stage}", compiles=True) as progress:
        for method in setting.methods:
            name, units = method.name, collected.units[method.name]
            first, _ = _maps(method, reference.trained, volumes, setting, progress)
            steps, auc_random = [], float("nan")
            for layer, network in random:
                found, auc_random = _maps(method, network, volumes, setting, progress)
                steps.append((layer, similarity(first, found)))
            curves[name] = steps
            found, auc_permuted = _maps(method, reference.permuted, volumes, setting, progress)
            verdicts.append(judge_cascade(name, steps, units))
            permuted = similarity(first, found)
            verdicts.append(judge_permuted(name, permuted, units, reference.note))
            table = collected.scan_table()
            rows = table[(table["stage"] == stage) & (table["method"] == name)]
            verdicts.append(judge_agreement(name, rows["agreement"].tolist(), steps[-1][1], units))
            if setting.truth is not None:
                columns = {f"auc_{part}": part for part in AREAS}
                by_subject = rows.groupby("subject_id")[list(columns)].mean()
                measured = by_subject.rename(columns=columns).to_dict("records")
                others = {"randomised network": auc_random, "permuted labels": auc_permuted}
                verdicts.append(judge_truth(name, measured, others, seed))
    return Checked(stage, curves, verdicts)


def _maps(
    method: AttributionMethod,
    network: ScoredNetwork,
    volumes: Sequence[np.ndarray],
    setting: ExplanationSetting,
    progress: Progress,
) -> tuple[list[np.ndarray], float]:
    """Returns units of each volume's map, and the mean AUC of true voxels (NaN where unknown)."""
    units, areas = [], []
    for volume in volumes:
        explained = method.explain(network, volume)
        units.append(explained.units)
        if setting.truth is not None:
            areas.append(truths.aucs(explained.map, setting.truth)["voxels"])
        progress.advance()
    return units, float(np.mean(areas)) if areas else float("nan")


def _folds(scan: ExplainedScan) -> list[int]:
    return [member.fold for group in scan.members.values() for member in group]


def common_fold(scans: Sequence[ExplainedScan]) -> int:
    """Returns the fold whose networks may explain most of the scans; the first of equals."""
    folds = [fold for scan in scans for fold in _folds(scan)]
    return max(sorted(set(folds)), key=folds.count)


def check_run(
    run: TrainedRun,
    variant: str,
    setting: ExplanationSetting,
    controls: Sequence[PermutedNetwork],
    scans: Sequence[ExplainedScan],
    collected: Collected,
) -> list[Checked]:
    """Returns the checks of every stage, on a few scans of each class.

    Args:
      run: The run.
      variant: The network variant.
      setting: What holds for all maps.
      controls: The network of permuted labels of each architecture, all of one fold.
      scans: Those that were explained.
      collected: What their maps left behind.
    """
    fold = controls[0].fold
    may = [s for s in scans if fold in _folds(s)]
    chosen = [s for label in (0, 1) for s in [m for m in may if m.label == label][:_CHECKED_SCANS]]
    reader = run.reader(tuple(scan.key for scan in chosen))
    volumes = [reader.read(row) for row in range(len(chosen))]
    found = []
    for stage in setting.stages:
        read = run.ensemble(variant, stage)[fold].load()
        control = next(c for c in controls if c.network.network.spec == read.spec)
        trained = ScoredNetwork.of(read.spec, read.variables, control.network.network.forms)
        reference = Reference(trained, control.network, control.note)
        found.append(check_stage(stage, setting, reference, volumes, collected, seed=0))
    return found
