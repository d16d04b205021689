"""What the plain baselines know about a scan besides its volume: columns of the cohort table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.planning.catalogue import Examples
from mri_jax.settings.study import named

NAMES = {"age_sex": ("age", "sex"), "hippocampus": ("hippocampus_share",)}
"""Covariates of each baseline that does not read volumes."""
_MEASURED = ("hippocampus_ml", "intracranial_ml")


def has_hippocampus(frame: pd.DataFrame) -> bool:
    """Whether the table has the volumes (mL) that the hippocampal baseline needs."""
    return set(_MEASURED) <= set(frame.columns)


def check_hippocampus(frame: pd.DataFrame) -> None:
    """Check that what the hippocampal baseline divides are volumes.

    Raises:
      UserError: A cell is no positive number; the scan is named.
    """
    for name in _MEASURED:
        known = frame[name].notna() & (frame[name].astype(str) != "")
        number = pd.to_numeric(frame[name], errors="coerce")
        wrong = known & ~((number > 0) & np.isfinite(number))
        if wrong.any():
            row = frame[wrong].iloc[0]
            raise UserError(
                f"cohort table, column {name}: {row[name]!r} of subject {row['subject_id']}, "
                f"session {row['session_id']}, must be a volume in mL above 0, or empty; correct "
                f"it, or leave the baseline out with {named('baselines.hippocampus')}=False"
            )


def values(frame: pd.DataFrame, names: tuple[str, ...], rows: tuple[int, ...]) -> np.ndarray:
    """(N, P) covariates of some rows; NaN where unknown.

    Ages are years, sex is 0 for F and 1 for M (a third sex enters as unknown: too few to estimate
    a level of its own), a share is of the intracranial volume.
    """
    chosen = frame.iloc[list(rows)]
    return np.stack([_column(chosen, name) for name in names], axis=1)


def _column(chosen: pd.DataFrame, name: str) -> np.ndarray:
    if name == "hippocampus_share":
        part, whole = (pd.to_numeric(chosen[name], errors="coerce") for name in _MEASURED)
        return (part / whole).to_numpy(float)
    if name == "sex":
        return chosen["sex"].map({"F": 0.0, "M": 1.0}).to_numpy(float)
    return chosen[name].to_numpy(float)


def usable(frame: pd.DataFrame, name: str, train: Examples, tested: Examples) -> tuple[str, ...]:
    """The covariates that a baseline may be fitted on; empty where none is left.

    Left out are a covariate that no training scan has, and, of age and sex, one that tells the
    classes of the whole study apart without an error: it is then the label under another name (sex
    where sex is classified, age where the young are told from the old), and a row that it makes
    perfect would be read as a result.
    """
    both = Examples(train.rows + tested.rows, train.labels + tested.labels)
    kept = []
    for covariate in NAMES[name]:
        known = ~np.isnan(values(frame, (covariate,), train.rows)).all()
        column = values(frame, (covariate,), both.rows)[:, 0]
        leaks = name == "age_sex" and baselines.separates(column, np.array(both.labels))
        if known and not leaks:
            kept.append(covariate)
    return tuple(kept)


def run_of(name: str, used: Sequence[str], source: str) -> str:
    """The run of a baseline: called after what it is fitted on and, if it is named, the source.

    Args:
      name: ``age_sex``, ``hippocampus`` or ``voxels``.
      used: Covariates that any of its folds is fitted on.
      source: Name of the source; that of a model (``cnn5``) where it has none.

    Raises:
      UserError: It would be called as another baseline is.
    """
    label = baselines.run_of(name, used)
    if source.startswith("cnn"):
        return label
    if f"{label}-{source}" in baselines.RUNS:
        raise UserError(
            f"{named('source.name')}: {source!r} would call {label} of this source as another "
            "baseline is called; choose another name"
        )
    return f"{label}-{source}"
