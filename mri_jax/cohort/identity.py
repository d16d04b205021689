"""Who is who: a person is (study family, number), however the id is spelt.

Two strengths. `person` is certain: equal persons are one, and nothing can say otherwise. `likeness`
is what is left of an id without its spelling: equal ones are probably one person, and a study
stops until the user says so (`mri_jax.cohort.same_people`).
"""

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import pandas as pd

from mri_jax.errors import UserError

_MONTH = re.compile(r"^(?:ses-)?m(\d+)$", re.IGNORECASE)

# What follows is matched against `plain` text: lower case, `_` for every separator.
_SESSION = (
    r"(?:_?ses_?[^\W_]+|_m\d{1,3}|_y\d{1,2}|_bl|_sc|_baseline|_screening|_(?:v|visit|fu|followup|tp|"
    r"scan|run|wave)_?\d+|_followup|_mr_?d?\d+|_t1w?)"
)
_SUB = re.compile(r"^sub(?:j|ject)?(?:_|(?=\d))")
_ADNI = re.compile(
    rf"^(?:sub_?)?(?:adni(?:go|\d)?_|adni)?"
    rf"(?:(?P<site>\d{{3}})_?s_?|(?P<short>\d{{1,2}})_s_)(?P<rid>\d{{4,5}}){_SESSION}*$"
)
# Fewer digits than the archive writes.
_ADNI_SHORT = re.compile(r"^(?:adni(?:go|\d)?_?)?(?:\d{3}_?s_?|\d{1,3}_s_)(\d{1,5})$")
_AIBL = re.compile(rf"^(?:sub_?)?aibl_?0*(\d+){_SESSION}*$")
_GLUED = re.compile(rf"(?<=[^_]){_SESSION}$")
_PARTS = re.compile(r"\d+|[^\W\d_]+|_+|.", re.DOTALL)
# Cyrillic and Greek letters whose capital (or small) form looks like a Latin letter.
_LOOK_ALIKE = str.maketrans(
    "авекмнорстухіјѕαβεζηικμνορτυχ", "abekmhopctyxijsabezhikmnoptyx"
)  # fmt: skip
_MINUS = "\u2212"
_FAMILIES = ("adni", "aibl")
# From how many letters the name of a cohort is looked for without a separator behind it.
_LONG = 4


