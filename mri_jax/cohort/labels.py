"""From a history of diagnoses to a label: a named, versioned rule set.

A rule set is pure: the label of a subject depends on its own visits alone, in whatever order they
are given, and never on a visit after the one that decides. ``docs/labels.md`` has every decision
in one table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mri_jax.errors import UserError

NAME, VERSION = "baseline-and-progression", 1
DAYS_A_MONTH = 30.4375
DIAGNOSES = ("CN", "MCI", "AD")

NO_BASELINE = "no baseline"
NO_DIAGNOSIS = "no diagnosis"
UNSTABLE = "unstable diagnosis"
TOO_SHORT = "follow-up too short"


@dataclass(frozen=True)
class LabelRules:
    """What a label means.

    Attributes:
      mci: ``progression`` (MCI becomes pMCI, sMCI or unknown) or ``baseline`` (stays MCI).
      horizon: Months within which progression is asked for.
      window: Months around the horizon in which a visit still counts as at the horizon.
      clock: ``visit`` (months of the visit code, dates where the code has none) or ``date``
        (months between examination dates, codes where a date is missing).
      reversion: MCI that returns to CN by the horizon: ``keep`` (stable, if followed to the
        horizon without AD) or ``exclude``.
      unstable: A diagnosis of AD, or CN, that does not last to the horizon: ``keep`` (the
        deciding visit stands) or ``exclude``.
    """

    mci: str = "progression"
    horizon: float = 36.0
    window: float = 0.0
    clock: str = "visit"
    reversion: str = "keep"
    unstable: str = "keep"

    def __post_init__(self):
        choices = {
            "mci": ("progression", "baseline"),
            "clock": ("visit", "date"),
            "reversion": ("keep", "exclude"),
            "unstable": ("keep", "exclude"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"rules.{name}: {getattr(self, name)!r} is not one of {allowed}")
        if not 0 <= self.window < self.horizon:
            raise UserError(
                f"rules.window: {self.window} must be at least 0 and below the horizon "
                f"{self.horizon}"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns name, version and every option."""
        return {"name": NAME, "version": VERSION, **asdict(self)}

    @property
    def in_words(self) -> str:
        """What a label means, in a line for people."""
        told = "the diagnosis at the first session"
        if self.mci == "progression":
            told += f", MCI by whether it becomes AD within {self.horizon:g} months"
        others = [text for text in self._changed if not text.startswith(("mci=", "horizon="))]
        return f"{told} ({', '.join(others)})" if others else told

    @property
    def _changed(self) -> list[str]:
        return [
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in asdict(self).items()
            if value != getattr(LabelRules, name)
        ]

    def __str__(self) -> str:
        return " ".join([f"{NAME}/{VERSION}", *self._changed])


@dataclass(frozen=True)
class Visit:
    """One visit of one subject.

    Attributes:
      code: The visit code, for the record.
      month: Months since baseline, NaN where unknown.
      diagnosis: ``CN``, ``MCI``, ``AD``, another name that passes unchanged, or empty.
      baseline: Whether this is the visit to label.
    """

    code: str
    month: float
    diagnosis: str
    baseline: bool = False


@dataclass(frozen=True)
class Decision:
    """A label, or the reason why there is none.

    Attributes:
      label: The class, or empty.
      reason: Why there is no label, or empty.
      detail: The reason in a few words more.
      deciding: The visits that decided, e.g. ``("bl=MCI", "m24=AD")``.
    """

    label: str = ""
    reason: str = ""
    detail: str = ""
    deciding: tuple[str, ...] = ()


def decide(visits: Iterable[Visit], rules: LabelRules) -> Decision:
    """Label one subject.

    Args:
      visits: All visits, in any order. Visits before the baseline and visits whose month is
        unknown are not used.
      rules: The rule set.

    Returns:
      The decision. ``AD`` and ``CN`` are the diagnosis at baseline. ``pMCI``: MCI at baseline and
      AD at a visit no later than the horizon. ``sMCI``: MCI at baseline and a visit at or after
      the horizon, with no AD before it. A subject first seen with AD after the horizon, and not
      seen at it, is unknown: when it progressed is not known.
    """
    history = list(visits)
    first = next((v for v in history if v.baseline), None)
    if first is None:
        return Decision(reason=NO_BASELINE)
    if not first.diagnosis:
        return Decision(reason=NO_DIAGNOSIS, detail="no diagnosis at baseline")
    later = sorted(
        (v for v in history if v.diagnosis and not v.baseline and v.month > first.month),
        # On one day the graver diagnosis is taken, whatever the order of the rows.
        key=lambda v: (v.month, -_gravity(v.diagnosis), v.code),
    )
    # Months count from the baseline that is labelled, which need not be the study's first visit.
    later = [replace(v, month=v.month - first.month) for v in later]
    if first.diagnosis != "MCI" or rules.mci == "baseline":
        return _stated(first, later, rules)
    return _progression(first, later, rules)


def _stated(first: Visit, later: Sequence[Visit], rules: LabelRules) -> Decision:
    decided = Decision(first.diagnosis, deciding=(_said(first),))
    if rules.unstable == "exclude" and first.diagnosis in ("AD", "CN"):
        return _unless_changed(decided, later, rules)
    return decided


def _progression(first: Visit, later: Sequence[Visit], rules: LabelRules) -> Decision:
    onset = next((place for place, v in enumerate(later) if v.diagnosis == "AD"), len(later))
    if onset < len(later) and later[onset].month <= rules.horizon + rules.window:
        decided = Decision("pMCI", deciding=(_said(first), _said(later[onset])))
        if rules.unstable == "exclude":
            return _unless_changed(decided, later[onset + 1 :], rules, "AD")
        return decided
    free = later[:onset]
    at = next((p for p, v in enumerate(free) if v.month >= rules.horizon - rules.window), None)
    if at is not None:
        return _stable(first, free[at], free[: at + 1], rules)
    if onset < len(later):
        detail = f"AD first seen after the horizon of {rules.horizon:g} months, not seen at it"
        return Decision("", TOO_SHORT, detail, (_said(first), _said(later[onset])))
    month = later[-1].month if later else 0.0
    detail = f"last diagnosis at month {month:g}, horizon {rules.horizon:g}"
    return Decision("", TOO_SHORT, detail, tuple(_said(v) for v in (first, *later[-1:])))


def _stable(first: Visit, visit: Visit, until: Sequence[Visit], rules: LabelRules) -> Decision:
    back = [v for v in until if v.diagnosis == "CN" and v.month <= rules.horizon + rules.window]
    if back and rules.reversion == "exclude":
        return Decision(
            reason=UNSTABLE, detail="MCI returned to CN", deciding=(_said(first), _said(back[0]))
        )
    return Decision("sMCI", deciding=(_said(first), _said(visit)))


def _unless_changed(
    decided: Decision, later: Sequence[Visit], rules: LabelRules, diagnosis: str = ""
) -> Decision:
    lasting = diagnosis or decided.label
    for visit in later:
        if visit.month <= rules.horizon + rules.window and visit.diagnosis != lasting:
            return Decision(
                reason=UNSTABLE,
                detail=f"{lasting} did not last",
                deciding=(*decided.deciding, _said(visit)),
            )
    return decided


def _said(visit: Visit) -> str:
    return f"{visit.code}={visit.diagnosis}"


def _gravity(diagnosis: str) -> int:
    return DIAGNOSES.index(diagnosis) if diagnosis in DIAGNOSES else -1
