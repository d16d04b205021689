"""One trial: a point of the space becomes networks, which are trained, held out, or pruned."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mri_jax import device_faults
from mri_jax.errors import UserError
from mri_jax.evaluation.metrics import auc, score_of
from mri_jax.interruption import Interrupted
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.search.bench import Bench, trainings
from mri_jax.search.budget import Budget, Needs
from mri_jax.search.ledger import Ledger, Taken
from mri_jax.settings.search import NO_PRUNER, OBJECTIVES, Search

FOLD = 1_000_000
"""Steps of Optuna between the folds of a trial; within a fold they are epochs."""


def run_trial(taken: Taken, ledger: Ledger, bench: Bench, budget: Budget) -> str:
    """Runs a trial to its end and gives it back; returns what came of it, in a few words.

    Raises:
      Interrupted: Asked to stop; whoever comes next goes on with it.
    """
    search = bench.study.search
    try:
        run = bench.study.trial(taken.values)
        needs = budget.needs(run)
        taken.note(**needs.told)
        budget.check(needs)
        plan = bench.plan(run)
    except UserError as error:
        taken.prune(str(error))
        return f"not started: {error}"
    watch = _Watch(taken, search, ledger.before(taken))
    try:
        watch.replay(plan, bench)
        if not watch.pruned:
            bench.train(plan, watch.on_epoch, lambda: watch.pruned or bench.how.interrupted())
    except Interrupted:
        if not watch.pruned:
            taken.leave()
            raise
    except RuntimeError as error:
        reason = device_faults.explained(error)
        if not reason:
            raise
        taken.prune(reason)
        return f"failed: {reason}"
    if watch.pruned:
        taken.prune(watch.reason)
        return f"pruned: {watch.reason}"
    for stage in trainings(plan):
        if reason := bench.folders.failure(stage):
            taken.prune(f"fold {stage.fold} failed: {reason}")
            return f"failed: {reason}"
    scores = held_out(plan, bench)
    taken.note(**{name: float(np.mean(values)) for name, values in scores.items()})
    taken.note(folds=scores["auc"], seconds=_seconds(plan, bench))
    values = objectives(search, scores, needs)
    taken.finish(values)
    return ", ".join(f"{n} {_shown(n, v)}" for n, v in zip(search.objectives, values, strict=True))


def held_out(plan: Plan, bench: Bench) -> dict[str, list[float]]:
    """Returns the AUC and the lowest loss of each fold of a trial on its own held-out scans."""
    rows = [group for _, group in bench.predictions(plan).groupby("fold")]
    return {
        "auc": [auc(group["label"].to_numpy(), score_of(group)) for group in rows],
        "loss": [
            float(bench.folders.note(stage)["best_validation_loss"]) for stage in trainings(plan)
        ],
    }


def objectives(
    search: Search, scores: Mapping[str, list[float]], needs: Needs
) -> tuple[float, ...]:
    """Returns what a trial is judged by, in the order of the config."""
    known = {name: float(np.mean(values)) for name, values in scores.items()} | needs.told
    return tuple(float(known[name]) for name in search.objectives)


def _seconds(plan: Plan, bench: Bench) -> float:
    return sum(float(bench.folders.note(stage)["seconds"]) for stage in trainings(plan))


def _shown(name: str, value: float) -> str:
    return f"{100 * value:.1f}" if name == "auc" else f"{value:.4g}"


class _Watch:
    """Reports the lowest held-out loss of a fold after each epoch, and asks whether to go on."""

    def __init__(self, taken: Taken, search: Search, before: Mapping[int, float]):
        self._trial, self._search = taken.trial, search
        self._sign = -1.0 if OBJECTIVES[search.objectives[0]] == "maximize" else 1.0
        self._lowest: dict[int, float] = {}
        self.reason = ""
        # Optuna takes no reports with several objectives.
        self._reports = len(search.objectives) == 1
        self._told = set(before)
        for step, value in before.items():
            self._trial.report(value, step)
            fold = step // FOLD
            self._lowest[fold] = min(self._lowest.get(fold, math.inf), self._sign * value)

    @property
    def pruned(self) -> bool:
        return bool(self.reason)

    def replay(self, plan: Plan, bench: Bench) -> None:
        """Reports the epochs of folds that were trained before, as if they were trained now."""
        for stage in trainings(plan):
            if self.pruned or not bench.folders.finished(stage):
                return
            for row in bench.folders.history(stage):
                if not self.pruned:
                    self.on_epoch(stage, row)

    def on_epoch(self, stage: TrainStage, figures: dict[str, Any]) -> None:
        if not self._reports or self.pruned:
            return
        fold, epoch, loss = stage.fold, int(figures["epoch"]), figures["validation_loss"]
        known = math.inf if loss is None or not math.isfinite(loss) else float(loss)
        self._lowest[fold] = min(self._lowest.get(fold, math.inf), known)
        if not math.isfinite(self._lowest[fold]):
            return
        step = fold * FOLD + epoch
        if step not in self._told:
            self._trial.report(self._sign * self._lowest[fold], step)
        elif step < max(self._told):  # it went on after that, so that was decided
            return
        prunes = self._search.pruner != NO_PRUNER and epoch >= self._search.prune_after
        if prunes and self._trial.should_prune():
            self.reason = (
                f"after epoch {epoch} of fold {fold} the held-out loss, {self._lowest[fold]:.3f}, "
                "was worse than the median of other trials"
            )
