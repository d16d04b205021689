"""Runs a plan: skips finished stages, continues those that were begun, starts the others."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_jax import files
from mri_jax.adaptation import parted
from mri_jax.interruption import Interrupted
from mri_jax.planning.plan import (
    FEATURES,
    STATISTICS,
    BaselineStage,
    EvaluateStage,
    Stage,
    TrainStage,
)
from mri_jax.progress import Progress
from mri_jax.study.baseline_fits import BaselineFits
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.study.trainer import Trainer
from mri_jax.training.checkpoints import load_params
from mri_jax.training.folds import Programs, Wave
from mri_jax.training.inference import features, predict
from mri_jax.training.loop import Control


@dataclass(frozen=True)
class Executor:
    """Runs stages.

    Attributes:
      folders: Where they are kept.
      volumes: The scans.
      feeds: Their way to the devices.
      wave: What to train on: as many folds at once as it has.
      interrupted: Whether to save and stop.
      on_epoch: Called with the stage and its epoch's figures.
      save_seconds: Least time between saved states of a training.
      say: Where remarks go.
    """

    folders: StageFolders
    volumes: Volumes
    feeds: Feeds
    wave: Wave
    interrupted: Callable[[], bool]
    on_epoch: Callable[[TrainStage, dict[str, Any]], None]
    save_seconds: float = 0.0
    say: Callable[[str], None] = print

    def run(self, stages: Sequence[Stage]) -> None:
        """Runs what is not finished: networks, parents first, then evaluations and baselines.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        self._hold(self._pending(stages))
        programs = Programs(self.wave)
        try:
            for generation in generations(stages):
                self._train_all(generation, programs)
            self._evaluate_all([s for s in stages if isinstance(s, EvaluateStage)], programs)
        finally:
            programs.release()
        self._fit_baselines([s for s in stages if isinstance(s, BaselineStage)])

    def _hold(self, pending: Sequence[Stage]) -> None:
        references = {stage.reference for stage in pending}
        if len(references) == 1:
            rows = [row for stage in pending for e in stage.examples for row in e.rows]
            self.feeds.hold(rows, references.pop())

    def _pending(self, stages: Sequence[Any]) -> list[Any]:
        return [stage for stage in stages if not self.folders.finished(stage)]

    def _usable(self, stages: Sequence[Any]) -> list[Any]:
        """Returns stages without those whose network failed in training: they fail with it."""
        kept = []
        for stage in stages:
            parent = stage.parent if isinstance(stage, TrainStage) else stage.network
            reason = self.folders.failure(parent) if parent else ""
            if reason:
                if isinstance(stage, TrainStage):
                    files.write_json(self.folders.folder(stage) / "history.json", [])
                self.folders.finish(stage, {"failed": f"its network failed ({reason})"})
            else:
                kept.append(stage)
        return kept

    def _train_all(self, stages: Sequence[TrainStage], programs: Programs) -> None:
        """Trains stages of one program together, as many at a time as the wave has folds."""
        control = Control(interrupted=self.interrupted, save_seconds=self.save_seconds)
        trainer = Trainer(self.folders, self.volumes, self.feeds, control, self.on_epoch, self.say)
        before: TrainStage | None = None
        for wait in (False, True):
            for group in grouped(self._pending(stages)):
                trains = group[0].kind != STATISTICS
                if before and trains and not before.fit.same_program(group[0].fit):
                    programs.release()
                before = group[0]
                label = label_of(group)
                total = sum(epochs(stage) for stage in group)
                with Progress(
                    total, "epoch", _with_length(label, group), compiles=True
                ) as progress:
                    if len(group) < self.wave.folds:
                        idle = (self.wave.folds - len(group)) * self.wave.split
                        self.say(f"{label}: devices that stay idle: {idle}")
                    for together in batched(group, self.wave.folds):
                        with self.folders.locked(together, wait) as held:
                            pending = self._usable(self._pending(held))
                            if pending and trains:
                                trainer.train(pending, programs, progress)
                            elif pending:
                                trainer.estimate_statistics(pending, programs, progress)
                if self.interrupted():
                    raise Interrupted
        programs.release()

    def _evaluate_all(self, stages: Sequence[EvaluateStage], programs: Programs) -> None:
        pending = self._pending(stages)
        if not pending:
            return
        total = sum(len(stage.tested) for stage in pending)
        with Progress(total, "prediction", "evaluating networks") as progress:
            for wait in (False, True):
                groups: dict[Any, list[EvaluateStage]] = {}
                for stage in self._pending(stages):
                    step = stage.network.fit.step
                    alike = (step.spec, len(stage.tested), stage.reference, stage.kind)
                    groups.setdefault(alike, []).append(stage)
                for group in groups.values():
                    for together in batched(group, self.wave.folds):
                        with self.folders.locked(together, wait) as held:
                            usable = self._usable(self._pending(held))
                            if usable:
                                self._evaluate_wave(usable, programs, progress)
                        if self.interrupted():
                            raise Interrupted

    def _evaluate_wave(
        self, stages: Sequence[EvaluateStage], programs: Programs, progress: Progress
    ) -> None:
        rows = [np.array(stage.tested.rows) for stage in stages]
        feed = self.feeds.of([int(r) for each in rows for r in each], stages[0].reference)
        theirs = programs.first(len(stages))
        networks = [load_params(self.folders.folder(s.network)).variables for s in stages]
        started = time.perf_counter()
        variables, step = theirs.wave.stack(networks), stages[0].network.fit.step
        asked = features if stages[0].kind == FEATURES else predict
        found = asked(step, variables, rows, feed, theirs)
        seconds = round((time.perf_counter() - started) / len(stages), 3)
        for stage, values in zip(stages, found, strict=True):
            if stage.kind == FEATURES:
                self.folders.write_features(stage, values)
            else:
                self._write_logits(stage, values)
            note = {"network": stage.network.fingerprint, "seconds": seconds}
            self.folders.finish(stage, note)
            progress.advance(len(stage.tested))

    def _fit_baselines(self, stages: Sequence[BaselineStage]) -> None:
        pending = self._pending(stages)
        if not pending:
            return
        fits = BaselineFits(self.volumes)
        with Progress(len(pending), "fit", "baselines") as progress:
            for stage in pending:
                with self.folders.locked([stage], wait=True):
                    if not self.folders.finished(stage):
                        self._fit_baseline(stage, fits)
                progress.advance()
                if self.interrupted():
                    raise Interrupted

    def _fit_baseline(self, stage: BaselineStage, fits: BaselineFits) -> None:
        started = time.perf_counter()
        self._write_logits(stage, fits.logits(stage))
        note = {
            "seen": stage.seen.to_json(),
            "covariates": list(stage.covariates),
            "seconds": round(time.perf_counter() - started, 3),
        }
        self.folders.finish(stage, note)

    def _write_logits(self, stage: EvaluateStage | BaselineStage, logits: np.ndarray) -> None:
        keys = self.volumes.catalogue.keys
        self.folders.write_logits(stage, [keys[row] for row in stage.tested.rows], logits)


