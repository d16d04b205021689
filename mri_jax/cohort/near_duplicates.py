"""Volumes so alike that they may be one person under two ids; arrays in, pairs out.

Each volume is reduced to block means of its normalised intensities, minus the mean over all
volumes: what is left is the person's own anatomy, and its correlation tells rescans of one person
from two persons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.cohort.problems import Problem, refuse
from mri_jax.errors import UserError

COLUMNS = [
    "subject_a",
    "session_a",
    "subject_b",
    "session_b",
    "correlation",
    "decision",
    "reason",
]
DECISIONS = ("keep both", "keep first", "keep second", "keep neither")
UNCALIBRATED = 0.7
_BLOCK, _SAMPLE = 512, 1500
_FIVE_SD = 5 / 1.2816  # in units of the distance from the median to the 90th percentile


@dataclass(frozen=True)
class Threshold:
    """Above which correlation two volumes are listed.

    Attributes:
      value: The correlation.
      rescans: Number of pairs of scans of one person it was calibrated on; 0 if it is not.
      found: Share of these pairs that reach it.
      others: Number of pairs of different ids that reach it.
    """

    value: float
    rescans: int
    found: float
    others: int


def reduce_volume(volume: np.ndarray, mask: np.ndarray, cells: int = 28) -> np.ndarray:
    """One volume as block means of z-scores inside its mask.

    Args:
      volume: (X, Y, Z) intensities.
      mask: (X, Y, Z) bool, not empty.
      cells: Blocks along the longest axis.

    Returns:
      (D,) float32, zero outside the mask.
    """
    inside = np.asarray(volume, np.float32)[mask]
    scale = float(inside.std())
    values = np.zeros(volume.shape, np.float32)
    values[mask] = (inside - inside.mean()) / (scale if scale > 0 else 1.0)
    side = max(1, max(volume.shape) // cells)
    whole = [size // side * side for size in volume.shape]
    x, y, z = (size // side for size in whole)
    trimmed = values[: whole[0], : whole[1], : whole[2]]
    return trimmed.reshape(x, side, y, side, z, side).mean(axis=(1, 3, 5)).ravel()


def correlations(reduced: np.ndarray, groups: Sequence[str] | None = None) -> np.ndarray:
    """Rows of `reduce_volume` to unit vectors about the mean of their group.

    Args:
      reduced: (N, D).
      groups: N names, usually cohorts, so that a scanner's look is removed with the mean; by
        default one group. A group of fewer than three volumes takes the mean over all.

    Returns:
      (N, D) float32; products of rows are the correlations.
    """
    centred = np.asarray(reduced, np.float32)
    names = np.asarray(groups if groups is not None else ["all"] * len(centred))
    means = np.zeros_like(centred)
    if len(centred) > 2:
        means[:] = centred.mean(axis=0)
    for name in np.unique(names):
        if (names == name).sum() > 2:
            means[names == name] = centred[names == name].mean(axis=0)
    centred = centred - means
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(norm > 0, norm, 1.0)


def calibrate(vectors: np.ndarray, subjects: Sequence[str], share: float = 0.95) -> Threshold:
    """A threshold between different people and known rescans.

    Args:
      vectors: (N, D) of `correlations`.
      subjects: N subject ids; equal ids are known rescans.
      share: Of the known rescans that shall be found.

    Returns:
      The upper end of what different ids have (five SD above their median, the SD being that of
      the 90th percentile, which a few hidden duplicates do not move), so that every pair above is
      listed. Where known rescans overlap with that end, the correlation that ``share`` of them
      reach, at the price of more pairs to look at. Without rescans `UNCALIBRATED`.
    """
    names = np.asarray(subjects)
    same = [
        float(vectors[i] @ vectors[j])
        for subject in np.unique(names[_repeated(names)])
        for place, i in enumerate(np.flatnonzero(names == subject))
        for j in np.flatnonzero(names == subject)[place + 1 :]
    ]
    value = UNCALIBRATED
    if same:
        reached, end = float(np.quantile(same, 1 - share)), _end_of_others(vectors, names)
        value = min(reached, end)
    others = len(pairs_above(vectors, subjects, value))
    found = float(np.mean(np.array(same) >= value)) if same else float("nan")
    return Threshold(value, len(same), found, others)


def _end_of_others(vectors: np.ndarray, names: np.ndarray) -> float:
    some = vectors[:_SAMPLE]
    products = some @ some.T
    different = products[names[: len(some), None] != names[None, : len(some)]]
    if different.size == 0:
        return -1.0
    middle, high = np.quantile(different, [0.5, 0.9])
    return float(middle + _FIVE_SD * (high - middle))


def _repeated(names: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def pairs_above(
    vectors: np.ndarray, subjects: Sequence[str], threshold: float
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation), i < j, of different subjects that reach a threshold, the highest
    first; memory does not grow with the square of N."""
    names = np.asarray(subjects)
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(vectors), _BLOCK):
        products = vectors[start : start + _BLOCK] @ vectors.T
        rows, columns = np.nonzero(products >= threshold)
        for i, j in zip(rows + start, columns, strict=True):
            if i < j and names[i] != names[j]:
                found.append((int(i), int(j), float(products[i - start, j])))
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def listing(
    pairs: Sequence[tuple[int, int, float]], keys: Sequence[tuple[str, str]], known: pd.DataFrame
) -> pd.DataFrame:
    """Pairs as rows of ``duplicates.csv``, with the decisions already taken.

    Args:
      pairs: Of `pairs_above`.
      keys: N (subject_id, session_id).
      known: ``duplicates.csv`` as it is, or an empty frame; its rows stay.

    Returns:
      Columns `COLUMNS`.
    """
    rows = [(*sorted([keys[i], keys[j]]), f"{c:.4f}") for i, j, c in pairs]
    found = pd.DataFrame([(*a, *b, c, "", "") for a, b, c in rows], columns=COLUMNS)
    both = pd.concat([known.reindex(columns=COLUMNS), found], ignore_index=True)
    return both.drop_duplicates(COLUMNS[:4], keep="first").reset_index(drop=True)


