"""Scans of a store that quality control leaves out: by a written decision or a stated threshold.

They stand in ``STORE/exclusions.csv`` until decisions or thresholds are given again.
"""

import operator
import re
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.problems import Problem, refuse, refuse_absent
from mri_jax.volumes.quality import FIGURES
from mri_jax.volumes.store import KEY

NAME = "exclusions.csv"
COLUMNS = [*KEY, "cohort", "reason", "rater"]
Key = tuple[str, str]


def standing(store: epath.Path) -> pd.DataFrame | None:
    """Returns ``exclusions.csv`` of a store, columns `COLUMNS`; None where it has none.

    Raises:
      UserError: It cannot be read, or does not name scans.
    """
    path = store / NAME
    if not path.exists():
        return None
    frame = files.read_csv(path)
    refuse_absent(path, KEY, frame)
    return frame.reindex(columns=COLUMNS, fill_value="")


def keys(excluded: pd.DataFrame | None) -> list[Key]:
    """Returns (subject_id, session_id) of each excluded scan."""
    return [] if excluded is None else list(map(tuple, excluded[KEY].to_numpy().tolist()))


_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def decided(
    index: pd.DataFrame, decisions: pd.DataFrame | None, thresholds: list[str]
) -> pd.DataFrame:
    """Returns the scans that a written decision or a stated threshold excludes.

    Args:
      index: The index of the store.
      decisions: Columns subject_id, session_id, decision (``keep`` or ``exclude``), rater, reason.
      thresholds: Rules such as ``correlation<0.6``; a decision ``keep`` overrides them.

    Returns:
      Columns subject_id, session_id, cohort, reason, rater.

    Raises:
      UserError: A threshold is not ``FIGURE<NUMBER`` or the like, or decisions lack columns.
      TableError: Decisions name no scan of the store, are neither keep nor exclude, or a scan is
        decided twice differently; all rows are named.
    """
    reasons: dict[tuple[str, str], tuple[str, str]] = {}
    scans = list(zip(index["subject_id"], index["session_id"], strict=True))
    for rule in thresholds:
        name, compare, limit = _parse(rule, index)
        hits = compare(pd.to_numeric(index[name], errors="coerce").to_numpy(float), limit)
        for key, value in zip(
            np.array(scans, dtype=object)[hits], index[name].to_numpy()[hits], strict=True
        ):
            reasons.setdefault(tuple(key), (f"threshold {rule} ({name} {value:g})", ""))
    for key, (decision, reason, rater) in _decisions_on(decisions, set(scans)).items():
        if decision == "keep":
            reasons.pop(key, None)
        else:
            reasons[key] = (f"decision: {reason}" if reason else "decision", rater)
    rows = [
        (*key, cohort, *reasons[key])
        for key, cohort in zip(scans, index["cohort"], strict=True)
        if key in reasons
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _parse(rule: str, index: pd.DataFrame) -> tuple[str, Any, float]:
    match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*", rule)
    try:
        if match is None:
            raise ValueError
        limit = float(match[3])
    except ValueError:
        raise UserError(f"threshold: {rule!r} is not of the form correlation<0.6") from None
    if match[1] not in FIGURES or match[1] not in index:
        raise UserError(f"threshold: {match[1]!r} is not one of {', '.join(FIGURES)}")
    return match[1], _COMPARE[match[2]], limit


def _decisions_on(
    decisions: pd.DataFrame | None, known: set[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str, str]]:
    if decisions is None:
        return {}
    refuse_absent("decisions", (*KEY, "decision"), decisions)
    problems: list[Problem] = []
    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    for number, row in enumerate(decisions.fillna("").astype(str).to_dict("records"), start=2):
        key, decision = (row["subject_id"], row["session_id"]), row["decision"].strip().lower()
        if decision not in ("keep", "exclude", ""):
            rule = f"is neither keep nor exclude ({'/'.join(key)})"
            problems.append(Problem("decisions", number, "decision", decision, rule))
        elif key not in known:
            problems.append(Problem("decisions", number, "", "/".join(key), "is not in the store"))
        elif key in found and found[key][0] != decision:
            rule = "is decided twice, differently"
            problems.append(Problem("decisions", number, "", "/".join(key), rule))
        elif decision:
            found[key] = (decision, row.get("reason", ""), row.get("rater", ""))
    refuse(problems)
    return found
