"""The values a paper printed, put beside ours; never mixed with them.

A CSV file with the columns `COLUMNS`: ``family`` (``depth``, ``width``, ``finetune``, ``task-w1``,
...), ``cohort`` and ``run`` as our tables print them (``cnn7-w1``, ``cnn5-w1 tuned-high``),
``metric`` (``auc`` ... ``spe``, or ``acc_anova_p`` with an empty ``run``), ``mean`` and ``sd`` in
percent as printed (``sd`` may be empty), ``source`` (e.g. ``Table 1``). Lines that begin with ``#``
are comments.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.evaluation.comparisons import anova
from mri_jax.problems import refuse_absent

COLUMNS = ("family", "cohort", "run", "metric", "mean", "sd", "source")

NETWORKS = 5
"""Networks behind each printed mean and SD: the paper has five folds."""


@dataclass(frozen=True)
class PublishedP:
    """The p-value of a one-way ANOVA of the paper; NaN where unknown.

    Attributes:
      printed: As printed.
      recomputed: From the printed means and SDs, five networks each.
    """

    printed: float
    recomputed: float

    @property
    def words(self) -> str:
        """As the table shows it."""
        known = [] if np.isnan(self.printed) else [f"{self.printed:.4f} printed"]
        if not np.isnan(self.recomputed):
            known.append(f"{self.recomputed:.2f} from the printed means and SDs")
        return f"{', '.join(known)} (real data)" if known else ""


def published_p(
    published: pd.DataFrame | None, family: str, cohort: str, metric: str
) -> PublishedP:
    """Returns what the paper printed for a table, cohort and metric, and what its numbers give."""
    if published is None or published.empty:
        return PublishedP(np.nan, np.nan)
    here = published[published["family"].eq(family) & published["cohort"].eq(cohort)]
    printed = here.loc[here["metric"].eq(f"{metric}_anova_p"), "mean"]
    values = here[here["metric"].eq(metric)].dropna(subset=["mean", "sd"])
    recomputed = np.nan
    if len(values) > 1:
        counts = [NETWORKS] * len(values)
        recomputed = anova(values["mean"].tolist(), values["sd"].tolist(), counts).p
    return PublishedP(float(printed.iloc[0]) if len(printed) else np.nan, recomputed)


def read_published(path: epath.PathLike) -> pd.DataFrame:
    """Read published values.

    Raises:
      UserError: The file or a column is absent, a value is no number, or a cell occurs twice.
    """
    names = ("family", "cohort", "run", "metric", "source")
    frame = files.read_csv(path, names, comment="#")
    refuse_absent(path, COLUMNS, frame)
    for name in ("mean", "sd"):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if (numbers.isna() & frame[name].notna()).any():
            raise UserError(f"{path}: {name} must be a number")
        frame[name] = numbers
    if frame.duplicated(["family", "cohort", "run", "metric"]).any():
        raise UserError(f"{path}: a (family, cohort, run, metric) occurs twice")
    return frame