def check_decisions(duplicates: pd.DataFrame, file: str) -> None:
    """Refuse a listing with a pair that has no decision, or a decision without a reason.

    Raises:
      TableError: All such rows.
    """
    missing = [name for name in COLUMNS if name not in duplicates]
    if missing:
        raise UserError(f"{file}: column {missing[0]!r} is missing")
    problems = []
    for row, line in enumerate(duplicates.fillna("").to_dict("records"), start=2):
        pair = f"{line['subject_a']} {line['session_a']} ~ {line['subject_b']} {line['session_b']}"
        if line["decision"] not in DECISIONS:
            rule = f"{pair} ({line['correlation']}): must be one of {', '.join(DECISIONS)}"
            problems.append(Problem(file, row, "decision", str(line["decision"]), rule))
        elif not str(line["reason"]).strip():
            problems.append(Problem(file, row, "reason", "", f"{pair}: a reason is needed"))
    refuse(problems)


def dropped(duplicates: pd.DataFrame) -> dict[str, str]:
    """Subjects that the decisions leave out, with the reason given."""
    left_out: dict[str, str] = {}
    for line in duplicates.to_dict("records"):
        for name, kept in (("subject_a", "keep first"), ("subject_b", "keep second")):
            if line["decision"] not in ("keep both", kept):
                left_out[line[name]] = line["reason"]
    return left_out


def read(path: epath.PathLike) -> pd.DataFrame:
    """``duplicates.csv`` as text; an empty listing when there is no such file."""
    if not epath.Path(path).exists():
        return pd.DataFrame(columns=COLUMNS)
    return files.read_csv(path)


def refuse_unresolved(table: pd.DataFrame, source: epath.PathLike) -> None:
    """Refuse a study while ``duplicates.csv`` beside its cohort table is not settled.

    Args:
      table: A cohort table.
      source: Its path; without a ``duplicates.csv`` beside it nothing is asked for.

    Raises:
      TableError: A pair has no decision or no reason.
      UserError: A subject that a decision leaves out is still in the table.
    """
    path = epath.Path(source).parent / "duplicates.csv"
    listed = read(path)
    check_decisions(listed, str(path))
    present = sorted(set(dropped(listed)) & set(table["subject_id"]))
    if present:
        raise UserError(
            f"{path}: leaves out {len(present)} subjects that {source} still has "
            f"({', '.join(present[:5])}); write the table without them: cohort check --out"
        )
