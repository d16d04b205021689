"""The cohort table: one row a scan, the only form in which subjects enter a study.

Columns: ``subject_id`` (a person: the same id is the same person wherever it stands),
``session_id``, ``cohort``, ``diagnosis``, ``age`` (years), ``sex`` (`SEXES`), ``image``
(path of the scan: absolute, or relative to the table's folder and within it, or empty when the
volume is already in a store), and any covariates. A row is named by (subject_id, session_id). A
person may have rows in several cohorts (an ADNI-1 subject who continued in ADNI-2), under
different sessions.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import delimited, files
from mri_jax.cohort.identity import person
from mri_jax.cohort.reading import MISSING, as_text, formula_cells, is_missing
from mri_jax.errors import UserError
from mri_jax.filenames import where_folders_end
from mri_jax.problems import Problem, absent, refuse

REQUIRED = ("subject_id", "session_id", "cohort", "diagnosis", "age", "sex", "image")
KEY = ["subject_id", "session_id"]
_NAMES = ("subject_id", "session_id", "cohort", "diagnosis")
_TEXT = ("subject_id", "session_id", "cohort", "diagnosis", "sex", "image")
OLDEST = 120.0
SEXES = ("F", "M", "O")
"""Female, male and other, as BIDS has them."""
# A covariate may be -1; of these none can be, so that the numbers of the list count as well.
_NEVER_NEGATIVE = ("age", "education", "mmse", "cdr", "cdrsb")
_NUMBER = re.compile(r"^-?\d+(\.\d+)?$")
_OTHER_PEOPLE = (
    ", in several cohorts; if these are different people, put the cohort before their ids "
    "(cohort bids --family NAME)"
)


def read_table(
    path: epath.PathLike,
    codes: Mapping[str, str] = MappingProxyType({}),
    missing: frozenset[str] = MISSING,
) -> pd.DataFrame:
    """Read and validate a cohort table.

    Args:
      path: A CSV file with at least the columns `REQUIRED`.
      codes: Diagnoses that are renamed, before it is asked what counts as missing.
      missing: What counts as missing. No class is called by a word of `MISSING` in any case.

    Returns:
      A frame of str columns `_TEXT` (empty string where missing), float ``age`` (years, NaN where
      missing) and the covariates as numbers where all known cells are, in the file's order.

    Raises:
      UserError: The file is absent, no table (`mri_jax.delimited.read`), or cut.
      TableError: Columns are missing, or rows are wrong; all of them are named.

    Example:
      >>> people = read_table("cohort.csv")
      >>> people.groupby(["cohort", "diagnosis"]).size().to_dict()
      {('ADNI1', 'AD'): 10, ('ADNI1', 'CN'): 10, ('ADNI2', 'AD'): 10, ('ADNI2', 'CN'): 10}
    """
    if not files.on_bucket(path) and os.path.isdir(path):
        raise UserError(f"{path}: is a folder; give the cohort table, a CSV file")
    try:
        rows = delimited.read(path)
    except UserError as error:
        if str(error).endswith("no such file"):
            raise UserError(f"{path}: no such cohort table") from None
        raise
    if not rows.ended and "label_rules" in rows.header:
        raise UserError(
            f"{path}: row {rows.numbers[-1] if rows.numbers else 1}: the last row has no line end, "
            "so the file was cut short; make it again"
        )
    if not rows.cells and set(REQUIRED) <= set(rows.header):
        raise UserError(f"{path}: has the columns of a cohort table, but no row")
    frame = rows.frame()
    words = frozenset(word for word in missing if not _NUMBER.match(word))
    for name in frame:
        if name == "diagnosis":
            frame[name] = frame[name].replace(dict(codes))
        if name in _NAMES:  # where it is missing it is refused, with what it says
            continue
        whole = name in _TEXT or name in _NEVER_NEGATIVE
        known = ~is_missing(frame[name], missing if whole else words)
        blank = frame[name].where(known, "")
        frame[name] = blank if name in _TEXT or name == "age" else _inferred(frame[name], known)
    return validate(frame, str(path), missing)


def _inferred(values: pd.Series, known: pd.Series) -> pd.Series:
    """Converts a column of text to numbers or bool where all its cells are; NaN where missing."""
    present = values[known]
    if present.isin(["True", "False"]).all() and known.all() and len(present):
        return present == "True"
    numbers = pd.to_numeric(present, errors="coerce")
    if numbers.notna().all():
        return numbers.astype(float).reindex(values.index) if not known.all() else numbers
    return values.where(known, np.nan)


def validate(frame: pd.DataFrame, source: str, missing: frozenset[str] = MISSING) -> pd.DataFrame:
    """Check a cohort table and give its columns their types.

    Args:
      frame: The table.
      source: What to call it in an error, usually its path.
      missing: What cannot be a name, besides `MISSING`.

    Returns:
      A copy with typed columns.

    Raises:
      TableError: Columns are missing, identifiers are empty, a (subject, session) occurs twice, two
        ids are one person, an age or sex is impossible, or a cell looks like a formula. All are
        named.
    """
    lacking = [name for name in REQUIRED if name not in frame.columns]
    problems: list[Problem] = []
    if lacking:
        told = absent([repr(name) for name in lacking], frame.columns)
        problems.append(Problem(source, None, "", "", told))
        # What is wrong with the other columns is told with it.
        frame = frame.assign(**dict.fromkeys(lacking, ""))
    if isinstance(frame.index, pd.RangeIndex):  # a table that was not read has no rows to point at
        frame = frame.set_axis(pd.RangeIndex(2, len(frame) + 2))
    frame = frame.copy()
    for name in _TEXT:
        frame[name] = as_text(frame[name]).astype(str).str.strip()
    problems += _text_problems(frame, source, missing | MISSING)
    age = pd.to_numeric(frame["age"], errors="coerce").astype(float)
    wrong = frame["age"].notna() & (frame["age"].astype(str).str.strip() != "") & ~np.isfinite(age)
    problems += _each(frame, source, "age", wrong, "is not a number")
    outside = (age < 0) | (age > OLDEST)
    problems += _each(frame, source, "age", outside, f"must lie between 0 and {OLDEST:g} years")
    frame["age"] = age
    problems += _identity_problems(frame, source)
    refuse(problem for problem in problems if problem.column not in lacking)
    return frame.reset_index(drop=True)


def _text_problems(frame: pd.DataFrame, source: str, missing: frozenset[str]) -> list[Problem]:
    problems: list[Problem] = []
    for name in _NAMES:
        empty = "is empty"
        if name == "diagnosis":
            empty += "; write a word of your own where there is none, e.g. unknown"
        problems += _each(frame, source, name, frame[name] == "", empty)
        for text in frame.loc[is_missing(frame[name], missing), name].unique():
            rule = "counts as missing and cannot be a name"
            if name == "diagnosis":
                rule += f" (to rename it: cohort join {source} --code={text}=NAME --out NEW.csv)"
            if text:
                problems += _each(frame, source, name, frame[name] == text, rule)
    sex = ~frame["sex"].isin([*SEXES, ""])
    problems += _each(frame, source, "sex", sex, f"must be {', '.join(SEXES)} or empty")
    text = frame[[name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]]
    return problems + formula_cells(
        text.drop(columns="age", errors="ignore").apply(as_text), source
    )


def _identity_problems(frame: pd.DataFrame, source: str) -> list[Problem]:
    problems: list[Problem] = []
    named = frame[(frame["subject_id"] != "") & (frame["session_id"] != "")]
    repeated = named.index[named.duplicated(KEY)]
    several = named.groupby(KEY)["cohort"].transform("nunique") > 1
    problems += [
        Problem(source, row, "session_id", f"{subject} {session}",
                f"occurs more than once{_OTHER_PEOPLE if several[row] else ''}")
        for row, subject, session in named.loc[repeated, KEY].itertuples()
    ]  # fmt: skip
    people = named["subject_id"].map(person)
    first = named["subject_id"].groupby(people).transform("first")
    other = named["subject_id"] != first
    problems += [
        Problem(source, row, "subject_id", named.at[row, "subject_id"],
                f"is the same person as {first[row]}; write one id")
        for row in named.index[other]
    ]  # fmt: skip
    sexes = named[named["sex"] != ""]
    of_person = sexes.groupby("subject_id")["sex"].transform("first")
    changed = sexes.index[sexes["sex"] != of_person]
    problems += [
        Problem(source, row, "sex", sexes.at[row, "sex"],
                f"differs from an earlier row of {sexes.at[row, 'subject_id']}")
        for row in changed
    ]  # fmt: skip
    return problems


def _each(
    frame: pd.DataFrame, source: str, column: str, wrong: pd.Series, rule: str
) -> list[Problem]:
    return [
        Problem(source, row, column, str(value), rule)
        for row, value in frame.loc[wrong, column].items()
    ]


def image_problems(frame: pd.DataFrame, source: epath.PathLike) -> list[Problem]:
    """Images of a table that do not exist, or leave the table's folder by ``..`` or by a link.

    An absolute path is taken as it is; a relative one must stay within the table's folder.
    """
    folder = Path(os.path.realpath(Path(str(source)).parent))
    problems = []
    for row, image in zip(range(2, len(frame) + 2), frame["image"], strict=True):
        if not image:
            continue
        path = Path(image) if os.path.isabs(image) else folder / image
        if not os.path.isabs(image) and not Path(os.path.realpath(path)).is_relative_to(folder):
            problems.append(
                Problem(str(source), row, "image", image, f"leaves the table's folder {folder}")
            )
        elif not path.exists():
            hint = where_folders_end(image)
            rule = f"does not exist ({hint})" if hint else "does not exist"
            problems.append(Problem(str(source), row, "image", image, rule))
    return problems


def placed(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Returns a table as written to ``folder``: image paths relative within it, else absolute."""

    def written(image: str) -> str:
        if not image:
            return ""
        path = Path(os.path.abspath(image))
        here = Path(os.path.abspath(folder))
        return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)

    return frame.assign(image=[written(image) for image in frame["image"]])


def write_table(path: epath.PathLike, frame: pd.DataFrame) -> None:
    """Validate a cohort table and write it as CSV, required columns first."""
    frame = validate(frame, str(path))
    rest = [name for name in frame.columns if name not in REQUIRED]
    files.write_csv(path, frame[[*REQUIRED, *rest]])
