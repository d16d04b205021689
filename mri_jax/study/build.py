"""Builds stages on the devices of this process: trains networks, evaluates them, fits baselines."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mri_jax import files
from mri_jax.planning.plan import FEATURES, STATISTICS, BaselineStage, EvaluateStage, TrainStage
from mri_jax.progress import Advancing
from mri_jax.study.baseline_fits import BaselineFits
from mri_jax.study.trainer import Trainer
from mri_jax.training import hosts
from mri_jax.training.folds import Programs
from mri_jax.training.inference import outputs
from mri_jax.training.job import FitSettings
from mri_jax.training.wave import Wave


class Builder:
    """Builds stages whose parents are finished; those that are finished themselves are left alone.

    Compiled programs stay for the next stages, until those need others.

    Args:
      trainer: What trains networks; says where stages are kept and scans come from.
      wave: What to train on.
    """

    def __init__(self, trainer: Trainer, wave: Wave):
        self._trainer, self._folders, self._volumes = trainer, trainer.folders, trainer.volumes
        self._programs, self._fits = Programs(wave), BaselineFits(trainer.volumes)
        self._fit: FitSettings | None = None

    def release(self) -> None:
        """Releases the compiled programs."""
        self._programs.release()
        self._fit = None

    def train(self, stages: Sequence[TrainStage], wait: bool, progress: Advancing) -> None:
        """Builds networks of one program, each a fold of the wave.

        Args:
          stages: The networks.
          wait: Whether to wait for those that another process builds; else they are left out.
          progress: Counts epochs.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        trains = stages[0].kind != STATISTICS
        if trains:
            if self._fit not in (None, stages[0].fit.program):
                self._programs.release()
            self._fit = stages[0].fit.program
        with self._held(stages, wait) as usable:
            if usable and trains:
                self._trainer.train(usable, self._programs, progress)
            elif usable:
                self._trainer.estimate_statistics(usable, self._programs, progress)

    def evaluate(
        self, networks: Sequence[Sequence[EvaluateStage]], wait: bool, progress: Advancing
    ) -> None:
        """Builds the evaluations of networks of one shape; each sees each of its scans once.

        Args:
          networks: The evaluations of each; no more networks than the wave has folds.
          wait: As for `train`.
          progress: Counts predictions.

        Raises:
          Interrupted: Asked to stop; what is finished is saved.
        """
        asked = [stage for evaluations in networks for stage in evaluations]
        with self._held(asked, wait) as held:
            usable = {stage.fingerprint for stage in held}
            theirs = [[s for s in stages if s.fingerprint in usable] for stages in networks]
            if theirs := [stages for stages in theirs if stages]:
                self._evaluate(theirs, progress)

    def fit(self, stage: BaselineStage) -> None:
        """Builds a plain classifier."""
        with self._folders.locked([stage], wait=True):
            if self._folders.finished(stage):
                return
            started = time.perf_counter()
            self._write_logits(stage, self._fits.logits(stage))
            note = {
                "seen": stage.seen.to_json(),
                "covariates": list(stage.covariates),
                "seconds": round(time.perf_counter() - started, 3),
            }
            self._folders.finish(stage, note)

    @contextlib.contextmanager
    def _held(self, stages: Sequence[Any], wait: bool) -> Iterator[list[Any]]:
        """Locks stages; yields those to build, which several processes build together."""
        with contextlib.ExitStack() as locks:

            def usable() -> set[str]:
                held = locks.enter_context(self._folders.locked(stages, wait))
                return {stage.fingerprint for stage in self._usable(held)}

            names = hosts.agreed(usable)
            yield [stage for stage in stages if stage.fingerprint in names]

    def _usable(self, stages: Sequence[Any]) -> list[Any]:
        """Returns stages to build, without those whose network failed: they fail with it."""
        kept = []
        for stage in stages:
            if self._folders.finished(stage):
                continue
            parent = stage.parent if isinstance(stage, TrainStage) else stage.network
            reason = self._folders.failure(parent) if parent else ""
            if reason:
                if isinstance(stage, TrainStage):
                    files.write_json(self._folders.folder(stage) / "history.json", [])
                self._folders.finish(stage, {"failed": f"its network failed ({reason})"})
            else:
                kept.append(stage)
        return kept

    def _evaluate(self, networks: Sequence[Sequence[EvaluateStage]], progress: Advancing) -> None:
        rows = [np.unique([row for s in stages for row in s.tested.rows]) for stages in networks]
        first = networks[0][0]
        feed = self._trainer.feeds.of([int(r) for each in rows for r in each], first.reference)
        programs = self._programs.of(len(networks))
        started = time.perf_counter()
        variables = programs.wave.stack(
            [self._folders.network(stages[0].network).variables for stages in networks]
        )
        stop = self._trainer.control.interrupted
        found = outputs(first.network.fit.step, variables, rows, feed, programs, stop)
        seconds = round((time.perf_counter() - started) / sum(map(len, networks)), 3)
        for stages, seen, (logits, features) in zip(networks, rows, found, strict=True):
            for stage in stages:
                places = np.searchsorted(seen, stage.tested.rows)
                if hosts.first():
                    if stage.kind == FEATURES:
                        self._folders.write_features(stage, features[places])
                    else:
                        self._write_logits(stage, logits[places])
                    note = {"network": stage.network.fingerprint, "seconds": seconds}
                    self._folders.finish(stage, note)
                progress.advance(len(stage.tested))

    def _write_logits(self, stage: EvaluateStage | BaselineStage, logits: np.ndarray) -> None:
        keys = self._volumes.catalogue.keys
        self._folders.write_logits(stage, [keys[row] for row in stage.tested.rows], logits)
