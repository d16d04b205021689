"""The values a paper printed, put beside ours; never mixed with them.

A CSV file with the columns `COLUMNS`: ``family`` (``depth``, ``width``, ``task-w1``, ...),
``cohort`` and ``run`` as in our tables, ``metric`` (``auc`` ... ``spe``, or ``acc_anova_p``),
``mean`` and ``sd`` in percent as printed, ``source`` (e.g. ``Table 1``).
"""

import io

import pandas as pd
from etils import epath

from mri_jax.errors import UserError

COLUMNS = ("family", "cohort", "run", "metric", "mean", "sd", "source")


def read_published(path: epath.PathLike) -> pd.DataFrame:
    """Read published values.

    Raises:
      UserError: The file or a column is absent, a value is no number, or a cell occurs twice.
    """
    try:
        text = epath.Path(path).read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of published values") from None
    names = ("family", "cohort", "run", "metric", "source")
    frame = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(names, str), comment="#")
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing")
    for name in ("mean", "sd"):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if (numbers.isna() & frame[name].notna()).any():
            raise UserError(f"{path}: {name} must be a number")
        frame[name] = numbers
    for name in names:
        frame[name] = frame[name].fillna("")
    if frame.duplicated(["family", "cohort", "run", "metric"]).any():
        raise UserError(f"{path}: a (family, cohort, run, metric) occurs twice")
    return frame
