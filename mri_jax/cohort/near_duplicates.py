"""Volumes so alike that they may be one person under two ids; arrays in, pairs out.

A volume comes as a description (`mri_jax.volumes.descriptors`), and is also seen in a mirror. The
mean over all is taken off, so that what the cohorts share counts for nothing; the higher of
both correlations tells rescans and copies of one scan from two persons. docs/cohorts.md has what it
finds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

VERSION = 1
"""Raised by hand whenever `alike` would find other pairs of the same volumes than before."""
# Correlations: below the one two volumes are never listed, from the other on always.
LEAST, SURE = 0.5, 0.85
# With so many volumes their own mean weighs as much as the template, which the descriptions lack.
_PRIOR = 10
# From how many persons the others' correlations say where those of two persons end.
_ENOUGH = 20
_FOUND = 0.95  # share of the known rescans that shall be found
_BLOCK, _SAMPLE = 512, 1500
_FIVE_SD = (5 - 1.2816) / (2.3263 - 1.2816)  # beyond the 90th percentile, in units of 90th to 99th


@dataclass(frozen=True)
class Threshold:
    """Above which correlation two volumes are listed.

    Attributes:
      value: The correlation.
      rescans: Number of pairs of scans of one person it was calibrated on; 0 if it is not.
      found: Share of these pairs that reach it.
    """

    value: float
    rescans: int
    found: float


class Pair(NamedTuple):
    """Two volumes that are alike.

    Attributes:
      first: Row of one.
      second: Row of the other, the higher.
      correlation: The higher of both ways.
      mirrored: Whether that is the one in a mirror.
    """

    first: int
    second: int
    correlation: float
    mirrored: bool


@dataclass(frozen=True, eq=False)
class Compared:
    """Volumes ready to be compared.

    Attributes:
      own: (N, D) float32 unit vectors; zero for a volume that says nothing.
      mirrored: Returns (..., D) vectors as they are in a mirror, where they keep their products.
    """

    own: np.ndarray
    mirrored: Callable[[np.ndarray], np.ndarray]

    def correlations(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Returns (n, m) of some volumes with some others, the higher of both ways."""
        chosen, others = self.own[rows], self.own[columns].T
        return np.maximum(chosen @ others, self.mirrored(chosen) @ others)

    def pair(self, first: int, second: int, correlation: float) -> Pair:
        """Returns two volumes with their correlation, and in which of both ways they reach it."""
        as_is, in_mirror = self._both(first, second)
        return Pair(first, second, correlation, in_mirror > as_is)

    def correlation(self, first: int, second: int) -> float:
        """Returns that of two volumes, the higher of both ways."""
        return max(self._both(first, second))

    def _both(self, first: int, second: int) -> tuple[float, float]:
        one, other = self.own[first], self.own[second]
        return float(one @ other), float(self.mirrored(one) @ other)

    def __len__(self) -> int:
        return len(self.own)


def compared(own: np.ndarray, mirrored: Callable[[np.ndarray], np.ndarray]) -> Compared:
    """Descriptions about their mean, as unit vectors.

    Args:
      own: (N, D) descriptions; zero where there is none.
      mirrored: Returns (..., D) descriptions of the same volumes seen in a mirror.

    Returns:
      The vectors. Few volumes take off a part of their mean only, so that two rescans among three
      volumes do not cancel each other.
    """
    about = np.array(own, np.float32)
    there = _speak(about)
    total = about.sum(axis=0)
    # The same in a mirror, so that what is taken off the volumes is taken off their mirror images.
    mean = (total + mirrored(total)) / 2 / (there.sum() + _PRIOR)
    for start in range(0, len(about), _BLOCK):  # in place: it may be most of the memory there is
        block = about[start : start + _BLOCK]
        block -= mean
        block *= there[start : start + _BLOCK, None]
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(norm > 0, norm, 1.0)
    return Compared(about, mirrored)


