"""Who is who: a person is (study family, number), however the id is spelt."""

import re

import pandas as pd

from mri_jax.errors import UserError

_ADNI = re.compile(r"^(?:sub-)?(?:ADNI)?(\d{3})_?S_?(\d{4,5})$", re.IGNORECASE)
_AIBL = re.compile(r"^(?:sub-)?AIBL_?0*(\d+)$", re.IGNORECASE)
_MONTH = re.compile(r"^(?:ses-)?m(\d+)$", re.IGNORECASE)


def canonical(subject_id: str) -> str:
    """One spelling of a subject id.

    ADNI ids of every spelling (``002_S_0295``, ``sub-ADNI002S0295``, ``ADNI002S0295``) become
    ``sub-ADNI002S0295``; AIBL's become ``sub-AIBL123``; anything else is returned unchanged.
    """
    text = subject_id.strip()
    if match := _ADNI.match(text):
        return f"sub-ADNI{match[1]}S{match[2]}"
    if match := _AIBL.match(text):
        return f"sub-AIBL{match[1]}"
    return text


def person(subject_id: str) -> tuple[str, str]:
    """The person behind an id: ("ADNI", RID), ("AIBL", number) or ("", the id itself).

    ADNI numbers its participants across sites and phases (RID), so the site in the id is not part
    of the identity. AIBL's numbers are another family: AIBL 295 is not ADNI's RID 295.
    """
    text = subject_id.strip()
    if match := _ADNI.match(text):
        return "ADNI", str(int(match[2]))
    if match := _AIBL.match(text):
        return "AIBL", match[1]
    return "", text


def adni_id(ptid: str) -> str:
    """``002_S_0295`` in any spelling to ``sub-ADNI002S0295``.

    Raises:
      UserError: It is no ADNI id.
    """
    if not _ADNI.match(ptid.strip()):
        raise UserError(f"subject id: {ptid!r} is not an ADNI id such as 002_S_0295")
    return canonical(ptid)


def aibl_id(rid: str | int) -> str:
    """AIBL's number to ``sub-AIBL123``."""
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
    """`month_of_visit` of every code."""
    return codes.map({code: month_of_visit(code) for code in codes.unique()}).astype(float)


def code_of_month(month: float) -> str:
    """``bl`` for month 0, ``m06`` for month 6, empty where unknown."""
    if month != month:
        return ""
    return "bl" if month == 0 else f"m{round(month):02d}"


def session_of_month(month: float) -> str:
    """``ses-M006`` for month 6."""
    return f"ses-M{round(month):03d}"
