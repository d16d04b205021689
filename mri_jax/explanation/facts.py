"""What the page and ``explain.json`` say about the call itself."""

import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mri_jax import __version__
from mri_jax.explanation.collect import Collected
from mri_jax.explanation.methods import MethodSettings
from mri_jax.explanation.request import Request
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.explanation.setting import ExplanationSetting
from mri_jax.runs import faults
from mri_jax.runs.trained import SOURCE, TrainedRun


@dataclass(frozen=True)
class TwoClasses:
    """The diagnoses of label 0 and 1."""

    negative: str
    positive: str


@dataclass(frozen=True)
class MethodCost:
    """What the maps of a method took, compilation excluded.

    Attributes:
      volumes_per_second: Maps of one volume by one network, per second.
      maps: How many were made.
      seconds_per_map: Their median time.
    """

    volumes_per_second: float
    maps: int
    seconds_per_map: float


@dataclass(frozen=True)
class Facts:
    """What is known of a call; the fields are those of ``explain.json``.

    Attributes:
      mri_jax: Version of the package.
      run: Name of the run.
      variant: Network variant.
      stages: Stages that were explained.
      cohort: Whose scans were explained.
      held_out: Whether each scan was explained by the one network that it was held out from.
      classes: Diagnoses of the scans.
      learned: Diagnoses that the source networks learned.
      scans: Number of scans of each diagnosis.
      subjects: The subjects that were asked for; empty where they were drawn.
      warnings: What is wrong with networks that explained them, a sentence each.
      score: What the maps explain.
      methods: A note on each method, by name.
      settings: Settings of the methods.
      regions: Where the regions come from.
      simulated: Whether the scans are simulated.
      cost: Cost of each method, by name.
      peak_memory_gib: Largest memory of the process, GiB.
      seed: Seed of draws.
    """

    mri_jax: str
    run: str
    variant: str
    stages: tuple[str, ...]
    cohort: str
    held_out: bool
    classes: TwoClasses
    learned: TwoClasses
    scans: Mapping[str, int]
    subjects: tuple[str, ...]
    warnings: tuple[str, ...]
    score: str
    methods: Mapping[str, str]
    settings: MethodSettings
    regions: str
    simulated: bool
    cost: Mapping[str, MethodCost]
    peak_memory_gib: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as ``explain.json`` holds them."""
        return asdict(self)


def facts_of(
    run: TrainedRun,
    variant: str,
    request: Request,
    setting: ExplanationSetting,
    scans: Sequence[ExplainedScan],
    collected: Collected,
) -> Facts:
    """Returns what is known of a call once its maps are made."""
    counts = pd.Series([setting.classes[scan.label] for scan in scans]).value_counts()
    return Facts(
        mri_jax=__version__,
        run=run.results.name,
        variant=variant,
        stages=tuple(setting.stages),
        cohort=request.cohort,
        held_out=SOURCE in setting.stages
        and all(len(group) == 1 for scan in scans for group in scan.members.values()),
        classes=TwoClasses(*setting.classes),
        learned=TwoClasses(*setting.learned),
        scans={str(name): int(n) for name, n in counts.items()},
        subjects=tuple(request.subjects),
        warnings=tuple(faults.told_of(run.results, variant, setting.stages)),
        score="logit of the positive class minus logit of the negative class",
        methods={method.name: method.note for method in setting.methods},
        settings=request.settings,
        regions=setting.regions.source,
        simulated=setting.simulated,
        cost={
            name: MethodCost(len(each) / sum(each), len(each), float(np.median(each)))
            for name, each in collected.seconds.items()
        },
        peak_memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        seed=request.seed,
    )