def calibrate(volumes: Compared, subjects: Sequence[str]) -> Threshold:
    """Returns a threshold between different people and known rescans.

    Args:
      volumes: From `compared`.
      subjects: N subject ids; equal ids are known rescans.

    Returns:
      The upper end of what different ids have (five SD above their mean, told from their 90th and
      99th percentiles, which neither a few hidden duplicates move nor several scanners), between
      `LEAST` and `SURE`; with fewer than twenty persons `LEAST`. Where known rescans lie lower,
      the correlation that `_FOUND` of them reach, but never within what different ids have.
    """
    names = np.asarray(subjects)
    same = [
        volumes.correlation(int(i), int(j))
        for subject in np.unique(names[_repeated(names)])
        for place, i in enumerate(np.flatnonzero(names == subject))
        for j in np.flatnonzero(names == subject)[place + 1 :]
    ]
    end = _end_of_others(volumes, names)
    value = min(max(LEAST, end), SURE)
    if same and end > -1:
        value = min(value, max(end, float(np.quantile(same, 1 - _FOUND))))
    found = float(np.mean(np.array(same) >= value)) if same else float("nan")
    return Threshold(value, len(same), found)


def _end_of_others(volumes: Compared, names: np.ndarray) -> float:
    """Returns -1 where there are too few persons to tell."""
    if len(set(names.tolist())) < _ENOUGH:
        return -1.0
    step = -(-len(names) // _SAMPLE)
    some, whose = Compared(volumes.own[::step], volumes.mirrored), names[::step]
    products = some.correlations(slice(None))
    there = _speak(some.own)
    different = (whose[:, None] != whose[None]) & there[:, None] & there[None]
    if not different.any():
        return -1.0
    high, higher = np.quantile(products[different], [0.9, 0.99])
    return float(high + _FIVE_SD * (higher - high))


def _speak(vectors: np.ndarray) -> np.ndarray:
    """Returns (N,) bool: which volumes have a description."""
    return np.array([vector.any() for vector in vectors], bool)


def _repeated(names: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def pairs_above(
    volumes: Compared,
    subjects: Sequence[str],
    threshold: float,
    over: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[Pair]:
    """Pairs of different subjects that reach a threshold, the highest first; memory does not grow
    with the square of N.

    Args:
      volumes: From `compared`.
      subjects: N subject ids.
      threshold: A correlation.
      over: Iterates over the blocks of volumes, of which each is compared with those behind it.
    """
    names = np.asarray(subjects)
    found: list[Pair] = []
    for start in over(range(0, len(volumes), _BLOCK)):
        products = volumes.correlations(slice(start, start + _BLOCK), slice(start, None))
        for i, j in np.argwhere(products >= threshold):
            if i < j and names[start + i] != names[start + j]:
                found.append(volumes.pair(int(start + i), int(start + j), float(products[i, j])))
    return sorted(found, key=lambda pair: (-pair.correlation, pair.first, pair.second))


class Alike(NamedTuple):
    """What was found among volumes, before anybody decides about it.

    Attributes:
      scans: Volumes that say something, and were compared.
      pairs: How many pairs of different ids were compared, both ways.
      threshold: Correlation from which a pair is found.
      found: The pairs that reach it, the highest first.
    """

    scans: int
    pairs: int
    threshold: float
    found: list[Pair]

    def to_json(self) -> dict[str, Any]:
        """Returns it for `from_json`."""
        return {**self._asdict(), "found": [list(pair) for pair in self.found]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Alike":
        """Returns what `to_json` was asked of.

        Raises:
          TypeError: It is of another form.
        """
        return cls(**{**value, "found": [Pair(*pair) for pair in value["found"]]})


def alike(
    volumes: Compared,
    subjects: Sequence[str],
    over: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Alike:
    """Returns near-identical volumes of different subjects.

    Time grows with the square of their number, so it is worth keeping (`VERSION`).

    Args:
      volumes: From `compared`.
      subjects: N subject ids; equal ids are known rescans.
      over: As for `pairs_above`.
    """
    threshold = calibrate(volumes, subjects).value
    there = _speak(volumes.own)
    _, counts = np.unique(np.asarray(subjects)[there], return_counts=True)
    n = int(there.sum())
    number = (n * (n - 1) - int((counts * (counts - 1)).sum())) // 2
    return Alike(n, number, threshold, pairs_above(volumes, subjects, threshold, over))
