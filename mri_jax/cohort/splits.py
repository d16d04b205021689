"""Who trains, who is held out, who adapts and who is tested: sets of subjects, never of scans.

A split is a function of the subjects, their labels and a seed. It does not depend on the order of
the rows, on the number of sessions of a subject, or on the process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from mri_jax.errors import UserError
from mri_jax.problems import counted, refuse_absent
from mri_jax.seeding import generator


@dataclass(frozen=True)
class Fold:
    """One fold of cross-validation.

    Attributes:
      train_ids: Subjects that train, sorted.
      validation_ids: The held-out subjects, sorted.
    """

    train_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fold":
        """Returns what `to_json` wrote."""
        return cls(tuple(value["train_ids"]), tuple(value["validation_ids"]))


@dataclass(frozen=True)
class Adaptation:
    """One fine-tuning split of a target cohort.

    Attributes:
      adaptation_ids: The fifth on which a network is fine-tuned, sorted.
      test_ids: All other subjects, on which source and tuned networks are compared, sorted.
    """

    adaptation_ids: tuple[str, ...]
    test_ids: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Adaptation":
        """Returns what `to_json` wrote."""
        return cls(tuple(value["adaptation_ids"]), tuple(value["test_ids"]))


def folds(labelled: pd.DataFrame, *, seed: int, n_folds: int = 5) -> tuple[Fold, ...]:
    """Returns a cross-validation by subject, stratified by class.

    Args:
      labelled: Rows of a task (`mri_jax.cohort.task.select`): ``subject_id`` and ``label``.
      seed: The study's seed.
      n_folds: How many.

    Returns:
      Every subject is held out exactly once. Numbers of subjects of a class differ between folds
      by at most one.

    Raises:
      UserError: Only one class, fewer subjects of a class than folds, or a missing column.
    """
    held_out = _parts(labelled, n_folds, seed, ("folds",), "folds")
    everyone = {subject for part in held_out for subject in part}
    return tuple(Fold(tuple(sorted(everyone.difference(part))), part) for part in held_out)


def fifths(
    labelled: pd.DataFrame, *, seed: int, n: int = 5, purpose: str = "adaptation"
) -> tuple[tuple[str, ...], ...]:
    """Returns disjoint stratified parts of a target cohort; each in turn is fine-tuned on.

    Args:
      labelled: Rows of a task, as in `folds`.
      seed: The study's seed; another seed draws other parts.
      n: How many parts, 5 for 20% each.
      purpose: Name of the random stream, e.g. the target cohort's name.

    Returns:
      ``n`` sorted tuples of subject ids that together are the cohort.

    Raises:
      UserError: As `folds`.
    """
    return _parts(labelled, n, seed, ("fifths", purpose), "fine-tuning parts")


def adaptation(parts: Sequence[Sequence[str]], repeat: int) -> Adaptation:
    """Fine-tune on part ``repeat`` (from 0) of `fifths`, test on all others."""
    if not 0 <= repeat < len(parts):
        raise UserError(f"repeat: {repeat} must be from 0 to {len(parts) - 1}")
    rest = sorted(s for place, part in enumerate(parts) if place != repeat for s in part)
    return Adaptation(tuple(sorted(parts[repeat])), tuple(rest))


def resampled(
    labelled: pd.DataFrame, shares: Sequence[int], share: int, *, seed: int, purpose: str
) -> tuple[str, ...]:
    """Returns subjects drawn to a share of positives, as many for each of some shares.

    Args:
      labelled: Rows of a task, as in `folds`.
      shares: Percentages of positives that are compared.
      share: One of them.
      seed: The study's seed.
      purpose: Name of the random stream.

    Returns:
      Sorted subject ids, none twice: of each class the first of one random order, so that the draws
      of two shares have most subjects in common. Their number is the largest that the classes allow
      for all of the shares; 0 where a class is empty.
    """
    orders = _orders(labelled, seed, ("resampled", purpose))
    sizes = [
        size for size in range(len(orders[0]) + len(orders[1]) + 1)
        if all(_positives(size, each) <= len(orders[1]) for each in shares)
        and all(size - _positives(size, each) <= len(orders[0]) for each in shares)
    ]  # fmt: skip
    size = max(sizes)
    positives = _positives(size, share)
    return tuple(sorted([*orders[1][:positives], *orders[0][: size - positives]]))


def _positives(size: int, share: int) -> int:
    return (size * share + 50) // 100


def labelled_share(
    labelled: pd.DataFrame, among: Sequence[str], percent: float, *, seed: int, purpose: str
) -> tuple[str, ...]:
    """Returns subjects that are a percentage of each class of a cohort, two of a class at least.

    Args:
      labelled: Rows of a task, as in `folds`: all of the cohort.
      among: Subjects of it from which they are drawn.
      percent: Of the cohort's subjects of each class.
      seed: The study's seed.
      purpose: Name of the random stream; a smaller percentage of the same stream is among a larger.

    Returns:
      Sorted subject ids.
    """
    inside = labelled[labelled["subject_id"].isin(among)]
    chosen: list[str] = []
    for label, order in enumerate(_orders(inside, seed, ("labelled", purpose))):
        whole = labelled.loc[labelled["label"] == label, "subject_id"].nunique()
        chosen += order[: max(2, int(whole * percent / 100 + 0.5))]
    return tuple(sorted(chosen))


def _orders(
    labelled: pd.DataFrame, seed: int, purpose: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """Returns the negative and the positive subjects, each in a random order."""
    subjects = _one_row_a_subject(labelled)
    found = []
    for label in (0, 1):
        names = sorted(subjects.loc[subjects["label"] == label, "subject_id"])
        order = generator(seed, *purpose, label).permutation(len(names))
        found.append([names[place] for place in order])
    return found[0], found[1]


def _parts(
    labelled: pd.DataFrame, n: int, seed: int, purpose: tuple[str, ...], what: str
) -> tuple[tuple[str, ...], ...]:
    """Deals the subjects, sorted by class and a random number, to ``n`` parts in turn.

    Dealing in turn over a sorted row makes the counts of every contiguous stretch (a class, the
    whole) differ by at most one between parts.
    """
    subjects = _one_row_a_subject(labelled)
    _check_classes(subjects["label"], n, what)
    rng = generator(seed, *purpose)
    subjects = subjects.assign(random=rng.permutation(len(subjects)))
    names = subjects.sort_values(["label", "random"])["subject_id"].tolist()
    parts = [tuple(sorted(names[place::n])) for place in range(n)]
    return tuple(parts[place] for place in rng.permutation(n))


def _one_row_a_subject(labelled: pd.DataFrame) -> pd.DataFrame:
    refuse_absent("splits", ("subject_id", "label"), labelled)
    # The earliest session describes the subject, so that its rows may stand in any order.
    order = [name for name in ("subject_id", "session_id") if name in labelled]
    rows = labelled.sort_values(order, kind="stable")
    two = rows.groupby("subject_id")["label"].nunique()
    if (two > 1).any():
        raise UserError(f"splits: subject {two.index[two > 1][0]} has two labels")
    return rows.drop_duplicates("subject_id").reset_index(drop=True)


def _check_classes(labels: pd.Series, n: int, what: str) -> None:
    if n < 2:
        raise UserError(f"{what}: {n} must be at least 2")
    counts = labels.value_counts().reindex([0, 1], fill_value=0)
    if counts.sum() != len(labels):
        raise UserError(f"{what}: label must be 0 or 1")
    if (counts == 0).any():
        name = "positive" if counts[1] == 0 else "negative"
        raise UserError(f"{what}: there is no {name} subject; two classes are needed")
    if counts.min() < n:
        name = "positive" if counts[1] < counts[0] else "negative"
        raise UserError(
            f"{what}: {counted(int(counts.min()), f'{name} subject is', f'{name} subjects are')} "
            f"fewer than the {n} {what} asked for"
        )
