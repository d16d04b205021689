"""A network of a run trained once more, on permuted labels: what a map looks like without signal.

Everything else is the run's: scans, fold, network, length, early stopping. The network is a stage
like any other, so it is trained once.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.planning.planner import inputs
from mri_jax.runs.trained import SOURCE, TrainedRun
from mri_jax.seeding import generator
from mri_jax.settings.study import Study
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds
from mri_jax.study.run import open_volumes, planned
from mri_jax.study.scans import open_store
from mri_jax.study.stages import StageFolders
from mri_jax.training.checkpoints import Network, load_params
from mri_jax.training.folds import Wave


@dataclass(frozen=True)
class Permuted:
    """A network that learned permuted labels.

    Attributes:
      network: Of the best epoch by its own (permuted) validation loss.
      fold: Whose source network it is to be compared with.
      trained: How far it got, one line.
    """

    network: Network
    fold: int
    trained: str


def permuted_network(run: TrainedRun, variant: str, fold: int = 0) -> Permuted:
    """Train the source network of a fold on permuted labels, or find that this was done.

    Args:
      run: The run.
      variant: Network variant.
      fold: Which source network.

    Raises:
      UserError: The run's scans are not those that its networks were trained on.
    """
    study = run.study
    folders = StageFolders(run.ensemble(variant, SOURCE)[fold].folder.parent)
    store = open_store(study)
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
    history = files.read_json(folders.folder(shuffled) / "history.json")
    return Permuted(load_params(folders.folder(shuffled)), fold, _described(history))


def permute_labels(stage: TrainStage, study: Study, catalogue: Catalogue) -> TrainStage:
    """The stage with the labels of its training and validation scans permuted, each in itself.

    Its random streams (initial weights, order, dropout) are its own.
    """

    def shuffled(examples: Examples, part: str) -> Examples:
        order = generator(stage.seed, "permuted", part, *stage.purpose).permutation(len(examples))
        return Examples(examples.rows, tuple(examples.labels[i] for i in order))

    changed = replace(
        stage,
        purpose=("permuted", *stage.purpose),
        train=shuffled(stage.train, "train"),
        validation=shuffled(stage.validation, "validation"),
    )
    return replace(changed, fingerprint=files.fingerprint(inputs(changed, study, catalogue)))


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
