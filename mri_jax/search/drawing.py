"""How trials are drawn from the space of a search.

A trial is drawn by a sampler of its own, whose seed is a function of the study's seed, of the
search and of the trial's place in it. What was found before then determines it, whether or not the
search was killed in between.
"""

import json
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from mri_jax.seeding import generator
from mri_jax.settings.search import TPE, Search
from mri_jax.settings.space import Line, grid_of


def say_nothing() -> None:
    """Leaves it to the search to say what becomes of its trials; warnings of Optuna's stay."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def sampler(search: Search, kind: str, seed: int, place: int) -> BaseSampler:
    """Returns what draws one trial.

    Args:
      search: The search.
      kind: `TPE` learns from trials that ended, every other kind draws by chance.
      seed: The study's seed.
      place: Which trial of its kind, from 0.
    """
    own = int(generator(seed, "search", kind, place).integers(2**31))
    if kind == TPE:
        return TPESampler(n_startup_trials=search.startup, seed=own)
    return RandomSampler(seed=own)


def values_of(trial: optuna.Trial, lines: Sequence[Line]) -> dict[str, Any]:
    """Returns a value for each line that is drawn beside the values before it."""
    found: dict[str, Any] = {}
    for line in lines:
        if line.drawn(found):
            found[line.field] = _value(trial, line)
    return found


def _value(trial: optuna.Trial, line: Line) -> Any:
    if line.type == "choice":
        told = [_told(option) for option in line.options]
        return line.options[told.index(trial.suggest_categorical(line.field, told))]
    if line.type == "int":
        low, high = int(line.low), int(line.high)
        return trial.suggest_int(line.field, low, high, step=line.step, log=line.log)
    return trial.suggest_float(line.field, float(line.low), float(line.high), log=line.log)


def grid_points(lines: Sequence[Line], seed: int) -> list[dict[str, Any]]:
    """Returns the points of a space's grid as Optuna's parameters, in a random order.

    A search that ends before all of them then has seen every part of the space.
    """
    points = list(grid_of(lines))
    choices = {line.field for line in lines if line.type == "choice"}
    order = generator(seed, "search", "grid").permutation(len(points))
    return [
        {name: _told(v) if name in choices else v for name, v in points[place].items()}
        for place in order
    ]


def _told(option: Any) -> str:
    """Returns an option as the journal has it: Optuna keeps no tuples."""
    return json.dumps(option)
