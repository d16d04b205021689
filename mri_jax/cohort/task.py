"""What is learnt from a cohort table: two diagnoses, one positive and one negative."""

from collections.abc import Sequence

import pandas as pd

from mri_jax.cohort.identity import person
from mri_jax.cohort.same_people import NOTHING_SAID, Apart, people
from mri_jax.errors import UserError
from mri_jax.problems import counted


def select(
    table: pd.DataFrame,
    positive: str,
    negative: str,
    cohort: str | Sequence[str],
    one_class: bool = False,
) -> pd.DataFrame:
    """Returns the rows of a task: the scans of two diagnoses in one or several cohorts.

    Args:
      table: A cohort table (`mri_jax.cohort.table`).
      positive: The diagnosis that becomes label 1, e.g. ``AD`` or ``pMCI``.
      negative: The diagnosis that becomes label 0, e.g. ``CN`` or ``sMCI``.
      cohort: Name of the cohort, or names of several that are pooled.
      one_class: One of the two diagnoses will do, as in a cohort of controls that is only tested.

    Returns:
      The chosen rows in the order of (subject, session), with an int column ``label``. A subject
      may have several sessions, all of one label.

    Raises:
      UserError: The two diagnoses are the same, a cohort or a diagnosis does not occur, or a
        subject has both labels.
    """
    cohorts = [cohort] if isinstance(cohort, str) else list(cohort)
    if positive == negative:
        raise UserError(f"task: positive and negative are both {positive!r}; they must differ")
    absent = sorted(set(cohorts) - set(table["cohort"]))
    if absent:
        found = ", ".join(sorted(set(table["cohort"])))
        raise UserError(f"cohort: {absent[0]!r} is not in the cohort table; it has {found}")
    rows = table[table["cohort"].isin(cohorts)]
    named = (("positive", positive), ("negative", negative))
    lacking = [pair for pair in named if not (rows["diagnosis"] == pair[1]).any()]
    for field, name in lacking:
        if not one_class or len(lacking) == len(named):
            found = ", ".join(sorted(set(rows["diagnosis"])))
            raise UserError(
                f"task.{field}: no scan of {'+'.join(cohorts)} has diagnosis {name!r}; "
                f"it has {found}"
            )
    rows = rows[rows["diagnosis"].isin([positive, negative])]
    rows = rows.assign(label=(rows["diagnosis"] == positive).astype(int))
    labels = rows.groupby("subject_id")["label"].nunique()
    both = labels.index[labels > 1]
    if len(both):
        raise UserError(
            f"task: subject {both[0]} is both {positive} and {negative} in {'+'.join(cohorts)}; "
            f"keep the sessions of one diagnosis ({counted(len(both), 'such subject')})"
        )
    return rows.sort_values(["subject_id", "session_id"]).reset_index(drop=True)


def remove_earlier(
    table: pd.DataFrame, order: Sequence[str], apart: Apart = NOTHING_SAID
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Remove from later cohorts the persons who already stand in an earlier one.

    Args:
      table: A cohort table.
      order: Names of cohorts, earliest first; cohorts not named keep all their rows.
      apart: Cohorts whose numberings are separate: an id in both is two persons.

    Returns:
      The rows that stay, and the rows removed with the column ``earlier`` that names the cohort in
      which the person stays. Together they are the table; `mri_jax.cohort.flow.step` counts the
      latter for the flow of subjects.

    Raises:
      UserError: A name occurs twice in ``order``.
    """
    if len(set(order)) < len(order):
        raise UserError(f"cohorts: a name occurs twice in {', '.join(order)}")
    rank = table["cohort"].map({name: place for place, name in enumerate(order)})
    first = rank.groupby(people(table, apart).map(person)).transform("min")
    later = rank > first
    earlier = first[later].map(dict(enumerate(order)))
    removed = table[later].assign(earlier=earlier)
    return table[~later].reset_index(drop=True), removed.reset_index(drop=True)
