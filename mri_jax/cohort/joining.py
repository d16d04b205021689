"""Tables joined by value: ``901``, ``0901`` and ``901.0`` are one number."""

import re

import pandas as pd

from mri_jax.cohort.reading import as_text, is_missing
from mri_jax.problems import Problem, add_rows

_WHOLE = re.compile(r"[\"']?0*([0-9]+)(?:\.0*)?[\"']?")
_EXAMPLES = 3


def whole_numbers(values: pd.Series, file: str, problems: list[Problem]) -> pd.Series:
    """Converts text to digits of whole numbers without leading zeros; ``""`` where missing.

    Args:
      values: ``901``, ``0901``, ``901.0`` (as pandas saves them beside a missing one), ``'901'``.
      file: For the messages.
      problems: What is none of these is added to it.
    """
    # A column names few people many times: each text is looked at once.
    found = {text: match[1] for text in values.unique() if (match := _WHOLE.fullmatch(text))}
    digits = values.map(found)
    told = values[digits.isna()]
    wrong = told[~is_missing(told)]
    add_rows(problems, file, str(values.name), wrong, "is not a whole number")
    return as_text(digits)


def refuse_strangers(
    ours: pd.Series, our_file: str, theirs: pd.Series, their_file: str, problems: list[Problem]
) -> None:
    """Add a problem where a table has rows and none of them is of anybody in ours.

    Args:
      ours: The keys of our rows.
      our_file: For the message.
      theirs: The keys of the rows to be joined.
      their_file: For the message.
      problems: Is added to, one line with examples of both sides.
    """
    here, there = set(ours) - {""}, set(theirs) - {""}
    if not here or not there or here & there:
        return
    rule = (
        f"has nobody of {our_file}: here {_some(theirs)}, there {_some(ours)}; tables of other "
        "subjects, or ids in another spelling?"
    )
    problems.append(Problem(their_file, None, str(theirs.name), "", rule))


def _some(values: pd.Series) -> str:
    unique = [str(v) for v in values.unique() if v][: _EXAMPLES + 1]
    return ", ".join(unique[:_EXAMPLES]) + (", ..." if len(unique) > _EXAMPLES else "")
