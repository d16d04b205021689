"""Ids that are probably one person, and the file in which a user says that they are not.

``different_people.csv`` beside the cohort table, three columns and a reason::

    kind,a,b,reason
    subjects,sub-01,SUB1,two volunteers of two clinics
    cohorts,SITE_A,SITE_B,both sites count from 1

A line of ``subjects`` tells two ids apart. A line of ``cohorts`` tells the numberings of two
cohorts apart, even where an id is written alike in both; a cohort with itself says that ids of one
cohort that differ in spelling alone are different people. Two spellings of one full ADNI or AIBL id
are never told apart.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from etils import epath

from mri_jax.cohort.identity import Likeness, likeness, person
from mri_jax.errors import UserError
from mri_jax.files import read_csv
from mri_jax.problems import Problem, counted, refuse, refuse_absent

NAME = "different_people.csv"
COLUMNS = ("kind", "a", "b", "reason")
KINDS = ("subjects", "cohorts")
_NAMED = 4


@dataclass(frozen=True)
class Apart:
    """What a user has said about ids that look like one person.

    Attributes:
      subjects: Pairs of ids of different people.
      cohorts: Pairs of cohorts (or one cohort) with separate numberings.
    """

    subjects: frozenset[frozenset[str]] = frozenset()
    cohorts: frozenset[frozenset[str]] = frozenset()

    def tells(self, one: "Holder", other: "Holder") -> bool:
        """Returns whether two ids are said to be different people."""
        return (
            frozenset((one.subject_id, other.subject_id)) in self.subjects
            or frozenset((one.cohort, other.cohort)) in self.cohorts
        )


NOTHING_SAID = Apart()


@dataclass(frozen=True, order=True)
class Holder:
    """An id where it stands."""

    subject_id: str
    cohort: str

    def __str__(self) -> str:
        return f"{self.subject_id!a} ({self.cohort})"


def read(tables: Iterable[epath.PathLike]) -> Apart:
    """Returns what the files beside some cohort tables say; nothing where there are none.

    Raises:
      TableError: A line has another kind, a name is empty, or a reason is missing.
    """
    folders = sorted({str(epath.Path(table).parent) for table in tables})
    said: dict[str, set[frozenset[str]]] = {kind: set() for kind in KINDS}
    problems: list[Problem] = []
    for path in (epath.Path(folder) / NAME for folder in folders):
        if not path.exists():
            continue
        lines = read_csv(path)
        refuse_absent(path, COLUMNS, lines)
        for row, (kind, a, b, reason) in enumerate(lines[list(COLUMNS)].to_numpy(), start=2):
            if kind.strip() not in KINDS:
                rule = f"must be one of {', '.join(KINDS)}"
                problems.append(Problem(str(path), row, "kind", kind, rule))
            elif not (a.strip() and b.strip()):
                problems.append(Problem(str(path), row, "a" if b.strip() else "b", "", "is empty"))
            elif not reason.strip():
                problems.append(Problem(str(path), row, "reason", "", "a reason is needed"))
            else:
                said[kind.strip()].add(frozenset((a.strip(), b.strip())))
    refuse(problems)
    return Apart(frozenset(said["subjects"]), frozenset(said["cohorts"]))


def find(table: pd.DataFrame, apart: Apart = NOTHING_SAID) -> list[tuple[Holder, Holder]]:
    """Returns pairs of different ids that are probably one person and are not told apart.

    Args:
      table: ``subject_id``, ``session_id`` and ``cohort`` of every scan.
      apart: What the user has said.

    Returns:
      The pairs, sorted; a pair of certainly equal persons is not among them.
    """
    cohorts = tuple(sorted(set(table["cohort"])))
    alike: dict[str, dict[tuple[Holder, Likeness], None]] = defaultdict(dict)
    for row in table[["subject_id", "session_id", "cohort"]].drop_duplicates().itertuples():
        found = likeness(row.subject_id, row.session_id, cohorts)
        alike[found.name][Holder(row.subject_id, row.cohort), found] = None
    pairs = {
        (min(one, other), max(one, other))
        for group in alike.values()
        for (one, said), (other, also) in combinations(group, 2)
        if said.may_be(also)
        and person(one.subject_id) != person(other.subject_id)
        and not apart.tells(one, other)
    }
    return sorted(pairs)


def refuse_probable(table: pd.DataFrame, source: epath.PathLike, apart: Apart) -> None:
    """Stop while two ids of a table are probably one person.

    Args:
      table: A cohort table.
      source: Its path, beside which the user may tell them apart.
      apart: What the user has said there.

    Raises:
      UserError: One line: how many pairs, the first of them, and what to write where.
    """
    pairs = find(table, apart)
    if pairs:
        raise UserError(f"{source}: {described(pairs)}; {way_out(pairs, source)}")


def described(pairs: Sequence[tuple[Holder, Holder]]) -> str:
    """Returns how many pairs, and the first of them."""
    named = ", ".join(f"{one} ~ {other}" for one, other in pairs[:_NAMED])
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return f"{counted(len(pairs), 'pair')} of subject ids may be one person each: {named}{more}"


def way_out(pairs: Sequence[tuple[Holder, Holder]], source: epath.PathLike) -> str:
    """Returns what to do about probable pairs."""
    one, other = pairs[0]
    path = epath.Path(source).parent / NAME
    return (
        "write one id for one person; if they are different people say so in "
        f"{path} (columns {','.join(COLUMNS)}): a line "
        f"subjects,{one.subject_id},{other.subject_id},REASON for a pair, or one line "
        f"cohorts,{one.cohort},{other.cohort},REASON where the cohorts number their subjects "
        "separately"
    )


def people(table: pd.DataFrame, apart: Apart) -> pd.Series:
    """Returns the person of each row: the id, after a cohort where one id is several people.

    Only cohorts that the user tells apart make two people of one id.
    """
    who = table["subject_id"].copy()
    if not apart.cohorts:
        return who
    for subject, rows in table.groupby("subject_id"):
        cohorts = list(dict.fromkeys(rows["cohort"]))
        if len(cohorts) < 2 or person(str(subject))[0]:
            continue
        first = _joined(cohorts, apart)
        if len(set(first.values())) > 1:
            who[rows.index] = [f"{first[cohort]}: {subject}" for cohort in rows["cohort"]]
    return who


def _joined(cohorts: Sequence[str], apart: Apart) -> dict[str, str]:
    """Cohorts to the first of those whose numbering they share."""
    first = {cohort: cohort for cohort in cohorts}
    for one, other in combinations(cohorts, 2):
        if frozenset((one, other)) not in apart.cohorts:
            old, new = first[other], first[one]
            first = {cohort: new if f == old else f for cohort, f in first.items()}
    return first
