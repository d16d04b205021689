"""``python -m mri_jax explain``: from a run to a folder of maps, tables, checks and one page."""

import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import __version__
from mri_jax.errors import UserError
from mri_jax.explanation.check import Checked, Reference, check_stage
from mri_jax.explanation.collect import (
    Collected,
    Setting,
    background_of,
    collect,
    load_networks,
)
from mri_jax.explanation.methods import METHODS, MethodSettings, make_methods
from mri_jax.explanation.outputs import write_outputs
from mri_jax.explanation.regions import read_regions, simulated_regions
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.explanation.selection import ExplainedScan, classes_of, select_scans
from mri_jax.explanation.statistics import region_summary
from mri_jax.explanation.truth import read_truth
from mri_jax.runs.trained import SOURCE, TrainedRun
from mri_jax.volumes.store import KEY

# Scans of each class whose maps the randomisation checks compare.
_CHECKED_SCANS = 2


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
      variant: Network variant; empty takes the run's first.
      stages: ``source``, ``tuned-...``; empty takes all of the variant.
      cohort: Whose scans are explained.
      subjects: Only these; empty draws `per_class` of each class.
      per_class: Subjects of each class; 0 takes all.
      methods: Names; empty takes all.
      settings: Of the methods.
      regions: Label image; None takes the simulation's regions.
      region_names: Table of its labels.
      seed: Of draws.
      threads: That read volumes.
    """

    cohort: str
    variant: str = ""
    stages: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    per_class: int = 10
    methods: tuple[str, ...] = ()
    settings: MethodSettings = field(default_factory=MethodSettings)
    regions: Path | None = None
    region_names: Path | None = None
    seed: int = 0
    threads: int = 2


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


def explain(
    run: TrainedRun,
    request: Request,
    out: epath.PathLike,
    permuted: Callable[[TrainedRun, str, int], PermutedNetwork] | None = None,
    say: Callable[[str], None] = print,
) -> epath.Path:
    """Explain scans of a run by its networks, and write everything.

    Args:
      run: The run.
      request: What to explain, and how.
      out: Folder of the results.
      permuted: For the checks: trains (or finds) the network of permuted labels for a variant and
        fold; None makes no checks.
      say: Where the summary goes.

    Returns:
      The page.

    Raises:
      UserError: The run has no such networks, cohort or subjects; a label image is unusable.
    """
    variant = request.variant or run.variants[0]
    stages = request.stages or run.stages(variant)
    if request.region_names is not None and request.regions is None:
        raise UserError("region-names: needs --regions, the label image that they name")
    scans = select_scans(
        run, variant, stages, request.cohort, request.subjects, request.per_class, request.seed
    )
    classes = classes_of(run, variant, request.cohort)
    networks = load_networks(scans)
    background = background_of(run.reader(_all_keys(run, request.cohort)), request.threads)
    grid = run.store.info.grid
    regions = (
        simulated_regions(grid)
        if request.regions is None
        else read_regions(request.regions, request.region_names, grid, background.brain)
    )
    spec = next(iter(networks.values())).spec
    methods = make_methods(
        request.methods or METHODS, request.settings, spec, grid, background, regions.labels
    )
    # Training first: it is the longest part, and fails early where it cannot be done.
    control = permuted(run, variant, _common_fold(scans)) if permuted else None
    setting = Setting(
        stages=tuple(stages),
        networks=networks,
        methods=methods,
        background=background,
        regions=regions,
        truth=read_truth(run.store, background.brain) if permuted else None,
        check=permuted is not None,
        classes=classes,
        learned=run.diagnoses(variant),
        simulated=run.simulated or run.store.info.simulated,
    )
    reader = run.reader(tuple(scan.key for scan in scans))
    collected = collect(setting, scans, reader, epath.Path(out), request.threads)
    checked = [] if control is None else _checks(run, variant, setting, control, scans, collected)
    summary = region_summary(collected.region_table(), classes, request.seed)
    facts = _facts(run, variant, request, setting, scans, collected)
    return write_outputs(
        epath.Path(out), facts, setting, grid, scans, collected, summary, checked, say
    )


def _all_keys(run: TrainedRun, cohort: str) -> tuple[tuple[str, str], ...]:
    """Every scan of a cohort that the run used."""
    table = run.results.cohort
    if "cohort" not in table or not (table["cohort"] == cohort).any():
        raise UserError(f"cohort: {cohort!r} is not in the run's cohort.csv")
    rows = table.loc[table["cohort"] == cohort, KEY]
    return tuple(zip(rows[KEY[0]], rows[KEY[1]], strict=True))


def _folds(scan: ExplainedScan) -> list[int]:
    return [member.fold for group in scan.members.values() for member in group]


def _common_fold(scans: Sequence[ExplainedScan]) -> int:
    """The fold whose networks may explain most of the scans; the first of equals."""
    folds = [fold for scan in scans for fold in _folds(scan)]
    return max(sorted(set(folds)), key=folds.count)


def _checks(
    run: TrainedRun,
    variant: str,
    setting: Setting,
    control: PermutedNetwork,
    scans: Sequence[ExplainedScan],
    collected: Collected,
) -> list[Checked]:
    may = [s for s in scans if control.fold in _folds(s)]
    chosen = [s for label in (0, 1) for s in [m for m in may if m.label == label][:_CHECKED_SCANS]]
    reader = run.reader(tuple(scan.key for scan in chosen))
    volumes = [reader.read(row) for row in range(len(chosen))]
    found = []
    for stage in setting.stages:
        member = run.ensemble(variant, stage)[control.fold]
        read = member.load()
        reference = Reference(
            ScoredNetwork(read.spec, read.variables), control.network, control.note
        )
        found.append(check_stage(stage, setting, reference, volumes, collected, seed=0))
    return found


def _facts(
    run: TrainedRun,
    variant: str,
    request: Request,
    setting: Setting,
    scans: Sequence[ExplainedScan],
    collected: Collected,
) -> dict[str, Any]:
    """What the page and ``explain.json`` say about the call itself."""
    counts = pd.Series([setting.classes[scan.label] for scan in scans]).value_counts()
    rates = {
        name: {
            "volumes_per_second": len(seconds) / sum(seconds),
            "maps": len(seconds),
            "seconds_per_map": float(np.median(seconds)),
        }
        for name, seconds in collected.seconds.items()
    }
    return {
        "mri_jax": __version__,
        "run": run.results.name,
        "variant": variant,
        "stages": list(setting.stages),
        "cohort": request.cohort,
        "held_out": SOURCE in setting.stages
        and all(len(group) == 1 for scan in scans for group in scan.members.values()),
        "classes": {"negative": setting.classes[0], "positive": setting.classes[1]},
        "learned": {"negative": setting.learned[0], "positive": setting.learned[1]},
        "scans": {str(name): int(n) for name, n in counts.items()},
        "subjects": list(request.subjects),
        "score": "logit of the positive class minus logit of the negative class",
        "methods": {method.name: method.note for method in setting.methods},
        "settings": asdict(request.settings),
        "regions": setting.regions.source,
        "simulated": setting.simulated,
        "cost": rates,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "seed": request.seed,
    }
