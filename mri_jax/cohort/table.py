"""The cohort table: one row a scan, the only form in which subjects enter a study.

Columns: ``subject_id`` (a person: the same id is the same person wherever it stands),
``session_id``, ``cohort``, ``diagnosis``, ``age`` (years), ``sex`` (``F`` or ``M``), ``image``
(path of the scan, relative to the table's folder, or empty when the volume is already in a store),
and any covariates. A row is named by (subject_id, session_id). A person may have rows in several
cohorts (an ADNI-1 subject who continued in ADNI-2), under different sessions.
"""

import io

import pandas as pd
from etils import epath

from mri_jax.errors import UserError
from mri_jax.files import write_csv

REQUIRED = ("subject_id", "session_id", "cohort", "diagnosis", "age", "sex", "image")
KEY = ["subject_id", "session_id"]
_TEXT = ("subject_id", "session_id", "cohort", "diagnosis", "sex", "image")


def read_table(path: epath.PathLike) -> pd.DataFrame:
    """Read and validate a cohort table.

    Args:
      path: A CSV file with at least the columns `REQUIRED`.

    Returns:
      A frame of str columns `_TEXT` (empty string where missing), float ``age`` (years, NaN where
      missing) and the covariates as pandas infers them, in the file's order.

    Raises:
      UserError: The file is absent, lacks a column, or a row is wrong.
    """
    try:
        text = epath.Path(path).read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such cohort table") from None
    header = pd.read_csv(io.StringIO(text), nrows=0).columns
    dtypes = {name: str for name in _TEXT if name in header}
    frame = pd.read_csv(io.StringIO(text), dtype=dtypes, keep_default_na=True)
    return validate(frame, str(path))


def validate(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check a cohort table and give its columns their types.

    Args:
      frame: The table.
      source: What to call it in an error, usually its path.

    Returns:
      A copy with typed columns.

    Raises:
      UserError: A column is missing, an identifier is empty, or a (subject, session) occurs twice.
    """
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns))
        raise UserError(f"{source}: column {missing[0]!r} is missing; found {found}")
    frame = frame.copy()
    for name in _TEXT:
        frame[name] = frame[name].fillna("").astype(str)
    frame["age"] = pd.to_numeric(frame["age"], errors="coerce").astype(float)
    for name in ("subject_id", "session_id", "cohort", "diagnosis"):
        empty = frame.index[frame[name].str.strip() == ""]
        if len(empty):
            raise UserError(f"{source}: row {empty[0] + 2}: {name} is empty")
    repeated = frame[frame.duplicated(KEY)]
    if len(repeated):
        subject, session = repeated.iloc[0][KEY]
        raise UserError(f"{source}: subject {subject}, session {session} occurs more than once")
    return frame.reset_index(drop=True)


def write_table(path: epath.PathLike, frame: pd.DataFrame) -> None:
    """Validate a cohort table and write it as CSV, required columns first."""
    frame = validate(frame, str(path))
    rest = [name for name in frame.columns if name not in REQUIRED]
    write_csv(path, frame[[*REQUIRED, *rest]])
