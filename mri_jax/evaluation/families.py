"""Which methods stand in which table, and which pairs are tested: declared here, beforehand.

A family of tests is one table and one metric; Holm's adjustment runs within it.
"""

import re
from dataclasses import dataclass

import pandas as pd

from mri_jax.evaluation.baselines import RUNS as BASELINES

SOURCE = "source"


def is_baseline(run: str) -> bool:
    """Whether a run is a plain classifier: ``baseline-voxels``, ``baseline-voxels-CNN-AD2``."""
    return run.startswith("baseline-")


def trained_as(run: str) -> str:
    """On whose training subjects a baseline was fitted: ``CNN-AD2``; empty for the plain names."""
    return run.removeprefix(plain_name(run)).removeprefix("-") if is_baseline(run) else ""


def plain_name(run: str) -> str:
    """A baseline's name without that of a related task: ``baseline-voxels``."""
    fitting = [name for name in BASELINES if run == name or run.startswith(f"{name}-")]
    return max(fitting, key=len, default=run)


@dataclass(frozen=True, order=True)
class Method:
    """A row of a table: a network variant at a stage."""

    run: str
    stage: str = SOURCE

    @property
    def name(self) -> str:
        """As tables print it."""
        return self.run if self.stage == SOURCE else f"{self.run} {self.stage}"


@dataclass(frozen=True)
class Family:
    """A table of the paper, or of the same form.

    Attributes:
      key: Short name, used in file names: ``depth``, ``width``, ``finetune``, ``task``, ``source``.
      title: What it shows.
      methods: Its rows, in order; baselines last.
      pairs: (first, second) that are tested; the difference is first minus second.
      exploratory: Whether the table was not planned for inference.
    """

    key: str
    title: str
    methods: tuple[Method, ...]
    pairs: tuple[tuple[Method, Method], ...]
    exploratory: bool = False

    @property
    def networks(self) -> tuple[Method, ...]:
        """The methods without the baselines."""
        return tuple(m for m in self.methods if not is_baseline(m.run))


def parse(run: str) -> tuple[str, float] | None:
    """``cnn5-w1`` to ``("cnn5", 1.0)``; None where the name has no width."""
    found = re.fullmatch(r"(.+)-w(\d+(?:\.\d+)?)", run)
    return (found[1], float(found[2])) if found else None


def _stem(run: str) -> str:
    parsed = parse(run)
    return parsed[0] if parsed else run


def depth_of(run: str) -> int | None:
    """``cnn10-w1`` to 10; None for any other kind of name."""
    parsed = parse(run)
    found = re.fullmatch(r"cnn(\d+)", parsed[0]) if parsed else None
    return int(found[1]) if found else None


def declare(predictions: pd.DataFrame) -> tuple[Family, ...]:
    """The tables that these predictions can fill, with their pairs.

    - depth: the runs ``cnnD-wW`` of one width that come in at least two depths; each against the
      shallowest.
    - width: the runs of one depth that come in at least two widths; each against the narrowest.
    - finetune: for each run with tuned stages, source and tuned; each tuned against the source.
      Exploratory where more than four sets of layers were tuned.
    - task: the runs whose name is not a depth (``CNN-AD1-w1``); all pairs of one width.
    - source: whatever source network is in none of these.

    Every baseline stands in every table, and the first source network of a table is tested
    against each; a baseline fitted on a related task's subjects (``baseline-voxels-CNN-AD2``)
    stands in the task tables and is tested against the network of that training set.
    """
    present = predictions[["run", "stage"]].drop_duplicates()
    source = sorted(present.loc[present["stage"] == SOURCE, "run"])
    baselines = [Method(run) for run in BASELINES if run in source]
    related = [Method(run) for run in source if trained_as(run)]
    runs = [run for run in source if not is_baseline(run)]
    families = [
        *_depths(runs, baselines),
        *_widths(runs, baselines),
        *_tunings(present, baselines),
        *_tasks(runs, related or baselines),
    ]
    shown = {method.run for family in families for method in family.methods}
    rest = [Method(run) for run in runs if run not in shown]
    if rest:
        families.append(_family("source", "Source networks on the target cohorts", rest, baselines))
    return tuple(families)


def _family(
    key: str,
    title: str,
    networks: list[Method],
    baselines: list[Method],
    pairs: list[tuple[Method, Method]] | None = None,
    exploratory: bool = False,
) -> Family:
    chosen = pairs if pairs is not None else [(m, networks[0]) for m in networks[1:]]
    against = [
        (network, baseline)
        for network in networks
        for baseline in baselines
        if trained_as(baseline.run) == _stem(network.run)
        or (network == networks[0] and not trained_as(baseline.run))
    ]
    return Family(key, title, (*networks, *baselines), (*chosen, *against), exploratory)


def _depths(runs: list[str], baselines: list[Method]) -> list[Family]:
    by_width: dict[float, list[str]] = {}
    for run in runs:
        parsed = parse(run)
        if parsed and depth_of(run) is not None:
            by_width.setdefault(parsed[1], []).append(run)
    found = []
    for width, members in sorted(by_width.items()):
        if len(members) > 1:
            rows = [Method(run) for run in sorted(members, key=lambda r: depth_of(r) or 0)]
            key = "depth" if width == 1.0 else f"depth-w{width:g}"
            found.append(_family(key, f"Network depth, width {width:g}", rows, baselines))
    return found


def _widths(runs: list[str], baselines: list[Method]) -> list[Family]:
    by_depth: dict[int, list[tuple[float, str]]] = {}
    for run in runs:
        parsed, depth = parse(run), depth_of(run)
        if parsed and depth is not None:
            by_depth.setdefault(depth, []).append((parsed[1], run))
    found = []
    for depth, members in sorted(by_depth.items()):
        if len(members) > 1:
            rows = [Method(run) for _, run in sorted(members)]
            key = "width" if depth == 5 else f"width-cnn{depth}"
            found.append(_family(key, f"Network width, CNN-{depth}", rows, baselines))
    return found


def _tunings(present: pd.DataFrame, baselines: list[Method]) -> list[Family]:
    found = []
    tuned = present[present["stage"] != SOURCE]
    for run, stages in sorted(tuned.groupby("run")["stage"]):
        source = Method(str(run))
        rows = [Method(str(run), stage) for stage in sorted(stages, key=_layer_order)]
        key = "finetune" if tuned["run"].nunique() == 1 else f"finetune-{run}"
        pairs = [(row, source) for row in rows]
        title = f"Fine-tuning of {run}: source and tuned networks on the same subjects"
        found.append(
            _family(key, title, [source, *rows], baselines, pairs, exploratory=len(rows) > 4)
        )
    return found


def _layer_order(stage: str) -> tuple[int, int, str]:
    known = {"all": 0, "low": 1, "high": 2}
    layers = stage.removeprefix("tuned-")
    number = re.search(r"(\d+)", layers)
    return known.get(layers.split("-")[0], 3), int(number[1]) if number else 99, stage


def _tasks(runs: list[str], baselines: list[Method]) -> list[Family]:
    by_width: dict[float, list[str]] = {}
    for run in runs:
        parsed = parse(run)
        if parsed and depth_of(run) is None:
            by_width.setdefault(parsed[1], []).append(run)
    found = []
    for width, members in sorted(by_width.items()):
        rows = [Method(run) for run in sorted(members)]
        pairs = [(b, a) for place, a in enumerate(rows) for b in rows[place + 1 :]]
        title = f"Training on a related task, width {width:g}"
        found.append(_family(f"task-w{width:g}", title, rows, baselines, pairs))
    return found
