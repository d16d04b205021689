"""Builds stages on the devices of this process: trains networks, evaluates them, fits baselines."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_jax import files
from mri_jax.interruption import Interrupted
from mri_jax.planning.plan import FEATURES, STATISTICS, BaselineStage, EvaluateStage, TrainStage
from mri_jax.progress import Advancing
from mri_jax.study.baseline_fits import BaselineFits
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.study.trainer import Trainer
from mri_jax.training import hosts
from mri_jax.training.folds import Programs, Wave
from mri_jax.training.inference import features, predict
from mri_jax.training.loop import Control, FitSettings


@dataclass
class Builder:
    """Builds stages whose parents are finished; those that are finished themselves are left alone.

    Compiled programs stay for the next stages, until those need others.

    Attributes:
      folders: Where stages are kept.
      volumes: The scans.
      feeds: Their way to the devices.
      wave: What to train on: as many folds at once as it has.
      control: Whether to save and stop, and how often to save.
      on_epoch: Called with a stage and its epoch's figures.
      say: Where remarks go.
    """

    folders: StageFolders
    volumes: Volumes
    feeds: Feeds
    wave: Wave
    control: Control
    on_epoch: Callable[[TrainStage, dict[str, Any]], None]
    say: Callable[[str], None]

    def __post_init__(self):
        self._programs, self._fits = Programs(self.wave), BaselineFits(self.volumes)
        self._trainer = Trainer(
            self.folders, self.volumes, self.feeds, self.control, self.on_epoch, self.say
        )
        self._fit: FitSettings | None = None

    def release(self) -> None:
        """Releases the compiled programs."""
        self._programs.release()
        self._fit = None

    def train(self, stages: Sequence[TrainStage], wait: bool, progress: Advancing) -> None:
        """Builds networks of one program, no more at a time than the wave has folds.

        Args:
          stages: The networks.
          wait: Whether to wait for those that another process builds; else they are left out.
          progress: Counts epochs.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        trains = stages[0].kind != STATISTICS
        if trains:
            if self._fit and not self._fit.same_program(stages[0].fit):
                self._programs.release()
            self._fit = stages[0].fit
        with self._held(stages, wait) as usable:
            if usable and trains:
                self._trainer.train(usable, self._programs, progress)
            elif usable:
                self._trainer.estimate_statistics(usable, self._programs, progress)

    def evaluate(
        self, networks: Sequence[Sequence[EvaluateStage]], wait: bool, progress: Advancing
    ) -> None:
        """Builds the evaluations of networks of one shape.

        Args:
          networks: The evaluations of each, equally many, which from one network to the next are
            of equally many scans; no more networks than the wave has folds.
          wait: As for `train`.
          progress: Counts predictions.

        Raises:
          Interrupted: Asked to stop; what is finished is saved.
        """
        asked = [stage for evaluations in networks for stage in evaluations]
        with self._held(asked, wait) as held:
            usable = {stage.fingerprint for stage in held}
            variables: dict[str, Any] = {}
            for alike in zip(*networks, strict=True):
                stages = [stage for stage in alike if stage.fingerprint in usable]
                for network in (
                    s.network for s in stages if s.network.fingerprint not in variables
                ):
                    variables[network.fingerprint] = self.folders.network(network).variables
                if stages:
                    self._evaluate(stages, variables, progress)
                if self.control.interrupted():
                    raise Interrupted

    def fit(self, stage: BaselineStage) -> None:
        """Builds a plain classifier."""
        with self.folders.locked([stage], wait=True):
            if self.folders.finished(stage):
                return
            started = time.perf_counter()
            self._write_logits(stage, self._fits.logits(stage))
            note = {
                "seen": stage.seen.to_json(),
                "covariates": list(stage.covariates),
                "seconds": round(time.perf_counter() - started, 3),
            }
            self.folders.finish(stage, note)

    @contextlib.contextmanager
    def _held(self, stages: Sequence[Any], wait: bool) -> Iterator[list[Any]]:
        """Locks stages; yields those to build, which several processes build together."""
        with contextlib.ExitStack() as locks:

            def usable() -> set[str]:
                held = locks.enter_context(self.folders.locked(stages, wait))
                return {stage.fingerprint for stage in self._usable(held)}

            names = hosts.agreed(usable)
            yield [stage for stage in stages if stage.fingerprint in names]

    def _usable(self, stages: Sequence[Any]) -> list[Any]:
        """Returns stages to build, without those whose network failed: they fail with it."""
        kept = []
        for stage in stages:
            if self.folders.finished(stage):
                continue
            parent = stage.parent if isinstance(stage, TrainStage) else stage.network
            reason = self.folders.failure(parent) if parent else ""
            if reason:
                if isinstance(stage, TrainStage):
                    files.write_json(self.folders.folder(stage) / "history.json", [])
                self.folders.finish(stage, {"failed": f"its network failed ({reason})"})
            else:
                kept.append(stage)
        return kept

    def _evaluate(
        self,
        stages: Sequence[EvaluateStage],
        networks: Mapping[str, Any],
        progress: Advancing,
    ) -> None:
        rows = [np.array(stage.tested.rows) for stage in stages]
        feed = self.feeds.of([int(r) for each in rows for r in each], stages[0].reference)
        theirs = self._programs.first(len(stages))
        started = time.perf_counter()
        variables = theirs.wave.stack([networks[s.network.fingerprint] for s in stages])
        step = stages[0].network.fit.step
        asked = features if stages[0].kind == FEATURES else predict
        found = asked(step, variables, rows, feed, theirs)
        seconds = round((time.perf_counter() - started) / len(stages), 3)
        for stage, values in zip(stages, found, strict=True):
            if hosts.first():
                if stage.kind == FEATURES:
                    self.folders.write_features(stage, values)
                else:
                    self._write_logits(stage, values)
                note = {"network": stage.network.fingerprint, "seconds": seconds}
                self.folders.finish(stage, note)
            progress.advance(len(stage.tested))

    def _write_logits(self, stage: EvaluateStage | BaselineStage, logits: np.ndarray) -> None:
        keys = self.volumes.catalogue.keys
        self.folders.write_logits(stage, [keys[row] for row in stage.tested.rows], logits)
