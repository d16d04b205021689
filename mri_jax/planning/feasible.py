"""Checks that a plan can be carried out: enough subjects, scans, voxels and memory.

Each refusal names the field of the config, what was found, and what to change.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from mri_jax.adaptation import BASELINES, Method
from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.models import CNNSpec
from mri_jax.models.summary import step_bytes
from mri_jax.planning.plan import BaselineStage, Entry, Plan, TrainStage
from mri_jax.problems import counted
from mri_jax.settings.study import named
from mri_jax.training.job import FitSettings
from mri_jax.volumes.grids import GRIDS, Grid


def enough(scans: pd.DataFrame, parts: int, asked: str, where: str, remedy: str) -> None:
    """Check that every class of some scans has as many subjects as parts are made of them.

    Args:
      scans: Rows of a task, with ``subject_id``, ``label`` and ``diagnosis``.
      parts: How many parts, each of which needs a subject of each class.
      asked: The field and the value that ask for them, e.g. ``config.train.folds: 5``.
      where: Whose scans they are.
      remedy: What the user can change.

    Raises:
      UserError: A class has fewer.
    """
    counts = scans.drop_duplicates("subject_id")["label"].value_counts()
    label = min((0, 1), key=lambda label: counts.get(label, 0))
    if counts.get(label, 0) < parts:
        of_class = scans.loc[scans["label"] == label, "diagnosis"].unique()
        name = of_class[0] if len(of_class) else ("negative", "positive")[label]
        raise UserError(
            f"{asked} must be at most {counts.get(label, 0)}, the number of {name} subjects "
            f"of {where}; {remedy}"
        )


def check_network(spec: CNNSpec, grid: Grid) -> None:
    """Check that a network's poolings leave something of a volume.

    Raises:
      UserError: The volumes are too small.
    """
    blocks, shape = len(spec.repetitions), " x ".join(map(str, grid.shape))
    if min(grid.shape) < 2**blocks:
        raise UserError(
            f"{named('model.repetitions')}: {spec.repetitions} halves volumes "
            f"{counted(blocks, 'time')}, and those of {shape} voxels at {grid.spacing:g} mm have "
            f"less than {2**blocks} along an axis; take a finer grid, or fewer blocks with "
            f"{named('model.preset')}=''"
        )


def check_plan(plan: Plan) -> None:
    """Check what the stages of a plan need.

    Raises:
      UserError: A training has fewer scans than a batch, a baseline too few of a class, or two
        entries have one name.
    """
    _check_names(plan.entries)
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and len(stage.train):
            # A network that learns from the source, too, has more scans than the source's own.
            check_batch(stage.fit.batch, len(stage.train), stage.label, stage.kind != "source")
        elif isinstance(stage, BaselineStage):
            _check_baseline(stage)


def check_batch(batch: int, scans: int, label: str, tuned: bool = False) -> None:
    """Check that a training has a batch of scans.

    Raises:
      UserError: It has fewer.
    """
    if batch > scans:
        what = "a part that is tuned on" if tuned else "a fold of the source"
        remedy = f", or lower {named('finetune.parts')}" if tuned else ""
        raise UserError(
            f"{named('train.batch')}: {batch} must be at most {scans}, the scans that {what} "
            f"trains on ({label}){remedy}"
        )


def check_unlabelled(method: Method, batch: int, scans: int, where: str) -> None:
    """Check that a method without labels has enough scans: two batches, or two for a scale.

    Raises:
      UserError: It has fewer.
    """
    if method.start == BASELINES:
        needed, what, less = 2, "two scans without labels", ""
    else:
        needed, what = 2 * batch, f"two batches of scans without labels, {2 * batch},"
        less = f" or {named('train.batch')}"
    if scans < needed:
        raise UserError(
            f"{named('adaptation.methods')}: {method.name!r} needs {what} and {where} has {scans}; "
            f"lower {named('finetune.parts')}{less}, or add scans"
        )


def check_harmonised(methods: Sequence[Method], plain: Sequence[Entry]) -> None:
    """Check that methods which harmonise features of plain classifiers found some.

    Args:
      methods: The methods.
      plain: What is asked of plain classifiers.

    Raises:
      UserError: The cohort table has no column that a measured baseline needs.
    """
    harmonised = {entry.stage for entry in plain if entry.stage != "source"}
    if methods and not harmonised:
        needed = [name for each in baselines.BASELINES for name in each.measured]
        raise UserError(
            f"{named('adaptation.methods')}: {methods[0].name!r} harmonises what is measured in "
            f"scans, and the cohort table has no {' and '.join(needed)}; add them, set "
            f"{named('baselines.voxels')}=True, or leave it out"
        )


def _check_baseline(stage: BaselineStage) -> None:
    least = int(np.bincount(stage.train.labels, minlength=2).min())
    needed = baselines.named(stage.name).least
    if least < needed:
        field = named(f"baselines.{stage.name}")
        raise UserError(
            f"{field}: needs {needed} training scans of each class, and a fold has {least}; raise "
            f"{named('train.folds')}, add subjects, or leave the baseline out with {field}=False"
        )


def _check_names(entries: Iterable[Entry]) -> None:
    counts = Counter((e.run, e.stage, e.repeat, e.fold) for e in entries)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{named('variants')}: {count} rows of the tables would be called {name[0]} {name[1]}; "
            "give the sources of the variants names of their own (source.name)"
        )


def check_memory(fit: FitSettings, shape: tuple[int, ...], memory: int) -> None:
    """Check that ``memory`` bytes hold a training on volumes of ``shape``, by estimate.

    Raises:
      UserError: With the largest batch that should fit.
    """
    needed = step_bytes(fit.step.spec, shape, fit.seen_at_once)
    if needed > memory:
        size = "x".join(map(str, shape))
        volumes = counted(fit.seen_at_once, f"volume of {size} needs", f"volumes of {size} need")
        raise UserError(
            f"{named('train.batch')}: {volumes} about {needed / 2**30:.1f} GiB a step, and there "
            f"are {memory / 2**30:.1f} GiB for a fold; " + largest(fit, shape, memory)
        )


def largest(fit: FitSettings, shape: tuple[int, ...], memory: int) -> str:
    """Returns a line with the largest batch at this grid and the finest grid at this batch."""
    spec = fit.step.spec
    one, two = step_bytes(spec, shape, 1), step_bytes(spec, shape, 2)
    batch = max(0, (memory - (2 * one - two)) // (two - one))
    grids = [g for g in GRIDS.values() if step_bytes(spec, g.shape, fit.seen_at_once) <= memory]
    finest = min(grids, key=lambda g: g.spacing).name if grids else "none"
    return (
        f"by estimate, {counted(batch, 'volume fits', 'volumes fit')} at once at this grid "
        f"({named('train.accumulate')} divides a batch), and of {fit.seen_at_once} at once the "
        f"finest grid that fits is {finest}"
    )
