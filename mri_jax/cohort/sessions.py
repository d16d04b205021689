"""Sessions of a tree and its tables: which labels are one session, and which session came first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mri_jax.cohort.identity import month_of_visit
from mri_jax.trees import session_key

# Screening is month 0 as well, but a visit of its own, shortly before the baseline.
_SCREENING = {"sc", "scr", "scmri", "screening"}
_ENTRY = pd.Timestamp("2000-01-01")
_DAY = re.compile(r"^d-?(\d+)$")
_NUMBERED = re.compile(r"^(\D*)(\d+)$")


def labelled(text: str) -> str:
    """Returns a session as BIDS writes it: ``ses-1`` for ``1``; an empty text stays."""
    bare = text.strip()
    if not bare or bare.casefold().startswith("ses-"):
        return bare and f"ses-{bare[4:]}"
    return f"ses-{bare}"


def is_screening(label: str) -> bool:
    """Returns whether a session is a screening visit."""
    return session_key(label) in _SCREENING


def day_of(label: str) -> float:
    """Days since entry of a label such as ``ses-d0129`` (OASIS-3), NaN where it says none."""
    found = _DAY.match(session_key(label))
    return float(found[1]) if found else float("nan")


def entered(days: pd.Series) -> pd.Series:
    """Returns days since entry as dates, after a day of entry that is shown nowhere."""
    return (_ENTRY + pd.to_timedelta(days.astype(float), "D")).astype("datetime64[ns]")


def aligned(tree: Sequence[str], said: Sequence[str]) -> dict[str, str]:
    """Returns the sessions that tables speak of, as a subject's folders spell them.

    ``1`` is ``ses-01`` and ``M000`` is ``ses-M00``. A month is the session of that month under
    another name (``ses-BL`` of ``M00``) unless that one has a row of its own; screening and
    baseline, both month 0, are two sessions where both are spoken of.

    Args:
      tree: The labels of the subject's folders.
      said: The labels of its rows, each as often as it likes.

    Returns:
      The label of each of ``said``: one of ``tree``, or the first spelling among ``said``.
    """
    by_key = {session_key(label): label for label in reversed(tree)}
    found: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for label in said:
        key = session_key(label)
        found[label] = by_key.get(key) or spelt.setdefault(key, label)
    taken = set(found.values()) & set(tree)
    # Baselines choose before screenings: what is left to a screening is the baseline of nobody.
    for label in sorted(spelt.values(), key=is_screening):
        month = month_of_visit(label)
        alike = [t for t in tree if month_of_visit(t) == month and t not in taken]
        if len(alike) == 1:
            taken.add(alike[0])
            found.update({s: alike[0] for s in found if session_key(s) == session_key(label)})
    return found


def asked(labels: Sequence[str], session: str) -> str:
    """Returns the one of a subject's sessions that the user's ``--session`` means, or empty."""
    key = session_key(session)
    exact = [label for label in labels if session_key(label) == key]
    month = month_of_visit(session)
    alike = [
        label
        for label in labels
        if month_of_visit(label) == month and is_screening(label) == is_screening(session)
    ]
    return (exact or (alike if len(alike) == 1 else [""]))[0]


def first_of_each(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the row of the first session of each (subject, cohort), by age or by `in_time`.

    Where nothing tells the time, it is the first in the table.
    """
    keep = []
    for _, rows in table.groupby(["subject_id", "cohort"], sort=False):
        labels = rows["session_id"].tolist()
        ages = dict(zip(labels, rows["age"], strict=True))
        known = {label: age for label, age in ages.items() if not np.isnan(age)}
        order = in_time(labels, Clock({}, {}, known, frozenset())) or labels
        keep.append(rows.index[labels.index(order[0])])
    return table.loc[keep]


@dataclass(frozen=True)
class Clock:
    """What is known of the time of a subject's sessions.

    Attributes:
      time: Dates of acquisition by label, where known.
      days: Days since entry by label, where known.
      age: Age in years by label, where known.
      scanned: Labels that have a scan.
    """

    time: Mapping[str, pd.Timestamp]
    days: Mapping[str, float]
    age: Mapping[str, float]
    scanned: frozenset[str]


def in_time(labels: Sequence[str], clock: Clock, order: Sequence[str] = ()) -> list[str] | None:
    """Returns a subject's sessions, the earliest first; None where nothing tells their time.

    The first of these that speaks of all of them decides: the user's order, months, days, dates and
    ages, numbers behind one name (``ses-1``, ``ses-10``; ``V01``, ``V04``); at last, a baseline
    comes before all others. The alphabet never decides. Of baseline and screening the one that was
    scanned stands first, else the baseline, though the screening was before it.
    """
    if len(labels) < 2:
        return list(labels)
    places = {session_key(name): float(place) for place, name in enumerate(order)}
    numbered = {label: _NUMBERED.match(session_key(label)) for label in labels}
    prefixes = {match[1] for match in numbered.values() if match}
    numbers = {label: float(match[2]) for label, match in numbered.items() if match}
    months = {label: month_of_visit(label) for label in labels}
    first = {label: float(months[label] != 0) for label in labels}
    ages = dict(clock.age)
    if len(set(ages.values())) < len(ages):
        ages = {}
    keys: list[Mapping[str, float]] = [
        {label: places[session_key(label)] for label in labels if session_key(label) in places},
        months,
        {label: day_of(label) for label in labels},
        clock.days,
        {label: time.timestamp() for label, time in clock.time.items()},
        ages,
        numbers if len(prefixes) == 1 else {},
        first if 0.0 in first.values() else {},
    ]
    for key in keys:
        if all(not np.isnan(key.get(label, np.nan)) for label in labels):
            ordered = sorted(labels, key=key.__getitem__)
            entry = [label for label in ordered if months[label] == 0]
            if months[ordered[0]] == 0:
                entry.sort(key=lambda label: (label not in clock.scanned, is_screening(label)))
                return entry + [label for label in ordered if label not in entry]
            return ordered
    return None
