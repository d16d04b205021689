"""Running a plan: stages that are there are skipped, those begun go on, the others start."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mri_jax import files
from mri_jax.evaluation import baselines
from mri_jax.evaluation.linear import block_mean
from mri_jax.planning.catalogue import Examples
from mri_jax.planning.plan import BaselineStage, EvaluateStage, Stage, TrainStage
from mri_jax.progress import Progress
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.study.verdicts import of_training
from mri_jax.training.checkpoints import (
    TrainingCheckpoints,
    load_params,
    network_path,
    save_network,
)
from mri_jax.training.failure import failure
from mri_jax.training.folds import Wave
from mri_jax.training.freezing import log_rules, trainable_mask
from mri_jax.training.loop import HISTORY, Epoch, Interrupted, Job, Progressed, fit, predict, resume
from mri_jax.training.prefix import on_features
from mri_jax.training.state import random_key
from mri_jax.training.step import init_variables


@dataclasses.dataclass(frozen=True)
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
        """Run what is not finished: sources, then tunings, evaluations and baselines.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        self._hold(self._pending(stages))
        for kind in ("source", "tune"):
            trainings = [s for s in stages if isinstance(s, TrainStage) and s.kind == kind]
            self._train_all(trainings)
        self._evaluate_all([s for s in stages if isinstance(s, EvaluateStage)])
        self._fit_baselines([s for s in stages if isinstance(s, BaselineStage)])

    def _hold(self, pending: Sequence[Stage]) -> None:
        references = {stage.reference for stage in pending}
        if len(references) == 1:
            rows = [row for stage in pending for e in stage.examples for row in e.rows]
            self.feeds.hold(rows, references.pop())

    def _pending(self, stages: Sequence[Any]) -> list[Any]:
        return [stage for stage in stages if not self.folders.finished(stage)]

    def _usable(self, stages: Sequence[Any]) -> list[Any]:
        """Stages without those that rest on a network whose training failed: they fail with it."""
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

    def _train_all(self, stages: Sequence[TrainStage]) -> None:
        """Stages of one program together, as many at a time as the wave has folds."""
        for wait in (False, True):
            for group in grouped(self._pending(stages)):
                label = f"{group[0].kind} {group[0].label}"
                total = sum(stage.fit.stopping.max_epochs for stage in group)
                with Progress(total, "epoch", label, compiles=True) as progress:
                    if len(group) < self.wave.folds:
                        idle = (self.wave.folds - len(group)) * self.wave.split
                        self.say(f"{label}: {idle} devices stay idle")
                    for together in batched(group, self.wave.folds):
                        with self.folders.locked(together, wait) as held:
                            pending = self._usable(self._pending(held))
                            if pending:
                                self._train_wave(pending, progress)
                if self.interrupted():
                    raise Interrupted

    def _train_wave(self, stages: Sequence[TrainStage], progress: Progress) -> None:
        rows = [r for s in stages for e in s.examples for r in e.rows]
        feed, place = self.feeds.of(rows, stages[0].reference)
        jobs = [self._job(stage, place) for stage in stages]
        settings = stages[0].fit
        log_rules(settings.step.rules, jobs[0].variables["params"])
        places = [self.folders.folder(stage) / "training" for stage in stages]
        opened = [TrainingCheckpoints(place, self.say) for place in places]
        states = [resume(settings, j, c) for j, c in zip(jobs, opened, strict=True)]
        # Folds that were killed at different places of an epoch cannot share a program.
        for _, found in itertools.groupby(
            sorted(range(len(jobs)), key=lambda i: int(states[i].position)),
            key=lambda i: int(states[i].position),
        ):
            chosen = list(found)
            for i in chosen:
                progress.advance(int(states[i].stopping.epochs))
            started = time.perf_counter()
            wave, begun = self.wave.first(len(chosen)), [states[i] for i in chosen]
            ready = on_features(settings, [jobs[i] for i in chosen], begun, feed, wave)
            ended = fit(
                ready[0],
                ready[1],
                begun,
                [opened[i] for i in chosen],
                ready[2],
                wave,
                self._reporter([stages[i] for i in chosen], progress),
                self.interrupted,
                self.save_seconds,
            )
            seconds = time.perf_counter() - started
            for i, state in zip(chosen, ended, strict=True):
                self._keep(stages[i], state, seconds / len(chosen))

    def _job(self, stage: TrainStage, place: dict[int, int]) -> Job:
        labels = np.zeros(len(place), np.int32)
        for examples in stage.examples:
            for row, label in zip(examples.rows, examples.labels, strict=True):
                labels[place[row]] = label
        train = np.array([place[row] for row in stage.train.rows])
        weights = np.ones(len(place), np.float32)
        if stage.class_weights == "balanced":
            counts = np.bincount(labels[train], minlength=2)
            weights = (len(train) / (2 * counts))[labels].astype(np.float32)
        return Job(
            name=stage.label,
            seed=stage.seed,
            purpose=stage.purpose,
            variables=self._start(stage),
            train=train,
            validation=np.array([place[row] for row in stage.validation.rows], int),
            labels=labels,
            weights=weights,
        )

    def _start(self, stage: TrainStage) -> dict[str, Any]:
        if stage.parent:
            return load_params(self.folders.folder(stage.parent)).variables
        key = random_key(stage.seed, "init", *stage.purpose)
        shape = self.volumes.shape[:3]
        return jax.device_get(init_variables(stage.fit.step.spec, shape, jax.numpy.asarray(key)))

    def _reporter(
        self, stages: Sequence[TrainStage], progress: Progress
    ) -> Callable[[Epoch], None]:
        def report(epoch: Epoch) -> None:
            stage, figures = stages[epoch.job], epoch.figures
            left = stage.fit.stopping.max_epochs - epoch.epoch if epoch.last else 0
            losses = {"loss": figures["train_loss"], "validation": figures["validation_loss"]}
            progress.advance(
                1 + left,
                fold=stage.fold,
                epoch=epoch.epoch,
                **{name: f"{loss:.3f}" for name, loss in losses.items() if np.isfinite(loss)},
                volumes_per_s=f"{epoch.volumes_per_second:.1f}",
                waiting=f"{100 * figures['waiting']:.0f}%",
            )
            line = {"epoch": epoch.epoch, "best": epoch.best, **figures}
            self.on_epoch(stage, {k: _finite(v) for k, v in line.items()})

        return report

    def _keep(self, stage: TrainStage, state: Progressed, seconds: float) -> None:
        folder = self.folders.folder(stage)
        mask = trainable_mask(stage.fit.step.rules, state.best["params"])
        sizes = jax.tree.map(lambda p, on: int(p.size) * bool(on), state.best["params"], mask)
        steps = len(stage.train) // stage.fit.batch
        failed = failure(state, steps, bool(len(stage.validation)))
        note = {
            "epochs": int(state.stopping.epochs),
            "best_epoch": int(state.stopping.best_epoch),
            "best_validation_loss": _finite(float(state.stopping.best_loss)),
            "parameters": sum(int(p.size) for p in jax.tree.leaves(state.best["params"])),
            "trainable_parameters": sum(jax.tree.leaves(sizes)),
            "seconds": round(seconds, 3),
            "device": self.wave.devices[0].device_kind,
            "normalisation": dataclasses.asdict(self.volumes.normalisation(stage.reference)),
            "seen": stage.seen.to_json(),
            **({"failed": failed} if failed else {}),
        }
        if not failed:
            save_network(
                network_path(folder),
                state.best,
                stage.fit.step.spec,
                {k: v for k, v in note.items() if k != "seen"},
            )
        files.write_json(folder / "history.json", history_rows(state))
        self.folders.finish(stage, note)
        verdict = of_training(stage, note)
        if verdict:
            self.say(f"{stage.label} fold {stage.fold}: {verdict}")

    def _evaluate_all(self, stages: Sequence[EvaluateStage]) -> None:
        pending = self._pending(stages)
        if not pending:
            return
        total = sum(len(stage.tested) for stage in pending)
        with Progress(total, "scan", "evaluating networks") as progress:
            for wait in (False, True):
                groups: dict[Any, list[EvaluateStage]] = {}
                for stage in self._pending(stages):
                    step = stage.network.fit.step
                    alike = (step.spec, len(stage.tested), stage.reference)
                    groups.setdefault(alike, []).append(stage)
                for group in groups.values():
                    for together in batched(group, self.wave.folds):
                        with self.folders.locked(together, wait) as held:
                            self._evaluate_wave(self._usable(self._pending(held)), progress)
                        if self.interrupted():
                            raise Interrupted

    def _evaluate_wave(self, stages: Sequence[EvaluateStage], progress: Progress) -> None:
        if not stages:
            return
        rows = [r for s in stages for r in s.tested.rows]
        feed, place = self.feeds.of(rows, stages[0].reference)
        wave = self.wave.first(len(stages))
        networks = [load_params(self.folders.folder(s.network)).variables for s in stages]
        started = time.perf_counter()
        places = [np.array([place[row] for row in s.tested.rows]) for s in stages]
        settings = stages[0].network.fit
        found = predict(settings, wave.stack(networks), places, feed, wave)
        seconds = round((time.perf_counter() - started) / len(stages), 3)
        for stage, logits in zip(stages, found, strict=True):
            self.folders.write_logits(stage, self._keys(stage.tested), logits)
            note = {"network": stage.network.fingerprint, "seconds": seconds}
            self.folders.finish(stage, note)
            progress.advance(len(stage.tested))

    def _keys(self, examples: Examples) -> list[tuple[str, str]]:
        return [self.volumes.catalogue.keys[row] for row in examples.rows]

    def _fit_baselines(self, stages: Sequence[BaselineStage]) -> None:
        pending = self._pending(stages)
        if not pending:
            return
        blocks: dict[Any, np.ndarray] = {}
        with Progress(len(pending), "fit", "baselines") as progress:
            for stage in pending:
                with self.folders.locked([stage], wait=True):
                    if not self.folders.finished(stage):
                        self._fit_baseline(stage, blocks)
                progress.advance()
                if self.interrupted():
                    raise Interrupted

    def _fit_baseline(self, stage: BaselineStage, blocks: dict[Any, np.ndarray]) -> None:
        started, labels = time.perf_counter(), np.array(stage.train.labels)
        train, tested = (
            baselines.values(self.volumes.catalogue.frame, stage.covariates, examples.rows)
            if stage.covariates
            else self._blocks(stage, examples, blocks)
            for examples in (stage.train, stage.tested)
        )
        logits = baselines.named(stage.name).fit(train, labels, stage.seed).logits(tested)
        self.folders.write_logits(stage, self._keys(stage.tested), logits)
        note = {
            "seen": stage.seen.to_json(),
            "covariates": list(stage.covariates),
            "seconds": round(time.perf_counter() - started, 3),
        }
        self.folders.finish(stage, note)

    def _blocks(
        self, stage: BaselineStage, examples: Examples, kept: dict[Any, np.ndarray]
    ) -> np.ndarray:
        spacing = self.volumes.catalogue.grid.spacing
        missing = [row for row in examples.rows if (stage.reference, row) not in kept]
        reader = self.volumes.reader(tuple(missing), stage.reference)
        for place, row in enumerate(missing):
            volume = reader.read(place)[..., 0]
            kept[stage.reference, row] = block_mean(volume, spacing)
        return np.stack([kept[stage.reference, row] for row in examples.rows])


def grouped(stages: Sequence[TrainStage]) -> list[list[TrainStage]]:
    """Stages that run the same program on volumes normalised alike, in the order of the plan."""
    groups: dict[Any, list[TrainStage]] = {}
    for stage in stages:
        alike = (stage.fit, bool(len(stage.validation)), stage.reference)
        groups.setdefault(alike, []).append(stage)
    return list(groups.values())


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def history_rows(state: Progressed) -> list[dict[str, Any]]:
    """A row an epoch, from the state of a training."""
    rows = []
    for epoch, values in enumerate(state.history[: int(state.stopping.epochs)], start=1):
        figures = {name: _finite(v) for name, v in zip(HISTORY, values.tolist(), strict=True)}
        rows.append({"epoch": epoch, "best": epoch == int(state.stopping.best_epoch), **figures})
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
