"""ADNI's visit codes, which every phase writes in its own way, in one spelling.

``docs/adni.md`` has the table and where it is from.
"""

import re

import pandas as pd

from mri_jax.cohort.identity import month_of_visit

NO_VISIT = "nv"
BASELINE_RANK = {"bl": 0.0, "sc": 1.0, "scmri": 2.0}
# ADNI-2's visits of new participants, and ADNI-4's. Who continues has other codes (v06, 4_init).
_NEW = {
    "v01": "sc", "v02": "scmri", "v03": "bl", "v04": "m03", "v05": "m06",
    "4_sc": "sc", "4_bl": "bl",
}  # fmt: skip
_SAME = {"baseline": "bl", "screening": "sc", "screening mri": "scmri", "no visit": NO_VISIT}
_MONTH = re.compile(r"m(?:onth)? ?0*(\d{1,3})", re.ASCII)
_YEAR = re.compile(r"y(\d{1,2})", re.ASCII)
_ADNI2 = re.compile(r"v([1-9])1", re.ASCII)
_ADNI4 = re.compile(r"4_m0*(\d{1,3})", re.ASCII)
_PLAIN = re.compile(r"bl|sc|scmri|m\d{2,}", re.ASCII)
# What the image search calls visits: "ADNI1/GO Month 12", "ADNI2 Screening MRI-New Pt".
_SEARCHED = re.compile(
    r"adni ?(?:[1-4]|go|1/go)? ?(screening mri|screening|baseline|month \d+)"
    r"(?: mri)?(?: ?- ?new pt)?",
    re.ASCII,
)


def plain_code(code: str, enrolled: bool) -> str:
    """Returns one visit code in ADNI-1's spelling: ``bl``, ``sc``, ``scmri``, ``nv`` or ``m06``.

    Args:
      code: As in VISCODE or VISCODE2: ``M12``, ``m00``, ``v03``, ``y1``, ``4_m12``, ...
      enrolled: Whether the person enrolled in the phase of the visit: only then are the years of
        ADNI-2 (``v11``) and ADNI-3 (``y1``) and the months of ADNI-4 counted from the baseline.

    Returns:
      The plain code; what has none (``uns1``, ``f``, ``v06``, ``4_init``, ``y1`` of a person who
      continues) in lower case.
    """
    text = code.strip().strip("\"'").strip().lower()
    text = _SAME.get(text, text)
    if match := _MONTH.fullmatch(text):
        return _of_month(int(match[1]))
    if not enrolled:
        return text
    if match := _YEAR.fullmatch(text):
        return _of_month(12 * int(match[1]))
    if match := _ADNI2.fullmatch(text):
        return _of_month(12 * int(match[1]))
    if match := _ADNI4.fullmatch(text):
        return _of_month(int(match[1]))
    return _NEW.get(text, text)


def plain_codes(codes: pd.Series, enrolled: pd.Series) -> pd.Series:
    """Returns `plain_code` of every row."""
    pairs = {pair: plain_code(*pair) for pair in set(zip(codes, enrolled, strict=True))}
    plain = [pairs[pair] for pair in zip(codes, enrolled, strict=True)]
    return pd.Series(plain, index=codes.index, dtype=object)


def months(plain: pd.Series) -> pd.Series:
    """Months since the first baseline; NaN where a plain code says none (``uns1``, ``v06``)."""
    said = {code: month_of_visit(code) if _PLAIN.fullmatch(code) else float("nan")
            for code in plain.unique()}  # fmt: skip
    return plain.map(said).astype(float)


def image_visit(text: str) -> str:
    """Returns the plain code of the visit that a table of images names; empty without a month.

    ``sc``, ``m12``, ``4_bl``, and the image search's ``ADNI1/GO Month 12`` or ``ADNI2 Baseline-New
    Pt``. Whether a person enrolled in the phase is not known here, so that ``y1`` says nothing.
    """
    text = text.strip().strip("\"'").lower()
    if match := _SEARCHED.fullmatch(text):
        text = match[1]
    plain = plain_code(_NEW.get(text, text), enrolled=False)
    return plain if _PLAIN.fullmatch(plain) else ""


def _of_month(month: int) -> str:
    return "bl" if month == 0 else f"m{month:02d}"
