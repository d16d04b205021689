"""A network of a run trained once more, on permuted labels: what a map looks like without signal.

Everything else is the run's: scans, fold, network, length, early stopping. The network is a stage
like any other, so it is trained once.
"""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax.errors import UserError
from mri_jax.explanation.check import PermutedNetwork
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.models import CNNSpec
from mri_jax.planning.fingerprints import training_named
from mri_jax.planning.permuted import permute_labels
from mri_jax.problems import counted
from mri_jax.runs.trained import SOURCE, TrainedRun
from mri_jax.study.chosen import chosen_runs
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds
from mri_jax.study.prepare import open_volumes, planned
from mri_jax.study.stages import StageFolders
from mri_jax.training.job import with_step
from mri_jax.training.wave import Wave


def permuted_network(
    run: TrainedRun,
    variant: str,
    fold: int = 0,
    spec: CNNSpec | None = None,
    table: epath.PathLike | None = None,
    forms: str | None = None,
) -> PermutedNetwork:
    """Trains a network on the permuted labels of a source network's scans, unless that was done.

    Args:
      run: The run.
      variant: Network variant.
      fold: Which source network.
      spec: Its architecture, where it is not the source network's.
      table: The cohort table. By default it is where the run had it or, if it is not there any
        more, the run's own copy of the rows that it used.
      forms: How conv layers are computed (`mri_jax.models.choice`); None: the machine's choice.

    Raises:
      UserError: There is no table, or it and the store do not give the scans that the run's
        networks were trained on.
    """
    study = run.study_with(table)
    folders = StageFolders(run.ensemble(variant, SOURCE)[fold].folder.parent)
    store = None if study.data.simulated else run.store
    further = tuple(chosen_runs(study, run.results.path).values())
    catalogue, plan = planned(study, folders, store, further)
    # A run of other cohorts is refused before any is simulated.
    wanted = run.ensemble(variant, SOURCE)[fold].fingerprint
    source = training_named(wanted, plan, study, catalogue)
    if source is None:
        raise UserError(
            f"{run.results.path}: its cohort table and store no longer give the networks that it "
            "trained, so permuted labels cannot be compared; name the table with --table and the "
            "store with --store, or leave out --sanity"
        )
    wave = Wave(tuple(jax.local_devices()[:1]), forms=forms)
    volumes = open_volumes(study, catalogue, folders, store)
    if spec is not None:
        source = replace(source, fit=with_step(source.fit, spec=spec))
    shuffled = permute_labels(source, study, volumes.catalogue)
    Executor(
        folders=folders,
        volumes=volumes,
        feeds=Feeds(volumes, study.data, wave),
        wave=wave,
        interrupted=lambda: False,
        on_epoch=lambda stage, figures: None,
        say=lambda remark: None,  # that it has hardly learnt is what it is for
    ).run([shuffled])
    failed = folders.failure(shuffled)
    if failed:
        raise UserError(f"training on permuted labels failed ({failed}); leave out --sanity")
    read, history = folders.network(shuffled), folders.history(shuffled)
    network = ScoredNetwork.of(read.spec, read.variables, forms)
    return PermutedNetwork(network, fold, _described(history))


def _described(history: list[dict[str, Any]]) -> str:
    losses = np.array([row["train_loss"] for row in history], float)
    best = next((row for row in history if row["best"]), history[-1])
    return (
        f"training loss {losses[0]:.2f} to {losses[-1]:.2f} in "
        f"{counted(len(history), 'epoch')} (chance {np.log(2):.2f}), best epoch {best['epoch']}"
    )
