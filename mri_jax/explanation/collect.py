"""The maps: every scan, stage and method, averaged over the networks that may explain the scan."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.explanation import truth as truths
from mri_jax.explanation.methods import AttributionMethod, Background, Explained
from mri_jax.explanation.regions import Regions
from mri_jax.explanation.sanity import pairwise
from mri_jax.explanation.score import ScoredNetwork, scores
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.explanation.statistics import region_rows
from mri_jax.explanation.truth import Truth
from mri_jax.filenames import safe_name
from mri_jax.progress import Progress
from mri_jax.runs.trained import Member
from mri_jax.showing.simulated import prefixed
from mri_jax.volumes.export import nifti_bytes
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
        """The mean map of a class, (X, Y, Z); None where it has no scan."""
        key = (stage, method, label)
        return self.sums[key] / self.counts[key] if key in self.sums else None

    def scan_table(self) -> pd.DataFrame:
        """``scans`` as a table."""
        return pd.DataFrame(self.scans)

    def region_table(self) -> pd.DataFrame:
        """``regions`` as a table."""
        return pd.concat(self.regions, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Setting:
    """What holds for all maps of one call.

    Attributes:
      stages: Names of the stages.
      networks: Every network that explains a scan.
      methods: The methods.
      background: What the scans are set against.
      regions: On the grid of the volumes.
      truth: Where disease acts, on simulated cohorts that are checked; else None.
      check: Whether to measure how the networks agree.
      classes: Diagnoses of the scans with label 0 and 1.
      learned: Diagnoses of label 0 and 1 that the source networks learned.
      simulated: Whether the scans are.
    """

    stages: tuple[str, ...]
    networks: dict[Member, ScoredNetwork]
    methods: Sequence[AttributionMethod]
    background: Background
    regions: Regions
    truth: Truth | None
    check: bool
    classes: tuple[str, str]
    learned: tuple[str, str]
    simulated: bool


def load_networks(scans: Sequence[ExplainedScan]) -> dict[Member, ScoredNetwork]:
    """Every network that explains one of the scans."""
    members = dict.fromkeys(m for scan in scans for group in scan.members.values() for m in group)
    networks = {}
    for member in members:
        read = member.load()
        networks[member] = ScoredNetwork(read.spec, read.variables)
    return networks


def collect(
    setting: Setting, scans: Sequence[ExplainedScan], reader: Reader, out: epath.Path, threads: int
) -> Collected:
    """Explain every scan and write a NIfTI for each (stage, method, scan).

    Args:
      setting: What holds for all.
      scans: In the reader's order.
      reader: Their volumes, normalised.
      out: Folder of the maps: ``out/STAGE/METHOD/COHORT/SUBJECT_SESSION.nii.gz``.
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
                    _keep(setting, found, scan, stage, method.name, explained, score, out, reader)
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
    setting: Setting,
    found: Collected,
    scan: ExplainedScan,
    stage: str,
    method: str,
    explained: list[Explained],
    score: float,
    out: epath.Path,
    reader: Reader,
) -> None:
    values = np.stack([each.map for each in explained]).mean(0, dtype=np.float32)
    key = (stage, method, scan.label)
    found.sums[key] = found.sums[key] + values if key in found.sums else values
    found.counts[key] = found.counts.get(key, 0) + 1
    name = f"maps/{safe_name(stage)}/{method}/{scan_name(scan.cohort, *scan.key)}.nii.gz"
    words = prefixed(f"{method} {stage}, logits", setting.simulated)
    files.write_bytes(out / name, nifti_bytes(values, reader.store.info.grid, words))
    row = {
        "stage": stage,
        "method": method,
        "subject_id": scan.key[0],
        "session_id": scan.key[1],
        "cohort": scan.cohort,
        "diagnosis": setting.classes[scan.label],
        "networks": len(explained),
        "score": score,
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
    """Mean absolute completeness error over the networks, and as a share of what is explained."""
    errors = np.array([each.error for each in explained])
    wanted = np.array([each.map.sum(dtype=np.float64) for each in explained]) - errors
    return {
        "completeness_error": float(np.abs(errors).mean()),
        "completeness_share": float(np.abs(errors).mean() / max(np.abs(wanted).mean(), 1e-12)),
    }


def background_of(reader: Reader, threads: int) -> Background:
    """Mean volume and brain of all scans of the reader (no labels are used)."""
    total = np.zeros(reader.shape, np.float64)
    inside = np.zeros(reader.shape[:3], np.int32)
    with Progress(len(reader), "scan", "cohort mean") as progress:
        for row, volume in enumerate(reader.stream(range(len(reader)), threads, prefetch=2)):
            total += volume
            inside += np.asarray(reader.store.mask(*reader.keys[row]))
            progress.advance()
    return Background(
        mean=(total / len(reader)).astype(np.float32),
        brain=2 * inside >= len(reader),
        reach=inside > 0,
        constant=reader.how.background,
    )
