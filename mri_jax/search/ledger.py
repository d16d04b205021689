"""Who runs which trial: processes take trials from one journal, and give back what they found.

A process holds a lock of the operating system for as long as it runs a trial. A trial that runs
and whose lock is free has lost its owner: it is put down as failed, and enqueued again with its
parameters. Nothing depends on clocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from etils import epath
from filelock import Timeout
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from mri_jax.errors import UserError
from mri_jax.locks import lock_of
from mri_jax.search.drawing import grid_points, sampler, values_of
from mri_jax.search.journal import NAME, Journal
from mri_jax.settings.search import GRID, NO_PRUNER, OBJECTIVES, Search
from mri_jax.settings.space import Line

PLACE, AGAIN, DRAWN, REASON, ASKED = "place", "again", "drawn", "reason", "asked"
"""Attributes of trials: which of its kind, once it is drawn whole; which trial it repeats, and what
that one had drawn; why it was pruned. And of a search: the fingerprint of all that it was asked."""


@dataclass(frozen=True)
class Taken:
    """A trial that this process runs.

    Attributes:
      trial: Optuna's.
      values: A value for each field that was drawn.
      lock: Held until it is given back.
    """

    trial: optuna.Trial
    values: dict[str, Any]
    lock: Any

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.trial.study.study_name} trial {self.trial.user_attrs[PLACE] + 1}"

    @property
    def goes_on(self) -> bool:
        """Whether it was begun before, by a process that was ended."""
        return self.trial.user_attrs.get(AGAIN) is not None

    def note(self, **facts: Any) -> None:
        """Keeps what is known of it beside its values."""
        for name, fact in facts.items():
            self.trial.set_user_attr(name, fact)

    def finish(self, values: Sequence[float]) -> None:
        """Gives it back with its objectives."""
        self.trial.study.tell(self.trial, list(values))
        self.lock.release()

    def prune(self, reason: str) -> None:
        """Gives it back without them."""
        self.note(**{REASON: reason})
        self.trial.study.tell(self.trial, state=TrialState.PRUNED)
        self.lock.release()

    def leave(self) -> None:
        """Lets it go, so that whoever comes next goes on with it."""
        self.lock.release()


class Ledger:
    """The trials of one kind.

    Args:
      folder: Holds the journal and the locks.
      kind: ``tpe``, ``random`` or ``grid``; ``beside`` for those that are compared with.
      search: What is asked.
      lines: Its space.
      seed: The study's seed.
      asked: Fingerprint of all that determines what a trial finds.
    """

    def __init__(
        self,
        folder: epath.Path,
        kind: str,
        search: Search,
        lines: Sequence[Line],
        seed: int,
        asked: str,
    ):
        self._folder, self.kind, self._search = folder, kind, search
        self._lines, self._seed = lines, seed
        self._lock = lock_of(folder / "ask.lock")
        self._grid = grid_points(lines, seed) if kind == GRID else []
        with self._lock.acquire(timeout=-1):
            self._study = optuna.create_study(
                study_name=kind,
                storage=JournalStorage(Journal(folder)),
                directions=[OBJECTIVES[name] for name in search.objectives],
                pruner=_pruner(search),
                load_if_exists=True,
            )
            before = self._study.user_attrs.get(ASKED)
            if before is None:
                self._study.set_user_attr(ASKED, asked)
            elif before != asked:
                raise UserError(
                    f"{folder / NAME}: is the journal of another search (space, objective, source, "
                    "seed or the arithmetic of this version differ); choose another --workdir"
                )

    @property
    def wanted(self) -> int:
        """How many trials there shall be."""
        return min(self._search.trials, len(self._grid)) if self._grid else self._search.trials

    def trials(self) -> list[FrozenTrial]:
        """Returns the trials that were taken, in their places, without those that lost their owner.

        What a trial that repeats another one lost, the other one keeps.
        """
        kept = [
            t
            for t in self._study.get_trials(deepcopy=False)
            if t.state != TrialState.FAIL and PLACE in t.user_attrs
        ]
        return sorted(kept, key=lambda trial: trial.user_attrs[PLACE])

    @property
    def left(self) -> int:
        """How many trials have not ended."""
        return max(0, self.wanted - sum(trial.state.is_finished() for trial in self.trials()))

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return not self.left

    def take(self) -> Taken | None:
        """Returns the next trial, which nobody else gets; None where there is none to begin."""
        with self._lock.acquire(timeout=-1):
            self._recover()
            taken = {trial.user_attrs[PLACE] for trial in self.trials()}
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            place = next(k for k in range(len(taken) + 1) if k not in taken)
            if not waiting and place >= self.wanted:
                return None
            if not waiting and self._grid:
                self._study.enqueue_trial(self._grid[place])
            self._study.sampler = sampler(self._search, self.kind, self._seed, place)
            trial = self._study.ask()
            own = self._own(trial.number)
            own.acquire(timeout=0)
            values = values_of(trial, self._lines)
            if PLACE not in trial.user_attrs:
                trial.set_user_attr(PLACE, place)
            return Taken(trial, values, own)

    def before(self, taken: Taken) -> dict[int, float]:
        """Returns what was reported of a trial that another one repeats."""
        trials = self._study.get_trials(deepcopy=False)
        found: dict[int, float] = {}
        number = taken.trial.user_attrs.get(AGAIN)
        while number is not None:
            found |= trials[number].intermediate_values
            number = trials[number].user_attrs.get(AGAIN)
        return found

    def _recover(self) -> None:
        """Enqueues running trials without an owner again; those that are not drawn whole are lost.

        The latter are drawn anew, at the same place and so alike.
        """
        trials = self._study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in (t for t in trials if t.state == TrialState.RUNNING):
            own = self._own(trial.number)
            try:
                own.acquire(timeout=0)
            except Timeout:
                continue
            try:
                if PLACE in trial.user_attrs and trial.number not in repeated:
                    # One that repeats another may have lost its owner before it had all of it.
                    drawn = trial.user_attrs.get(DRAWN, trial.params)
                    about = {PLACE: trial.user_attrs[PLACE], AGAIN: trial.number, DRAWN: drawn}
                    self._study.enqueue_trial(drawn, user_attrs=about)
                self._study.tell(trial.number, state=TrialState.FAIL)
            finally:
                own.release()

    def _own(self, number: int) -> Any:
        return lock_of(self._folder / "running" / f"{self.kind}-{number}.lock")


def _pruner(search: Search) -> BasePruner:
    """Returns what ends trials early; its steps are those of `mri_jax.search.trial`."""
    if search.pruner == NO_PRUNER:
        return NopPruner()
    return MedianPruner(n_startup_trials=search.startup)
