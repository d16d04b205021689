"""Scans as an archive describes them, and the choice of one scan a subject.

An images table has the columns `COLUMNS`, one row an image:

``subject_id``, ``image_id`` (digits), ``date`` (NaT unknown), ``visit`` (code or ""),
``description``, ``level`` (processing, see `LEVELS`), ``field`` (tesla, NaN unknown),
``accelerated``, ``repeat``, ``t1`` (bool), ``quality`` (1 best to 4 unusable, NaN unrated),
``selected`` (bool, marked by the archive's raters), ``preference`` (0 most wanted, by the user's
stated preference of file names), ``path`` ("" when no file was found), ``instead`` (what is there
instead of that file, such as a link without content, or ""). Where an archive tells it there are
also `MADE_BY`: ``manufacturer`` and ``model`` of the scanner, or "".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mri_jax.cohort.identity import months_of_visits
from mri_jax.cohort.reading import as_text
from mri_jax.errors import UserError
from mri_jax.problems import counted

COLUMNS = [
    "subject_id",
    "image_id",
    "date",
    "visit",
    "description",
    "level",
    "field",
    "accelerated",
    "repeat",
    "t1",
    "quality",
    "selected",
    "preference",
    "path",
    "instead",
]
MADE_BY = ["manufacturer", "model"]
LEVELS = ("raw", "gradwarp", "b1", "n3", "scaled", "bids")
UNUSABLE = 4.0
NO_SCAN = "no scan"

_T1 = re.compile(r"mp-?\s?rage|\bmpr\b|mpr-r|spgr|\bt1w?\b|\btfe\b|bravo", re.IGNORECASE)
_NOT_T1 = re.compile(
    r"locali[sz]er|scout|flair|calib|field.?map|asl|dti|mask|freesurfer|hippo|segment|"
    r"spatially normali[sz]ed|jacobian|bold|fmri|\bt2\b",
    re.IGNORECASE,
)
_ACCELERATED = re.compile(r"accel|grappa|sense|\bp2\b|\bisop2|caipi|compressed", re.IGNORECASE)
_REPEAT = re.compile(r"\brep(?:eat)?(?:x?\d)?\b|\brpt\b|mpr-r\b|\br$", re.IGNORECASE)
_STEPS = (
    ("scaled", re.compile(r"scaled", re.IGNORECASE)),
    ("n3", re.compile(r"\bn3m?\b", re.IGNORECASE)),
    ("b1", re.compile(r"\bb1[ -]?corr", re.IGNORECASE)),
    ("gradwarp", re.compile(r"grad\s?warp", re.IGNORECASE)),
)


@dataclass(frozen=True)
class ImageChoice:
    """How one scan a subject is chosen.

    Attributes:
      days: Largest distance from the baseline date, in days.
      level: The one processing level that all scans must have.
      acceleration: ``prefer-unaccelerated``, ``require-unaccelerated`` or ``any``.
      repeats: ``prefer-first``, ``require-first`` or ``any``.
      field: Field strength in tesla required in a cohort; a cohort not named accepts any. A scan
        whose field strength is unknown is accepted.
      quality: ``exclude-unusable`` (rated 4, or failed) or ``ignore``.
      by_month: Whether an undated scan of another visit of the same month (SC, BL) will do.
    """

    days: float = 90.0
    level: str = "raw"
    acceleration: str = "prefer-unaccelerated"
    repeats: str = "prefer-first"
    field: Mapping[str, float] = field(default_factory=dict)
    quality: str = "exclude-unusable"
    by_month: bool = True

    def __post_init__(self):
        for name, allowed in (
            ("level", LEVELS),
            ("acceleration", ("prefer-unaccelerated", "require-unaccelerated", "any")),
            ("repeats", ("prefer-first", "require-first", "any")),
            ("quality", ("exclude-unusable", "ignore")),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"images.{name}: {getattr(self, name)!r} is not one of {allowed}")
        if not self.days >= 0:
            raise UserError(f"images.days: {self.days} must be at least 0")


def level_of(description: str, kind: str = "") -> str:
    """Returns the processing level in a description (``MPR; GradWarp; B1 Correction; N3``).

    Args:
      description: The archive's, or the download folder's name with ``_`` for other characters.
      kind: The archive's type: ``Original``, ``Pre-processed``, ``Processed``, ...

    Returns:
      The last step applied, one of `LEVELS`, or ``other`` for derived images of another kind.
    """
    text = description.replace("_", " ")
    for name, pattern in _STEPS:
        if pattern.search(text):
            return name
    return "raw" if kind.strip().lower() in ("", "original", "orig") else "other"


def describe(frame: pd.DataFrame) -> pd.DataFrame:
    """Add what a description says: ``level``, ``accelerated``, ``repeat`` and ``t1``.

    Args:
      frame: Columns ``description`` and ``kind`` (text).
    """
    both = frame[["description", "kind"]].drop_duplicates()
    text = both["description"].str.replace("_", " ")
    both = both.assign(
        level=[level_of(d, k) for d, k in zip(text, both["kind"], strict=True)],
        accelerated=text.str.contains(_ACCELERATED),
        repeat=text.str.contains(_REPEAT),
        t1=text.str.contains(_T1) & ~text.str.contains(_NOT_T1),
    )
    merged = frame.merge(both, on=["description", "kind"], how="left", validate="m:1")
    return merged.set_axis(frame.index)


def choose(units: pd.DataFrame, images: pd.DataFrame, how: ImageChoice) -> pd.DataFrame:
    """Choose one scan for every unit (a subject in a cohort).

    Args:
      units: ``subject_id``, ``cohort``, ``baseline`` (date, NaT unknown), ``visit`` (code of the
        baseline visit), indexed by unit.
      images: An images table.
      how: The rules.

    Returns:
      A frame indexed as ``units``: ``image_id``, ``path``, ``scanned`` (date), ``days`` (after
      baseline, negative before it, NaN where matched by visit), ``field``, ``level``, `MADE_BY`,
      ``runner_up`` (the next best image and what it lost by, or empty), ``why_not`` (why there is
      no scan, or empty).
    """
    pairs = (
        units.rename_axis("unit")
        .reset_index()
        .merge(images.rename(columns={"visit": "image_visit"}), on="subject_id", how="inner")
    )
    days = (pairs["date"] - pairs["baseline"]).dt.days.astype(float)
    months = [months_of_visits(pairs[name]) for name in ("image_visit", "visit")]
    # A screening and a baseline visit are both month 0, and each has its own scan.
    own_visit = (pairs["image_visit"] != "") & (pairs["image_visit"] == pairs["visit"])
    pairs = pairs.assign(
        days=days, own_visit=own_visit, same_month=own_visit | (months[0] == months[1])
    )
    pairs, why_not = _eligible(pairs, units.index, how)
    ranked = _ranked(pairs, how)
    best = ranked.drop_duplicates("unit").set_index("unit")
    second = ranked[ranked.duplicated("unit")].drop_duplicates("unit").set_index("unit")
    text = ["image_id", "path", "level", *MADE_BY]
    chosen = best.reindex(columns=[*text, "date", "days", "field"]).reindex(units.index)
    for name in text:
        chosen[name] = as_text(chosen[name])
    chosen["runner_up"] = as_text(_runner_up(best, second).reindex(units.index))
    return chosen.rename(columns={"date": "scanned"}).assign(why_not=why_not)


def _eligible(
    pairs: pd.DataFrame, units: pd.Index, how: ImageChoice
) -> tuple[pd.DataFrame, pd.Series]:
    """Returns the pairs that meet every requirement, and why each other unit has none."""
    wanted = pairs["cohort"].map(how.field).astype(float)
    dated = pairs["days"].notna()
    same = pairs["same_month"] if how.by_month else pairs["own_visit"]
    near = (dated & (pairs["days"].abs() <= how.days)) | (~dated & same)
    reached = set(pairs.loc[near & pairs["t1"], "unit"])
    distance = _distance(pairs[pairs["t1"] & ~pairs["unit"].isin(reached)], how.days)
    present = ", ".join(sorted(set(pairs["level"])))
    requirements: list[tuple[str | pd.Series, pd.Series]] = [
        ("no image of the subject", pd.Series(True, index=pairs.index)),
        ("no T1w image", pairs["t1"]),
        (distance, near),
        (
            f"none at processing level {how.level} (found: {present}; choose with --level)",
            pairs["level"] == how.level,
        ),
        (
            "none at the wanted field strength (--field COHORT=any takes every one)",
            wanted.isna() | pairs["field"].isna() | ((pairs["field"] - wanted).abs() < 0.3),
        ),
    ]
    if how.acceleration == "require-unaccelerated":
        requirements.append(("accelerated only", ~pairs["accelerated"]))
    if how.repeats == "require-first":
        requirements.append(("repeats only", ~pairs["repeat"]))
    if how.quality == "exclude-unusable":
        requirements.append(
            ("failed image quality (--quality ignore takes it)", ~(pairs["quality"] >= UNUSABLE))
        )
    requirements.append((_no_file(pairs), pairs["path"] != ""))
    why_not = pd.Series("", index=units, dtype=object)
    for reason, passes in requirements:
        pairs = pairs[passes.reindex(pairs.index)]
        lost = ~units.isin(pairs["unit"]) & (why_not == "")
        why_not[lost] = reason if isinstance(reason, str) else reason.reindex(units[lost])
    return pairs, why_not


def _distance(pairs: pd.DataFrame, days: float) -> pd.Series:
    """Returns why none of these T1w images is at the baseline of its unit, in words by unit."""
    said: dict[object, str] = {}
    for unit, of in pairs.groupby("unit"):
        wanted = of["visit"].iloc[0] or "of baseline"
        visits = sorted(set(of["image_visit"]) - {""})
        known = of["days"].dropna()
        if len(known):
            nearest = known.loc[known.abs().idxmin()]
            side = "after" if nearest > 0 else "before"
            apart = counted(int(abs(nearest)), "day")
            said[unit] = (
                f"no T1w image within {days:g} days of baseline (nearest: {apart} {side}; "
                f"--days {abs(nearest):g} or more takes it)"
            )
        elif visits:
            said[unit] = f"no T1w image of visit {wanted} (found: {', '.join(visits)})"
        elif of["date"].notna().any():
            said[unit] = f"visit {wanted} has no date, and the T1w images name no visit"
        else:
            said[unit] = "the T1w images have neither date nor visit"
    return pd.Series(said, dtype=object)


def _no_file(pairs: pd.DataFrame) -> pd.Series:
    """Returns why there is no file of the images without one, in words by unit."""
    lost = pairs[pairs["path"] == ""].groupby("unit")["instead"].first()
    return lost.map(
        lambda what: f"the image is {what}" if what else "image listed, but no file of it found"
    )


def _ranked(pairs: pd.DataFrame, how: ImageChoice) -> pd.DataFrame:
    accelerated = pairs["accelerated"] if how.acceleration != "any" else False
    repeat = pairs["repeat"] if how.repeats != "any" else False
    ranked = pairs.assign(
        farther=pairs["days"].abs().fillna(0.0),
        other_visit=pairs["days"].isna() & ~pairs["own_visit"],
        unwanted=pairs["preference"],
        unselected=~pairs["selected"].astype(bool),
        repeated=repeat,
        slower=accelerated,
        poorer=pairs["quality"].fillna(2.5) if how.quality != "ignore" else 0.0,
        number=pd.to_numeric(pairs["image_id"], errors="coerce").fillna(np.inf),
    )
    keys = ["unit", *_KEYS, "image_id", "path"]
    return ranked.sort_values(keys, kind="stable")


# In the order in which two scans are compared; what the loser is said to be.
_KEYS = {
    "farther": "farther from baseline",
    "other_visit": "of another visit of the same month",
    "unwanted": "less preferred by its name",
    "unselected": "not the one selected by the raters",
    "repeated": "a repeat",
    "slower": "accelerated",
    "poorer": "rated poorer",
    "number": "later image id",
}


def _runner_up(best: pd.DataFrame, second: pd.DataFrame) -> pd.Series:
    if second.empty:
        return pd.Series("", index=second.index, dtype=object)
    won = best.loc[second.index]
    said = pd.Series("same in all respects", index=second.index, dtype=object)
    for key in reversed(_KEYS):
        said = said.mask(won[key] != second[key], _KEYS[key])
    return second["image_id"] + ": " + said