def plain(subject_id: str) -> str:
    """Returns an id without what the eye does not see or cannot tell apart.

    Compatible forms of Unicode (full width, composed or not) become one, letters lower case,
    Cyrillic and Greek look-alikes Latin; invisible characters go; every run of spaces and
    punctuation becomes ``_``, none at the ends.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", subject_id).casefold())
    return re.sub("_+", "_", text.translate(_LOOK_ALIKE).translate(_SHOWN)).strip("_")


def unspelt(site: str) -> str:
    """Returns what two spellings of one site have in common.

    >>> unspelt("SITE_3") == unspelt("Site3"), unspelt("A_1_2") == unspelt("A12")
    (True, False)
    """
    return re.sub(r"(?<!\d)_|_(?!\d)", "", plain(site))


class _Shown(dict[int, str]):
    """What becomes of each character, for `str.translate`, which asks once for each."""

    def __missing__(self, code: int) -> str:
        self[code] = _visible(chr(code))
        return self[code]


_SHOWN = _Shown()


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in ("Cf", "Cn", "Co", "Cs") or (kind == "Cc" and not character.isspace()):
        return ""
    if kind[0] in "PZ" or kind == "Cc" or character == _MINUS:
        return "_"
    return character


def canonical(subject_id: str) -> str:
    """Returns one spelling of a subject id.

    ADNI ids of every spelling (``002_S_0295``, ``2-S-0295``, ``ADNI_002_S_0295``,
    ``002_S_0295_m12``, ``sub-ADNI002S0295``) become ``sub-ADNI002S0295``; AIBL's become
    ``sub-AIBL123``; anything else is returned unchanged.
    """
    text = plain(subject_id)
    if match := _ADNI.match(text):
        return f"sub-ADNI{int(match['site'] or match['short']):03d}S{match['rid']}"
    if match := _AIBL.match(text):
        return f"sub-AIBL{int(match[1])}"
    return subject_id.strip()


@lru_cache(1 << 20)  # more than a study has subjects, or none would be found again
def person(subject_id: str) -> tuple[str, str]:
    """Returns the person behind an id: ("ADNI", RID), ("AIBL", number) or ("", the id itself).

    ADNI numbers its participants across sites and phases (RID), so the site in the id is not part
    of the identity. AIBL's numbers are another family: AIBL 295 is not ADNI's RID 295.
    """
    text = plain(subject_id)
    if match := _ADNI.match(text):
        return "ADNI", str(int(match["rid"]))
    if match := _AIBL.match(text):
        return "AIBL", str(int(match[1]))
    return "", subject_id.strip()


class Likeness(NamedTuple):
    """What is left of an id without its spelling.

    Attributes:
      name: Letters and numbers: ``sub-01``, ``SUB_1`` and ``01_ses-02`` are all ``1``, ``A-007`` is
        ``a7``; two numbers stay apart (``1_2`` is not ``12``).
      numbering: Whose numbering the id itself names (ADNI, AIBL or a cohort in front), or empty.
    """

    name: str
    numbering: str

    def may_be(self, other: "Likeness") -> bool:
        """Returns whether both may be one person. Two named numberings must be the same."""
        named = {self.numbering, other.numbering} - {""}
        return self.name == other.name and len(named) < 2


def likeness(subject_id: str, session_id: str = "", cohorts: Collection[str] = ()) -> Likeness:
    """Returns an id without its spelling.

    Left out: case, Unicode form, invisible characters, separators, leading zeros, ``sub-`` in
    front, a session behind (``_ses-02``, ``_m12``, or the scan's own), and the name of a cohort in
    front, which becomes the numbering.

    Args:
      subject_id: The id.
      session_id: Session of its scan.
      cohorts: Names that may stand in front of an id.
    """
    family, number = person(subject_id)
    if family:
        return Likeness(number, family.lower())
    whole = re.sub(r"(?<=\d)\.0+(?=\s*$)", "", subject_id)  # a number read as 12.0
    text = _bare(plain(whole), plain(session_id))
    if match := _ADNI_SHORT.match(text):
        return Likeness(str(int(match[1])), "adni")
    text, numbering = _without_cohort(text, cohorts)
    name = _joined(_PARTS.findall(_bare(text)))
    # Without separators a session may show that they hid (S_ES0 is SES0).
    while (shorter := _joined(_PARTS.findall(_bare(name)))) != name:
        name = shorter
    return Likeness(name, numbering)


def _bare(text: str, session: str = "") -> str:
    """Removes every ``sub`` in front and every session behind."""
    while True:
        shorter = _SUB.sub("", text)
        if session and shorter.endswith(f"_{session}"):
            shorter = shorter.removesuffix(f"_{session}")
        cut = _GLUED.sub("", shorter)
        shorter = cut if re.search(r"\d", cut) else shorter
        if shorter in ("", text):
            return text
        text = shorter


def _without_cohort(text: str, cohorts: Collection[str]) -> tuple[str, str]:
    """Returns an id without the longest name of a cohort in front of it, and that name."""
    names = _numberings(tuple(cohorts))
    parts = _PARTS.findall(text)
    for end in range(len(parts) - 1, 0, -1):
        name, rest = _joined(parts[:end]), "".join(parts[end:]).strip("_")
        if name in names and rest:
            return rest, name
    for name in names:  # SITEBP7: letters behind letters
        rest = text.removeprefix(name)
        if len(name) >= _LONG and name[-1].isalpha() and text != rest and re.search(r"\d", rest):
            return rest, name
    return text, ""


@lru_cache(64)
def _numberings(cohorts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what may stand in front of an id, the longest first."""
    names = {_joined(_PARTS.findall(plain(name))) for name in cohorts} | set(_FAMILIES)
    return tuple(sorted(names, key=len, reverse=True))


def _joined(parts: list[str]) -> str:
    """Letters and numbers without separators or leading zeros; ``_`` between two numbers alone."""
    joined = ""
    apart = False
    for part in parts:
        if part.startswith("_"):
            apart = True
            continue
        part = str(int(part)) if part.isdecimal() else part
        joined += "_" + part if apart and joined[-1:].isdecimal() and part.isdecimal() else part
        apart = False
    return joined


def adni_id(ptid: str) -> str:
    """Returns the subject id ``sub-ADNI002S0295`` of ``002_S_0295`` in any spelling.

    Raises:
      UserError: It is no ADNI id.
    """
    if person(ptid)[0] != "ADNI":
        raise UserError(f"subject id: {ptid!r} is not an ADNI id such as 002_S_0295")
    return canonical(ptid)


def aibl_id(rid: str | int) -> str:
    """Converts AIBL's number to ``sub-AIBL123``."""
    return f"sub-AIBL{int(rid)}"


def month_of_visit(code: str) -> float:
    """Months since baseline of a visit code or session label; NaN where the code says none.

    ``bl``, ``sc``, ``scmri`` are 0; ``m06``, ``M006``, ``ses-M00`` and the like are their number;
    ``y1`` (ADNI-3) is 12 a year; ``Base`` and ``18 mo`` are AIBL's. ``nv`` (no visit), ``uns1``,
    ``f`` and ``ses-1`` have none.
    """
    text = code.strip().lower().removeprefix("ses-")
    if text in {"bl", "sc", "scmri", "base", "baseline"}:
        return 0.0
    if match := _MONTH.match(text) or re.fullmatch(r"(\d+) ?mo(?:nths?)?", text):
        return float(match[1])
    if re.fullmatch(r"y\d+", text):
        return 12.0 * int(text[1:])
    return float("nan")


def months_of_visits(codes: pd.Series) -> pd.Series:
    """Returns `month_of_visit` of every code."""
    return codes.map({code: month_of_visit(code) for code in codes.unique()}).astype(float)


def code_of_month(month: float) -> str:
    """Returns ``bl`` for month 0, ``m06`` for month 6, empty where unknown."""
    if month != month:
        return ""
    return "bl" if month == 0 else f"m{round(month):02d}"


def session_of_month(month: float) -> str:
    """Returns ``ses-M006`` for month 6."""
    return f"ses-M{round(month):03d}"