def _with_length(label: str, group: Sequence[TrainStage]) -> str:
    """Returns ``source cnn5-w1, 5 networks of at most 20 epochs``, which progress counts in one."""
    longest = max(epochs(stage) for stage in group)
    networks = f"{len(group)} network{'s' * (len(group) > 1)}"
    return f"{label}, {networks} of at most {longest} epoch{'s' * (longest > 1)}"


def label_of(group: Sequence[TrainStage]) -> str:
    """Returns what a group is called: what its stages are, of several parts of the target, too."""
    named = list(dict.fromkeys(stage.label for stage in group))
    alike = list(dict.fromkeys(parted(label)[0] for label in named))
    return f"{group[0].kind} {alike[0] if len(named) > 1 else named[0]}"


def epochs(stage: TrainStage) -> int:
    """Returns the passes over its scans that a network takes at most."""
    return 1 if stage.kind == STATISTICS else stage.fit.stopping.max_epochs


def generations(stages: Sequence[Stage]) -> list[list[TrainStage]]:
    """Returns the networks among some stages, those without a parent first, then their children."""
    found: dict[int, list[TrainStage]] = {}
    for stage in stages:
        if isinstance(stage, TrainStage):
            found.setdefault(len(stage.ancestors), []).append(stage)
    return [found[number] for number in sorted(found)]


def grouped(stages: Sequence[TrainStage]) -> list[list[TrainStage]]:
    """Returns groups of stages that run the same program on volumes normalised alike."""
    groups: dict[Any, list[TrainStage]] = {}
    for stage in stages:
        shown = len(stage.unlabelled) if stage.kind == STATISTICS else None
        alike = (stage.fit, bool(len(stage.validation)), stage.reference, stage.kind, shown)
        groups.setdefault(alike, []).append(stage)
    return list(groups.values())


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yields consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
