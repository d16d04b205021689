"""No subject and no image on both sides of an evaluation.

`Seen` is what a network and its ancestors have been shown (training, early stopping, fine-tuning,
thresholds). Each stage of a study stores its own joined with its parent's; an evaluation calls
`check_disjoint` with it, wherever the stage was built.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mri_jax.cohort.identity import person
from mri_jax.errors import UserError
from mri_jax.problems import counted

_NAMED = 5


class LeakageError(UserError):
    """The same subject, or the same image, is on both sides of an evaluation."""


@dataclass(frozen=True)
class Seen:
    """Subjects and scans on one side of an evaluation.

    Attributes:
      subjects: Subject ids.
      scans: SHA-256 of a scan's image bytes to a name for it (``SUBJECT SESSION``).
    """

    subjects: frozenset[str] = frozenset()
    scans: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, scans: Iterable[tuple[str, str, str]]) -> "Seen":
        """Makes one of (subject_id, session_id, sha256) triples; an empty sha256 is left out."""
        triples = sorted(scans, reverse=True)
        return cls(
            frozenset(subject for subject, _, _ in triples),
            {sha: f"{subject} {session}" for subject, session, sha in triples if sha},
        )

    def __or__(self, other: "Seen") -> "Seen":
        """Joins what a fine-tuned network and its source network have seen."""
        return Seen(self.subjects | other.subjects, {**other.scans, **self.scans})

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-serialisable form, equal for equal content."""
        return {"subjects": sorted(self.subjects), "scans": dict(sorted(self.scans.items()))}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Seen":
        """Returns what `to_json` wrote."""
        return cls(frozenset(value["subjects"]), dict(value["scans"]))


def check_disjoint(seen: Seen, tested: Seen, context: str) -> None:
    """Refuse a test of a network on what it has seen.

    Args:
      seen: What the network and its ancestors were shown.
      tested: The subjects and scans of the test.
      context: Which evaluation, for the message, e.g. ``cnn5-w1 fold 2 tested on ADNI2``.

    Raises:
      LeakageError: A person is on both sides (whatever the spelling of an ADNI or AIBL id), or the
        same image bytes are (under whatever ids); up to five offenders are named, and their number.
    """
    people = {person(subject) for subject in seen.subjects}
    subjects = sorted(subject for subject in tested.subjects if person(subject) in people)
    if subjects:
        raise LeakageError(
            f"leakage: {context}: {_some(subjects, 'subject')} on both sides: the network or an "
            "ancestor of it has seen them"
        )
    scans = sorted(seen.scans.keys() & tested.scans.keys())
    if scans:
        pairs = sorted(f"{tested.scans[sha]} = {seen.scans[sha]}" for sha in scans)
        raise LeakageError(
            f"leakage: {context}: {_some(pairs, 'scan')} with the same image bytes on both sides "
            "(tested = seen)"
        )


def refuse_same_bytes(scans: Iterable[tuple[str, str, str]], what: str) -> None:
    """Refuse one image under two subject ids, on whichever side of an evaluation.

    Args:
      scans: (subject_id, session_id, sha256) triples; an empty (or NaN) sha256 is left out.
      what: Names the table and the image, for the message.

    Raises:
      LeakageError: Up to five pairs are named, and their number.
    """
    first: dict[str, tuple[str, str]] = {}
    pairs = []
    for subject, session, sha in sorted(s for s in scans if s[2] and s[2] == s[2]):
        known, seen = first.setdefault(sha, (subject, session))
        if person(known) != person(subject):
            pairs.append(f"{subject} {session} = {known} {seen}")
    if pairs:
        raise LeakageError(
            f"{what}: {_some(pairs, 'scan')} with the same bytes as another subject's: keep one"
        )


def _some(names: list[str], what: str) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{counted(len(names), what)} ({', '.join(names[:_NAMED])}{more})"
