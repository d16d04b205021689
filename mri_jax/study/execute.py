"""Runs a plan in this process: skips finished stages, continues those begun, starts the others."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mri_jax.adaptation import parted
from mri_jax.interruption import Interrupted
from mri_jax.planning.plan import STATISTICS, BaselineStage, EvaluateStage, Stage, TrainStage
from mri_jax.progress import Progress
from mri_jax.study.build import Builder
from mri_jax.study.computing import SideBySide
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.stages import StageFolders
from mri_jax.study.trainer import Trainer
from mri_jax.training import hosts
from mri_jax.training.loop import Control
from mri_jax.training.wave import Wave

# What the name of a network says of the sites that were left out.
_WITHOUT = re.compile(r"-without-(\S+)")


@dataclass(frozen=True)
class Executor:
    """Runs stages.

    Attributes:
      folders: Where they are kept.
      volumes: The scans.
      feeds: Their way to the devices.
      wave: What to train on.
      beside: How many networks a device trains side by side.
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
    beside: SideBySide = field(default_factory=SideBySide)
    say: Callable[[str], None] = print

    def run(self, stages: Sequence[Stage]) -> None:
        """Runs what is not finished: networks, parents first, then evaluations and baselines.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        self.feeds.hold(self._pending(stages))
        control = Control(interrupted=self._asked, save_seconds=self.save_seconds)
        trainer = Trainer(self.folders, self.volumes, self.feeds, control, self.on_epoch, self.say)
        builder = Builder(trainer, self.wave)
        try:
            for generation in generations(stages):
                self._train_all(generation, builder)
            self._evaluate_all([s for s in stages if isinstance(s, EvaluateStage)], builder)
        finally:
            builder.release()
        self._fit_baselines([s for s in stages if isinstance(s, BaselineStage)], builder)

    def _pending(self, stages: Sequence[Any]) -> list[Any]:
        """Returns the stages that are not finished, as the first of several processes sees it."""
        names = hosts.agreed(
            lambda: {s.fingerprint for s in stages if not self.folders.finished(s)}
        )
        return [stage for stage in stages if stage.fingerprint in names]

    def _train_all(self, stages: Sequence[TrainStage], builder: Builder) -> None:
        """Trains stages of one program together, as many at a time as were found to be best."""
        for wait in (False, True):
            for group in grouped(self._pending(stages)):
                label = label_of(group)
                total = sum(epochs(stage) for stage in group)
                with Progress(
                    total, "epoch", _with_length(label, group), compiles=True
                ) as progress:
                    if len(group) < self.wave.folds:
                        idle = (self.wave.folds - len(group)) * self.wave.split
                        self.say(f"{label}: devices that stay idle: {idle}")
                    at_once = self.wave.folds * self.beside.of(group[0].fit)
                    for together in batched(group, at_once):
                        builder.train(together, wait, progress)
                self._stop_if_asked()
        builder.release()

    def _evaluate_all(self, stages: Sequence[EvaluateStage], builder: Builder) -> None:
        pending = self._pending(stages)
        if not pending:
            return
        total = sum(len(stage.tested) for stage in pending)
        with Progress(total, "prediction", "evaluating networks") as progress:
            for wait in (False, True):
                for group in evaluated_alike(self._pending(stages)):
                    for together in batched(group, self.wave.folds):
                        builder.evaluate(together, wait, progress)

    def _fit_baselines(self, stages: Sequence[BaselineStage], builder: Builder) -> None:
        pending = self._pending(stages)
        if not pending:
            return
        with Progress(len(pending), "fit", "baselines") as progress:
            for stage in pending:
                hosts.agreed(partial(builder.fit, stage))
                progress.advance()
                self._stop_if_asked()

    def _asked(self) -> bool:
        return hosts.any_of(self.interrupted())

    def _stop_if_asked(self) -> None:
        if self._asked():
            raise Interrupted


def _with_length(label: str, group: Sequence[TrainStage]) -> str:
    """Returns ``source cnn5-w1, 5 networks of at most 20 epochs``, which progress counts in one."""
    longest = max(epochs(stage) for stage in group)
    networks = f"{len(group)} network{'s' * (len(group) > 1)}"
    return f"{label}, {networks} of at most {longest} epoch{'s' * (longest > 1)}"


def label_of(group: Sequence[TrainStage]) -> str:
    """Returns what a group is called: what its stages are, of several parts of the target, too.

    Where every site is left out once, they differ by the site, and their number is said.
    """
    named = list(dict.fromkeys(stage.label for stage in group))
    if len(named) == 1:
        return f"{group[0].kind} {named[0]}"
    sites = {site for label in named for site in _WITHOUT.findall(label)}
    alike = list(dict.fromkeys(parted(_WITHOUT.sub("", label))[0] for label in named))
    several = f" without each of {len(sites)} sites" if len(sites) > 1 else ""
    return f"{group[0].kind} {alike[0]}{several}"


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


def evaluated_alike(stages: Sequence[EvaluateStage]) -> list[list[list[EvaluateStage]]]:
    """Returns groups of networks whose evaluations run the same programs: a list a network."""
    networks: dict[str, list[EvaluateStage]] = {}
    for stage in stages:
        networks.setdefault(stage.network.fingerprint, []).append(stage)
    groups: dict[Any, list[list[EvaluateStage]]] = {}
    for evaluations in networks.values():
        spec = evaluations[0].network.fit.step.spec
        alike = tuple((each.kind, len(each.tested), each.reference) for each in evaluations)
        groups.setdefault((spec, alike), []).append(evaluations)
    return list(groups.values())


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
