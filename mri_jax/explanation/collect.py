"""The maps: every scan, stage and method, averaged over the networks that may explain the scan."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mri_jax.explanation import truth as truths
from mri_jax.explanation.methods import AttributionMethod, Explained
from mri_jax.explanation.sanity import pairwise
from mri_jax.explanation.score import ScoredNetwork, scores
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.explanation.setting import ExplanationSetting
from mri_jax.explanation.statistics import region_rows
from mri_jax.filenames import safe_name
from mri_jax.progress import Progress
from mri_jax.volumes.store import scan_name
from mri_jax.volumes.stream import Reader

GroupKey = tuple[str, str, int]


@dataclass
class Collected:
    """What the maps of all scans left behind.

    Attributes:
      sums: For each (stage, method, label), the sum of the scans' maps, (X, Y, Z) float32.
      counts: How many scans stand behind each of them.
      scans: A row a (stage, method, scan).
      regions: A row a (stage, method, scan, region).
      seconds: For each method, the seconds of each map of one network, compilation excluded.
      units: For each method, how many values of a map can vary on their own.
    """

    sums: dict[GroupKey, np.ndarray] = field(default_factory=dict)
    counts: dict[GroupKey, int] = field(default_factory=dict)
    scans: list[dict[str, Any]] = field(default_factory=list)
    regions: list[pd.DataFrame] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)

    def mean(self, stage: str, method: str, label: int) -> np.ndarray | None:
        """Returns the mean map of a class, (X, Y, Z); None where it has no scan."""
        key = (stage, method, label)
        return self.sums[key] / self.counts[key] if key in self.sums else None

    def scan_table(self) -> pd.DataFrame:
        """Returns ``scans`` as a table."""
        return pd.DataFrame(self.scans)

    def region_table(self) -> pd.DataFrame:
        """Returns ``regions`` as a table."""
        return pd.concat(self.regions, ignore_index=True)


@dataclass(frozen=True, eq=False)
class _Explanation:
    """What the networks of a stage and a method say about a scan."""

    scan: ExplainedScan
    stage: str
    method: str
    score: float
    parts: list[Explained]


def collect(
    setting: ExplanationSetting,
    scans: Sequence[ExplainedScan],
    reader: Reader,
    write: Callable[[str, np.ndarray, str], object],
    threads: int,
) -> Collected:
    """Explain every scan and write a map for each (stage, method, scan).

    Args:
      setting: What holds for all.
      scans: In the reader's order.
      reader: Their volumes, normalised.
      write: Writes a map (X, Y, Z) under ``maps/STAGE/METHOD/COHORT/SUBJECT_SESSION.nii.gz``, with
        words for its header.
      threads: That read volumes ahead.
    """
    found = Collected()
    total = sum(len(group) for scan in scans for group in scan.members.values())
    volumes = reader.stream(range(len(scans)), threads, prefetch=2)
    with Progress(total * len(setting.methods), "map", "explain", compiles=True) as progress:
        for scan, volume in zip(scans, volumes, strict=True):
            for stage in setting.stages:
                members = scan.members[stage]
                asked = [setting.networks[member] for member in members]
                score = float(np.mean([np.asarray(scores(*n, volume[None]))[0] for n in asked]))
                for method in setting.methods:
                    explained = _timed(method, asked, volume, found, progress)
                    made = _Explanation(scan, stage, method.name, score, explained)
                    _keep(setting, found, made, write)
    return found


def _timed(
    method: AttributionMethod,
    networks: Sequence[ScoredNetwork],
    volume: np.ndarray,
    found: Collected,
    progress: Progress,
) -> list[Explained]:
    if method.name not in found.seconds:
        # Compiles.
        found.units[method.name] = len(method.explain(networks[0], volume).units)
    explained = []
    for network in networks:
        started = time.perf_counter()
        explained.append(method.explain(network, volume))
        found.seconds.setdefault(method.name, []).append(time.perf_counter() - started)
        progress.advance(1, method=method.name)
    return explained


def _keep(
    setting: ExplanationSetting,
    found: Collected,
    made: _Explanation,
    write: Callable[[str, np.ndarray, str], object],
) -> None:
    scan, stage, method, explained = made.scan, made.stage, made.method, made.parts
    values = np.stack([each.map for each in explained]).mean(0, dtype=np.float32)
    key = (stage, method, scan.label)
    found.sums[key] = found.sums[key] + values if key in found.sums else values
    found.counts[key] = found.counts.get(key, 0) + 1
    name = f"maps/{safe_name(stage)}/{method}/{scan_name(scan.cohort, *scan.key)}.nii.gz"
    write(name, values, f"{method} {stage}, logits")
    row = {
        "stage": stage,
        "method": method,
        "subject_id": scan.key[0],
        "session_id": scan.key[1],
        "cohort": scan.cohort,
        "diagnosis": setting.classes[scan.label],
        "networks": len(explained),
        "score": made.score,
        **_completeness(explained),
        "agreement": pairwise([e.units for e in explained]) if setting.check else np.nan,
        "file": name,
    }
    if setting.truth is not None:
        measured = truths.aucs(values, setting.truth)
        row |= {f"auc_{part}": value for part, value in measured.items()}
    found.scans.append(row)
    regions = region_rows(values, setting.regions, setting.background.brain)
    same = ("stage", "method", "subject_id", "session_id", "cohort", "diagnosis")
    for place, column in enumerate(same):
        regions.insert(place, column, row[column])
    found.regions.append(regions)


def _completeness(explained: list[Explained]) -> dict[str, float]:
    """Returns the mean absolute completeness error, and its share of what is explained."""
    errors = np.array([each.error for each in explained])
    wanted = np.array([each.map.sum(dtype=np.float64) for each in explained]) - errors
    return {
        "completeness_error": float(np.abs(errors).mean()),
        "completeness_share": float(np.abs(errors).mean() / max(np.abs(wanted).mean(), 1e-12)),
    }
