"""Which scanner made each scan, as far as a table says it.

The first of these rules that a row answers: the column `scanner`; manufacturer, model and field
strength, as many as are there; the column `site`. Names of columns are compared without regard to
case, and without spaces and underscores.
"""

import re

import pandas as pd

from mri_jax.delimited import is_missing

# Each rule: for every part of the name, the columns that may hold it.
RULES = (
    (("scanner", "scannerid", "scannername"),),
    (
        ("manufacturer", "vendor"),
        ("manufacturersmodelname", "manufacturermodelname", "scannermodel", "model"),
        ("fieldstrength", "magneticfieldstrength", "field"),
    ),
    (("site", "siteid", "sitename"),),
)
_NAMES = frozenset(name for rule in RULES for names in rule for name in names)


def columns(header: list[str]) -> list[str]:
    """Returns those columns of a table that may name a scanner."""
    return [name for name in header if _plain(name) in _NAMES]


def names(frame: pd.DataFrame) -> pd.Series:
    """Returns the scanner of each row as text, empty where the table does not know it.

    Args:
      frame: Text columns; values that mean "missing" (`mri_jax.delimited.MISSING`) count as empty.
    """
    found = pd.Series("", index=frame.index, dtype=object)
    there = {_plain(name): frame[name].fillna("").astype(str) for name in columns(list(frame))}
    there = {name: values.mask(is_missing(values), "") for name, values in there.items()}
    for rule in RULES:
        named = found.copy()
        for part in rule:
            column = next((there[name] for name in part if name in there), None)
            if column is not None:
                tesla = part[0] == "fieldstrength"
                named = named.str.cat(column.map(_tesla if tesla else str.strip), sep=" ")
        found = found.mask(found == "", named.str.split().str.join(" "))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_]", "", name).lower()


def _tesla(text: str) -> str:
    """Returns ``3.0``, ``3`` and ``3T`` alike."""
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[tT]?\s*", text)
    return f"{float(number[1]):g} T" if number else text
