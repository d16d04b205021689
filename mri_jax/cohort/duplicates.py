"""``duplicates.csv``: near-identical volumes, and what the user decided about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.cohort.near_duplicates import Alike, Pair
from mri_jax.cohort.same_people import Apart
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, refuse, refuse_absent

COLUMNS = [
    "subject_a",
    "session_a",
    "subject_b",
    "session_b",
    "correlation",
    "decision",
    "reason",
]
MIRRORED = "mirrored"
"""Further column, which older files lack: ``yes`` where one is alike to the other in a mirror."""
NAME = "duplicates.csv"
DECISIONS = ("keep both", "keep first", "keep second", "keep neither")
_SHOWN = 4


def listing(
    pairs: Sequence[Pair], keys: Sequence[tuple[str, str]], known: pd.DataFrame
) -> pd.DataFrame:
    """Returns pairs as rows of ``duplicates.csv``, with the decisions already taken.

    Args:
      pairs: From `mri_jax.cohort.near_duplicates.pairs_above`.
      keys: N (subject_id, session_id).
      known: ``duplicates.csv`` as it is, or an empty frame; its rows stay.

    Returns:
      Columns `COLUMNS` and `MIRRORED`.
    """
    columns = [*COLUMNS, MIRRORED]
    rows = [
        (*a, *b, f"{pair.correlation:.4f}", "", "", "yes" if pair.mirrored else "")
        for pair in pairs
        for a, b in [sorted([keys[pair.first], keys[pair.second]])]
    ]
    found = pd.DataFrame(rows, columns=columns)
    both = pd.concat([known.reindex(columns=columns, fill_value=""), found], ignore_index=True)
    return both.drop_duplicates(COLUMNS[:4], keep="first").reset_index(drop=True)


def check_decisions(duplicates: pd.DataFrame, file: str) -> None:
    """Refuse a listing with a pair that has no decision, or a decision without a reason.

    Raises:
      TableError: All such rows.
    """
    refuse_absent(file, COLUMNS, duplicates)
    problems = []
    lines = duplicates.fillna("").to_dict("index")
    for row, line in ((int(str(index)) + 2, line) for index, line in lines.items()):
        pair = f"{line['subject_a']} {line['session_a']} ~ {line['subject_b']} {line['session_b']}"
        if line["decision"] not in DECISIONS:
            rule = (
                f"{pair}: their volumes are so alike (correlation {line['correlation']}"
                f"{', mirrored' if line.get(MIRRORED) == 'yes' else ''}) that they "
                f"may be one person's; decide: one of {', '.join(DECISIONS)}, and give a reason"
            )
            problems.append(Problem(file, row, "decision", str(line["decision"]), rule))
        elif not str(line["reason"]).strip():
            problems.append(Problem(file, row, "reason", "", f"{pair}: a reason is needed"))
    refuse(problems)


def dropped(duplicates: pd.DataFrame) -> dict[str, str]:
    """Returns subjects that the decisions leave out, with the reason given."""
    left_out: dict[str, str] = {}
    for line in duplicates.to_dict("records"):
        for name, kept in (("subject_a", "keep first"), ("subject_b", "keep second")):
            if line["decision"] not in ("keep both", kept):
                left_out[line[name]] = line["reason"]
    return left_out


def undecided(
    pairs: Sequence[Pair],
    keys: Sequence[tuple[str, str]],
    known: pd.DataFrame,
    apart: Apart,
) -> list[Pair]:
    """Returns pairs whose subjects no decision speaks of, in any of their scans.

    Args:
      pairs: From `mri_jax.cohort.near_duplicates.pairs_above`.
      keys: N (subject_id, session_id).
      known: ``duplicates.csv`` with its decisions.
      apart: Subjects that the user says are different people.
    """
    settled = set(map(frozenset, known[["subject_a", "subject_b"]].to_numpy().tolist()))
    settled |= apart.subjects
    return [p for p in pairs if frozenset((keys[p.first][0], keys[p.second][0])) not in settled]


@dataclass(frozen=True)
class Search:
    """What was searched for near-identical volumes, for the record.

    Attributes:
      scans: Volumes compared.
      pairs: Pairs of different ids compared, both ways.
      threshold: Correlation from which a pair is listed.
      found: Pairs that reach it.
      decided: How many of these the user has decided about; all, where a study goes on.
    """

    scans: int
    pairs: int
    threshold: float
    found: int
    decided: int


def settled(
    searched: Alike, keys: Sequence[tuple[str, str]], source: epath.PathLike, apart: Apart
) -> Search:
    """Returns what was searched, for the record; stops at pairs that nobody has decided about.

    Args:
      searched: From `mri_jax.cohort.near_duplicates.alike`.
      keys: N (subject_id, session_id).
      source: The cohort table, beside which ``duplicates.csv`` stands or is written.
      apart: Subjects that the user says are different people.

    Raises:
      UserError: Such pairs, the first of them named; all are in ``duplicates.csv`` then, if its
        folder can be written.
    """
    pairs = searched.found
    path = epath.Path(source).parent / NAME
    known = read(path)
    left = undecided(pairs, keys, known, apart)
    if left:
        place = f"fill in decision and reason in {path}"
        try:
            files.write_csv(path, listing(left, keys, known))
        except UserError:
            place = f"write them with a decision and a reason into {path} ({','.join(COLUMNS)})"
        named = ", ".join(
            f"{_named(keys[i])} ~ {_named(keys[j])} ({c:.2f}{', mirrored' if mirrored else ''})"
            for i, j, c, mirrored in left[:_SHOWN]
        )
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        raise UserError(
            f"{source}: {counted(len(left), 'pair')} of volumes under different "
            f"ids may be one person's, or one scan: {named}{more}; {place} "
            f"({', '.join(DECISIONS)})"
        )
    counts = searched.scans, searched.pairs
    return Search(*counts, round(searched.threshold, 4), len(pairs), len(pairs))


def _named(key: tuple[str, str]) -> str:
    return f"{key[0]!a} {key[1]}".strip()


def read(path: epath.PathLike) -> pd.DataFrame:
    """Returns ``duplicates.csv`` as text; an empty listing when there is no such file."""
    if not epath.Path(path).exists():
        return pd.DataFrame(columns=COLUMNS)
    return files.read_csv(path)


def refuse_unresolved(table: pd.DataFrame, source: epath.PathLike) -> None:
    """Refuse a study while ``duplicates.csv`` beside its cohort table is not settled.

    Args:
      table: A cohort table.
      source: Its path; without a ``duplicates.csv`` beside it nothing is asked for. Pairs of which
        the table has one subject at most belong to other tables of the folder.

    Raises:
      TableError: A pair has no decision or no reason.
      UserError: A subject that a decision leaves out is still in the table.
    """
    path = epath.Path(source).parent / NAME
    listed = read(path)
    if {"subject_a", "subject_b"} <= set(listed):
        both = listed[["subject_a", "subject_b"]].isin(set(table["subject_id"])).all(axis=1)
        listed = listed[both]
    check_decisions(listed, str(path))
    present = sorted(set(dropped(listed)) & set(table["subject_id"]))
    if present:
        raise UserError(
            f"{path}: leaves out {counted(len(present), 'subject')} that {source} still has "
            f"({', '.join(present[:5])}); write the table without them: cohort check --out"
        )
