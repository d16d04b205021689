"""Training of a few networks at a time, from where they stand to their end."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from mri_jax.training.failure import failure
from mri_jax.training.feed import Feed
from mri_jax.training.folds import Programs
from mri_jax.training.freezing import log_rules, trainable_mask
from mri_jax.training.job import FitSettings
from mri_jax.training.loop import Control, Epoch, Progressed, Training, fit
from mri_jax.training.prefix import on_features


class Trained(NamedTuple):
    """A network at the end of its training.

    Attributes:
      training: Its place among the trainings.
      state: The final state.
      network: Its variables; without layers of the objective's own.
      seconds: Its share of the time.
      failed: Why it may not be used; empty where it may.
      parameters: How many numbers it has.
      trainable: How many of them trained.
    """

    training: int
    state: Progressed
    network: dict[str, Any]
    seconds: float
    failed: str
    parameters: int
    trainable: int


def train(
    settings: FitSettings,
    trainings: Sequence[Training],
    feed: Feed,
    programs: Programs,
    control: Control,
) -> Iterator[Trained]:
    """Trains networks to their end, on the features of a frozen prefix where there is one.

    Args:
      settings: What holds for all trainings.
      trainings: From `mri_jax.training.loop.resume`, no more than the programs' wave has folds.
      feed: The volumes.
      programs: Programs of the wave.
      control: What accompanies them.

    Yields:
      Each network once those that train beside it have ended.

    Raises:
      Interrupted: ``control.interrupted`` said so; all states are saved.
    """
    log_rules(settings.step.rules, trainings[0].job.variables["params"])

    def position(place: int) -> int:
        return int(trainings[place].state.position)

    # Trainings that were killed at different places of an epoch cannot share a program.
    for _, found in itertools.groupby(sorted(range(len(trainings)), key=position), key=position):
        places = list(found)
        alike = [trainings[place] for place in places]
        started, theirs = time.perf_counter(), programs.of(len(alike))
        ready, seen = on_features(settings, alike, feed, theirs)

        def report(epoch: Epoch, places: list[int] = places) -> None:
            control.report(epoch._replace(training=places[epoch.training]))

        ended = fit(ready, alike, seen, theirs, replace(control, report=report))
        seconds = (time.perf_counter() - started) / len(alike)
        for place, training, state in zip(places, alike, ended, strict=True):
            yield _trained(settings, training._replace(state=state), place, seconds)


def _trained(settings: FitSettings, ended: Training, place: int, seconds: float) -> Trained:
    own = settings.step.spec.layer_names
    params = {name: layer for name, layer in ended.state.best["params"].items() if name in own}
    mask = trainable_mask(settings.step.rules, params)
    trainable = jax.tree.map(lambda p, on: int(p.size) * bool(on), params, mask)
    steps = ended.job.steps(settings.batch)
    return Trained(
        training=place,
        state=ended.state,
        network={**ended.state.best, "params": params},
        seconds=seconds,
        failed=failure(ended.state, steps, bool(len(ended.job.validation))),
        parameters=sum(int(p.size) for p in jax.tree.leaves(params)),
        trainable=sum(jax.tree.leaves(trainable)),
    )
