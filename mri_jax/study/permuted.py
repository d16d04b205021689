"""A network of a run trained once more, on permuted labels: what a map looks like without signal.

Everything else is the run's: scans, fold, network, length, early stopping. The network is a stage
like any other, so it is trained once.
"""

from typing import Any

import jax
import numpy as np

from mri_jax.errors import UserError
from mri_jax.explanation.check import PermutedNetwork
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.planning.permuted import permute_labels
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.runs.trained import SOURCE, TrainedRun
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds
from mri_jax.study.prepare import open_volumes, planned
from mri_jax.study.stages import StageFolders
from mri_jax.training.folds import Wave


def permuted_network(run: TrainedRun, variant: str, fold: int = 0) -> PermutedNetwork:
    """Trains the source network of a fold on permuted labels, unless that was done.

    Args:
      run: The run.
      variant: Network variant.
      fold: Which source network.

    Raises:
      UserError: The run's scans are not those that its networks were trained on.
    """
    study = run.study
    folders = StageFolders(run.ensemble(variant, SOURCE)[fold].folder.parent)
    store = None if study.data.simulated else run.store
    catalogue, plan = planned(study, folders, store)
    # A run of other cohorts is refused before any is simulated.
    source = _source_stage(run, plan, variant, fold)
    wave = Wave(tuple(jax.local_devices()[:1]))
    volumes = open_volumes(study, catalogue, folders, store)
    shuffled = permute_labels(source, study, volumes.catalogue)
    Executor(
        folders=folders,
        volumes=volumes,
        feeds=Feeds(volumes, study.data, wave),
        wave=wave,
        interrupted=lambda: False,
        on_epoch=lambda stage, figures: None,
        say=lambda remark: None,  # that it has not learnt is what it is for
    ).run([shuffled])
    failed = folders.failure(shuffled)
    if failed:
        raise UserError(f"training on permuted labels failed ({failed}); leave out --sanity")
    read, history = folders.network(shuffled), folders.history(shuffled)
    return PermutedNetwork(ScoredNetwork(read.spec, read.variables), fold, _described(history))


def _source_stage(run: TrainedRun, plan: Plan, variant: str, fold: int) -> TrainStage:
    wanted = run.ensemble(variant, SOURCE)[fold].fingerprint
    for entry in plan.entries:
        if isinstance(entry.network, TrainStage) and entry.network.fingerprint == wanted:
            return entry.network
    raise UserError(
        f"{run.results.path}: its cohort table and store no longer give the networks that it "
        "trained, so permuted labels cannot be compared; leave out --sanity"
    )


def _described(history: list[dict[str, Any]]) -> str:
    losses = np.array([row["train_loss"] for row in history], float)
    best = next((row for row in history if row["best"]), history[-1])
    return (
        f"training loss {losses[0]:.2f} to {losses[-1]:.2f} in {len(history)} epochs (chance "
        f"{np.log(2):.2f}), best epoch {best['epoch']}"
    )
