"""Who ADNI's rows are of: RID and PTID, and the facts of PTDEMOG."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort.assemble import decimal_year
from mri_jax.cohort.dates import birth_years
from mri_jax.cohort.identity import adni_id, person
from mri_jax.cohort.joining import refuse_strangers, whole_numbers
from mri_jax.cohort.reading import as_text, is_missing, read_rows, to_codes, to_numbers
from mri_jax.errors import UserError
from mri_jax.problems import Problem, add_rows, counted, listed

SEX = {"Male": "M", "Female": "F", "M": "M", "F": "F", "1": "M", "2": "F"}
LAST_BIRTH = 2015


def who(rows: pd.DataFrame, file: str, problems: list[Problem]) -> tuple[pd.Series, pd.Series]:
    """Returns the RID (digits) and the PTID (as a subject id; empty: none) of each row.

    Args:
      rows: ``RID`` and ``PTID`` as text; one of them may be missing.
      file: For the messages.
      problems: Rows of nobody, ids that are none, and a PTID of another RID are added to it.
    """
    rid = whole_numbers(rows["RID"], file, problems)
    spelt = {text: subject_of(text) for text in rows["PTID"].unique()}
    ids = as_text(rows["PTID"].map(spelt))
    given = ~is_missing(rows["PTID"])
    add_rows(problems, file, "PTID", rows["PTID"][given & (ids == "")],
             "is no ADNI id such as 002_S_0295")  # fmt: skip
    of_id = ids.map({subject: person(subject)[1] for subject in spelt.values() if subject})
    clash = (rid != "") & (ids != "") & (rid != of_id)
    for row in rows.index[clash]:
        rule = f"is not that of {rows.at[row, 'PTID']}"
        problems.append(Problem(file, int(row), "RID", rows.at[row, "RID"], rule))
    nobody = is_missing(rows["RID"]) & ~given
    add_rows(problems, file, "RID", rows["RID"][nobody], "is missing, and so is PTID")
    return rid.where(rid != "", as_text(of_id)), ids


@lru_cache(1 << 16)
def subject_of(text: str) -> str | None:
    """Returns the subject id of a PTID in any spelling, or None."""
    try:
        return adni_id(text.strip().strip("\"'"))
    except UserError:
        return None


def subject_ids(rid: pd.Series, ids: pd.Series, elsewhere: Mapping[str, str]) -> pd.Series:
    """Returns one subject id a person.

    Args:
      rid: Digits.
      ids: Subject ids of the rows, or empty.
      elsewhere: Subject ids by RID that other tables and the images know.

    Returns:
      The first id in order of the alphabet of the person's rows, else that of elsewhere, else
      ``sub-ADNI0901`` from the RID alone, the site being unknown.
    """
    own: dict[str, str] = {}
    for number, subject in sorted({*zip(rid, ids, strict=True)}):
        if subject:
            own.setdefault(number, subject)
    names = {number: f"sub-ADNI{number.zfill(4)}" for number in rid.unique()}
    return as_text(rid.map({**names, **elsewhere, **own}))


def with_demographics(
    visits: pd.DataFrame,
    their_file: str,
    path: Path,
    problems: list[Problem],
    missing: frozenset[str] = frozenset(),
) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Returns visits with ``age``, ``born``, ``sex`` and ``education`` of PTDEMOG, joined by RID.

    Args:
      visits: Has ``rid`` and ``date``.
      their_file: The table that they are from, for the messages.
      path: PTDEMOG.
      problems: Faulty rows are added to it, and a table of nobody in the visits.
      missing: Further words for missing.

    Returns:
      The visits, notes, and the subject ids by RID that the table knows.
    """
    file = str(path)
    wanted = {
        "RID": ("RID",),
        "PTID": ("PTID",),
        "PTGENDER": ("PTGENDER",),
        "PTEDUCAT": ("PTEDUCAT",),
        "born": ("PTDOBYY", "PTDOB"),
    }
    rows = read_rows(path, wanted, ("PTEDUCAT", "PTID"), missing)
    rid, ids = who(rows, file, problems)
    refuse_strangers(visits["rid"].rename("RID"), their_file, rid.rename("RID"), file, problems)
    facts = pd.DataFrame(
        {
            "rid": rid,
            "sex": to_codes(rows["PTGENDER"], SEX, file, problems).replace("", None),
            "education": to_numbers(rows["PTEDUCAT"], file, problems, 0, 40),
            "born": birth_years(rows["born"], file, problems, "year of birth", LAST_BIRTH),
        }
    )
    rows_of = facts.groupby("rid")
    for number in rows_of["sex"].nunique().loc[lambda n: n > 1].index:
        problems.append(Problem(file, None, "PTGENDER", "", f"is both M and F for RID {number}"))
    notes = []
    for name in ("born", "education"):
        unsure = rows_of[name].nunique().loc[lambda n: n > 1].index
        if len(unsure):
            notes.append(
                f"{path.name}: rows of {counted(len(unsure), 'subject')} disagree on {name} (RID "
                f"{listed(unsure)}); the first row is used"
            )
    facts = rows_of.first()
    joined = facts.reindex(visits["rid"]).set_axis(visits.index)
    # The day of birth is not given; the middle of the year is at most half a year wrong.
    born = joined["born"] + 0.5
    absent = visits["rid"][~visits["rid"].isin(facts.index)].nunique()
    if absent:
        notes.append(
            f"age, sex and education are missing for {counted(absent, 'subject')} without a row in "
            f"{path.name}"
        )
    known = ids[ids != ""].groupby(rid).min().to_dict()
    full = visits.assign(
        age=decimal_year(visits["date"]) - born,
        born=born,
        sex=as_text(joined["sex"]),
        education=joined["education"],
    )
    return full, notes, known


def without_demographics(visits: pd.DataFrame) -> pd.DataFrame:
    """Returns visits of which nothing is known but dates and diagnoses."""
    return visits.assign(age=np.nan, sex="", education=np.nan, born=np.nan)
