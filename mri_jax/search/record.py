"""The trials of a search as tables: what the report reads, and whom the search chooses."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from mri_jax.runs.search import PREFIX
from mri_jax.search.ledger import AGAIN, DRAWN, PLACE, REASON, Ledger
from mri_jax.settings.search import OBJECTIVES
from mri_jax.settings.sections import Model
from mri_jax.settings.space import Line, overrides

_INSIDE = (PLACE, AGAIN, DRAWN, REASON, "folds")


def table(ledgers: Sequence[Ledger], lines: Sequence[Line], names: Sequence[str]) -> pd.DataFrame:
    """Returns a row a trial, in the order of their places.

    Args:
      ledgers: The search, and what it is compared with.
      lines: Its space.
      names: Its objectives.
    """
    rows = [
        {"search": ledger.kind, **_row(trial, lines, names)}
        for ledger in ledgers
        for trial in ledger.trials()
    ]
    return pd.DataFrame(rows)


def _row(trial: FrozenTrial, lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any]:
    told = {name: value for name, value in trial.user_attrs.items() if name not in _INSIDE}
    values = dict(zip(names, trial.values, strict=True)) if _complete(trial) else {}
    started, ended = trial.datetime_start, trial.datetime_complete
    return {
        "trial": trial.user_attrs[PLACE] + 1,
        "state": trial.state.name.lower(),
        "reason": trial.user_attrs.get(REASON, ""),
        **{f"{PREFIX}{line.field}": told_value(trial, line) for line in lines},
        **told,
        **values,
        "minutes": (ended - started).total_seconds() / 60 if started and ended else float("nan"),
        "epochs": len(trial.intermediate_values),
    }


def told_value(trial: FrozenTrial, line: Line) -> Any:
    """Returns the value of a field as tables have it; empty where it was not drawn."""
    value = trial.params.get(line.field, "")
    if line.type != "choice" or value == "":
        return value
    option = json.loads(value)
    return ", ".join(map(str, option)) or "none" if isinstance(option, list) else str(option)


def values_of(trial: FrozenTrial, lines: Sequence[Line]) -> dict[str, Any]:
    """Returns the value of each field that was drawn, as the space has it."""
    found = {}
    for line in lines:
        if line.field in trial.params:
            value = trial.params[line.field]
            if line.type == "choice":
                value = next(o for o in line.options if json.dumps(o) == value)
            found[line.field] = value
    return found


def best(ledger: Ledger, names: Sequence[str]) -> FrozenTrial | None:
    """Returns the trial that is best in the first objective, the first of equals; None without any.

    It is on the front of all objectives.
    """
    sign = [-1 if OBJECTIVES[name] == "maximize" else 1 for name in names]

    def worth(trial: FrozenTrial) -> tuple[float, ...]:
        return tuple(s * v for s, v in zip(sign, trial.values, strict=True))

    complete = [trial for trial in ledger.trials() if _complete(trial)]
    return min(complete, key=worth, default=None)


def _complete(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE


def told_of_chosen(about: Mapping[str, Any], model: Model) -> str:
    """Returns a line on a chosen trial, with what a command says to train such networks elsewhere.

    Args:
      about: What ``chosen.json`` holds of it.
      model: The network of the study without a search.
    """
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in about["values"].items()}
    flags = [
        f"--config.{section}.{name}={_quoted(value)}"
        for section, fields in overrides(values, model).items()
        for name, value in fields.items()
    ]
    return f"the best {about['search']} trial, {about['trial']}, as flags: {' '.join(flags)}"


def _quoted(value: Any) -> str:
    text = str(value)
    return shlex.quote(text) if isinstance(value, tuple) else text


def described(values: Mapping[str, Any]) -> str:
    """Returns a point of a space in a line."""
    shown = {n: f"{v:.3g}" if isinstance(v, float) else v for n, v in values.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
