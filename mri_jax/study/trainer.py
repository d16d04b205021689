"""Stages of training: what each learns, where it starts, and what is kept of it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from mri_jax import files
from mri_jax.planning.plan import TrainStage
from mri_jax.progress import Advancing
from mri_jax.study import choosing
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.study.verdicts import of_training
from mri_jax.training import hosts, resident
from mri_jax.training.checkpoints import (
    TrainingCheckpoints,
    network_path,
    save_network,
)
from mri_jax.training.folds import Programs
from mri_jax.training.job import Job
from mri_jax.training.loop import HISTORY, Control, Epoch, Progressed, resume
from mri_jax.training.statistics import reestimated
from mri_jax.training.step import drawn
from mri_jax.training.train import Trained, train


@dataclass(frozen=True)
class Trainer:
    """Trains stages.

    Attributes:
      folders: Where they are kept.
      volumes: The scans.
      feeds: Their way to the devices.
      control: Whether to save and stop, and how often to save.
      on_epoch: Called with the stage and its epoch's figures.
      say: Where remarks go.
    """

    folders: StageFolders
    volumes: Volumes
    feeds: Feeds
    control: Control
    on_epoch: Callable[[TrainStage, dict[str, Any]], None]
    say: Callable[[str], None]

    def train(self, stages: Sequence[TrainStage], programs: Programs, progress: Advancing) -> None:
        """Trains stages of one program, no more than it has folds, and finishes them.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        resident.forget_peak()
        rows = [r for s in stages for e in s.examples for r in e.rows]
        feed, settings = self.feeds.of(rows, stages[0].reference), stages[0].fit
        trainings = []
        for stage in stages:
            folder = self.folders.folder(stage) / "training"
            forms = choosing.recorded(programs.wave, settings, self.volumes.shape[:3])
            held = partial(self.folders.require, stage)
            checkpoints = TrainingCheckpoints(folder, self.say, forms, held)
            trainings.append(resume(settings, self._job(stage), checkpoints))
            progress.advance(int(trainings[-1].state.stopping.epochs))
        control = dataclasses.replace(self.control, report=self._reporter(stages, progress))
        for trained in train(settings, trainings, feed, programs, control):
            self._keep(stages[trained.training], trained, programs)

    def estimate_statistics(
        self, stages: Sequence[TrainStage], programs: Programs, progress: Advancing
    ) -> None:
        """Finishes stages that estimate BatchNorm's statistics on equally many scans."""
        resident.forget_peak()
        started = time.perf_counter()
        theirs = Programs(programs.wave.of(len(stages)).unsplit)
        feed = self.feeds.of([r for s in stages for r in s.unlabelled.rows], stages[0].reference)
        parents = [self._start(stage) for stage in stages]
        step, rows = stages[0].fit.step, [np.array(stage.unlabelled.rows) for stage in stages]
        found = reestimated(step, theirs.wave.stack(parents), rows, feed, theirs)
        theirs.release()
        seconds = (time.perf_counter() - started) / len(stages)
        for stage, parent, statistics in zip(stages, parents, found, strict=True):
            finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(statistics))
            note = {
                "parameters": sum(int(leaf.size) for leaf in jax.tree.leaves(parent["params"])),
                **self._common(stage, seconds, programs),
                **({} if finite else {"failed": "a statistic of BatchNorm is not finite"}),
            }
            self._finish(stage, {**parent, "batch_stats": statistics}, note, [])
            progress.advance()

    def _job(self, stage: TrainStage) -> Job:
        labels = np.zeros(len(self.volumes.catalogue.frame), np.int32)
        for examples in (stage.train, stage.validation):
            labels[list(examples.rows)] = examples.labels
        train = np.array(stage.train.rows, int)
        weights = np.ones(len(labels), np.float32)
        if stage.class_weights == "balanced":
            of_class = balanced_weights(labels[train], stage.fit.step.spec.classes)
            weights = of_class[labels].astype(np.float32)
        return Job(
            seed=stage.seed,
            purpose=stage.purpose,
            variables=self._start(stage),
            train=train,
            validation=np.array(stage.validation.rows, int),
            labels=labels,
            weights=weights,
            unlabelled=np.array(stage.unlabelled.rows, int),
        )

    def _start(self, stage: TrainStage) -> dict[str, Any]:
        if stage.parent:
            return self.folders.network(stage.parent).variables
        # Whatever is trained from scratch for a fold begins where its source network does.
        spec, shape = stage.fit.step.spec, self.volumes.shape[:3]
        return jax.device_get(drawn(spec, shape, stage.seed, stage.drawn))

    def _reporter(
        self, stages: Sequence[TrainStage], progress: Advancing
    ) -> Callable[[Epoch], None]:
        def report(epoch: Epoch) -> None:
            stage, figures = stages[epoch.training], epoch.figures
            left = stage.fit.stopping.max_epochs - epoch.epoch if epoch.last else 0
            losses = {"loss": figures["train_loss"], "held_out_loss": figures["validation_loss"]}
            progress.advance(
                1 + left,
                fold=stage.fold,
                epoch=f"{epoch.epoch}/{stage.fit.stopping.max_epochs}",
                **{name: f"{loss:.3f}" for name, loss in losses.items() if np.isfinite(loss)},
                volumes_per_s=f"{epoch.volumes_per_second:.1f}",
                waiting=f"{100 * figures['waiting']:.0f}%",
            )
            line = {"epoch": epoch.epoch, "best": epoch.best, **figures}
            self.on_epoch(stage, {k: _finite(v) for k, v in line.items()})

        return report

    def _common(self, stage: TrainStage, seconds: float, programs: Programs) -> dict[str, Any]:
        """Returns what the note of every network holds."""
        return {
            "seconds": round(seconds, 3),
            "process_bytes": resident.peak(),
            "device": programs.wave.devices[0].device_kind,
            "normalisation": dataclasses.asdict(self.volumes.normalisation(stage.reference)),
            "seen": stage.seen.to_json(),
        }

    def _finish(
        self,
        stage: TrainStage,
        variables: dict[str, Any],
        note: dict[str, Any],
        history: list[dict[str, Any]],
    ) -> None:
        self.folders.require(stage)
        folder = self.folders.folder(stage)
        if not note.get("failed"):
            told = {name: value for name, value in note.items() if name != "seen"}
            save_network(network_path(folder), variables, stage.fit.step.spec, told)
        if hosts.first():
            files.write_json(folder / "history.json", history)
            self.folders.finish(stage, note)

    def _keep(self, stage: TrainStage, trained: Trained, programs: Programs) -> None:
        state = trained.state
        note = {
            "epochs": int(state.stopping.epochs),
            "best_epoch": int(state.stopping.best_epoch),
            "best_validation_loss": _finite(float(state.stopping.best_loss)),
            "parameters": trained.parameters,
            "trainable_parameters": trained.trainable,
            **self._common(stage, trained.seconds, programs),
            **({"failed": trained.failed} if trained.failed else {}),
        }
        self._finish(stage, trained.network, note, history_rows(state))
        verdict = of_training(stage, note)
        if verdict:
            self.say(f"{stage.label} fold {stage.fold}: {verdict}")


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weight of each class, (classes,), with which all add up to the same.

    Args:
      labels: (N,) classes from 0 of the scans trained on, whose weights have mean 1.
      classes: How many there are; one that no scan has gets 0.
    """
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)


def history_rows(state: Progressed) -> list[dict[str, Any]]:
    """Returns a row an epoch from the state of a training."""
    rows = []
    for epoch, values in enumerate(state.history[: int(state.stopping.epochs)], start=1):
        figures = {name: _finite(v) for name, v in zip(HISTORY, values.tolist(), strict=True)}
        rows.append({"epoch": epoch, "best": epoch == int(state.stopping.best_epoch), **figures})
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
