"""A bench whose networks train in no time: their losses are a function of the learning rate."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.interruption import Interrupted
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.runs import search as results
from mri_jax.search.bench import Bench, OnEpoch, trainings
from mri_jax.search.budget import Budget
from mri_jax.search.ledger import Ledger, Taken
from mri_jax.search.run import ledgers_of
from mri_jax.search.trial import run_trial
from mri_jax.settings.study import Study
from mri_jax.study.prepare import open_volumes, planned
from mri_jax.study.running import Running
from mri_jax.study.scans import open_store
from mri_jax.study.stages import StageFolders

EPOCHS = 4


class Quick(Bench):
    """Networks are better the nearer their learning rate is to 1e-3."""

    def train(self, plan: Plan, on_epoch: OnEpoch, stop: Callable[[], bool]) -> None:
        for stage in trainings(plan):
            history = []
            for epoch in range(1, EPOCHS + 1):
                loss = 0.5 + 0.1 * _wrong(stage) - 0.01 * epoch
                history.append({"epoch": epoch, "validation_loss": loss})
                if not self.folders.finished(stage):
                    if stop():
                        raise Interrupted
                    on_epoch(stage, history[-1])
                    if stop():
                        raise Interrupted
            if not self.folders.finished(stage):
                files.write_json(self.folders.folder(stage) / "history.json", history)
                note = {"best_validation_loss": history[-1]["validation_loss"], "seconds": 1.0}
                self.folders.finish(stage, note)

    def predictions(self, plan: Plan) -> pd.DataFrame:
        rows = []
        for stage in trainings(plan):
            labels = np.array(stage.validation.labels)
            noise = np.random.default_rng(stage.fold).normal(size=len(labels))
            logits = {"logit_0": 0.0, "logit_1": labels + _wrong(stage) * noise}
            rows.append(pd.DataFrame({"fold": stage.fold, "label": labels, **logits}))
        return pd.concat(rows)


def _wrong(stage: TrainStage) -> float:
    return abs(math.log10(stage.fit.step.optimizer.learning_rate) + 3)


def bench_of(study: Study, folder: Path, interrupted: Callable[[], bool] = lambda: False) -> Quick:
    """Returns the bench of a study whose stages lie in ``folder/stages``."""
    folders = StageFolders(epath.Path(folder / "stages"), lambda _: None)
    store = open_store(study)
    catalogue, _ = planned(study, folders, store)
    how = Running(interrupted=interrupted, say=lambda _: None, store=store)
    volumes = open_volumes(study, catalogue, folders, store)
    return Quick(study, volumes.catalogue, volumes, folders, how)


def ledgers(bench: Bench, folder: Path) -> list[Ledger]:
    """Returns the search of a bench and what it is compared with, in ``folder/search``."""
    place = epath.Path(folder / results.FOLDER)
    place.mkdir(parents=True, exist_ok=True)
    return ledgers_of(bench, place)


def run_all(ledger: Ledger, bench: Bench, before: Callable[[Taken], Any] = lambda t: None) -> list:
    """Runs trials until none is left, and returns what came of each."""
    budget, said = Budget(bench.study.search, bench.catalogue.grid), []
    while (taken := ledger.take()) is not None:
        before(taken)
        said.append(run_trial(taken, ledger, bench, budget))
    return said
