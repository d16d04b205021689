"""The plain classifiers that stand beside every network, fitted on the same training subjects.

`BASELINES` is all that the package knows of them, the fields of a config included: a new one is an
entry there. What fits them is imported where it is used: it takes seconds, and a config needs the
names alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.evaluation.blocks import VOXEL_SPACING
from mri_jax.evaluation.variants import Variant


class Fitted(Protocol):
    """A fitted classifier."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns the (N, 2) logits of (N, P) features."""


@dataclass(frozen=True)
class Baseline:
    """A plain classifier.

    Attributes:
      name: The field of the config's ``baselines``, and the name of its stages.
      label: The name of its run in tables.
      shown: What people call it.
      about: What it is, for the documentation of the config.
      fit: Returns the classifier of (N, P) features, (N,) labels and a seed.
      covariates: What it is fitted on, as `values` takes them; empty: volumes.
      measured: Columns of the cohort table that it cannot do without: volumes in mL.
      alone: The names of its run where one covariate alone may be used, by covariate.
      least: Training scans of each class that it needs.
      words: What the report's methods say of how it is fitted; empty where the name says it.
    """

    name: str
    label: str
    shown: str
    about: str
    fit: Callable[[np.ndarray, np.ndarray, int], Fitted]
    covariates: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    alone: Mapping[str, str] = field(default_factory=dict)
    least: int = 1
    words: str = ""

    @property
    def measures(self) -> bool:
        """Whether its features are measured in scans, and so differ between scanners."""
        return bool(self.measured) or not self.covariates

    @property
    def labels(self) -> tuple[str, ...]:
        """Every name that its run may have."""
        return self.label, *self.alone.values()

    def variant(self, used: Sequence[str], source: str) -> Variant:
        """Returns what its run is, called after what it is fitted on and on whom.

        Args:
          used: Covariates that any of its folds is fitted on.
          source: Name of the training set where the study names it.
        """
        distinct = set(used)
        label = self.alone.get(distinct.pop(), self.label) if len(distinct) == 1 else self.label
        return Variant(label, source)

    def check(self, table: pd.DataFrame) -> None:
        """Check that what it measures are volumes.

        Raises:
          UserError: A cell is no positive number; the scan is named.
        """
        for name in self.measured:
            known = table[name].notna() & (table[name].astype(str) != "")
            number = pd.to_numeric(table[name], errors="coerce")
            wrong = known & ~((number > 0) & np.isfinite(number))
            if wrong.any():
                row = table[wrong].iloc[0]
                raise UserError(
                    f"cohort table, column {name}: {str(row[name])!r} of subject "
                    f"{row['subject_id']}, session {row['session_id']}, must be a volume in mL "
                    "above 0, or empty"
                )

    def usable(
        self, table: pd.DataFrame, train: Sequence[int], study: Sequence[int], labels: np.ndarray
    ) -> tuple[str, ...]:
        """Returns the covariates that it may be fitted on; empty where none is left.

        Left out are a covariate that no training scan has, and, of those that may stand alone (age
        and sex), one that tells the classes of the whole study apart without an error: it is then
        the label under another name (sex where sex is classified, age where the young are told
        from the old), and a row that it makes perfect would be read as a result.

        Args:
          table: The cohort table.
          train: Rows of the training scans.
          study: Rows of all scans that it is fitted to or tested on.
          labels: Their labels, 0 or 1.
        """
        from mri_jax.evaluation.linear import separates

        kept = []
        for covariate in self.covariates:
            known = ~np.isnan(values(table, (covariate,), train)).all()
            column = values(table, (covariate,), study)[:, 0]
            if known and not (covariate in self.alone and separates(column, labels)):
                kept.append(covariate)
        return tuple(kept)


def _logistic(features: np.ndarray, labels: np.ndarray, seed: int) -> Fitted:
    from mri_jax.evaluation.linear import fit_covariates

    return fit_covariates(features, labels)  # nothing in it is drawn


def _ridge(features: np.ndarray, labels: np.ndarray, seed: int) -> Fitted:
    from mri_jax.evaluation.linear import fit_voxels

    return fit_voxels(features, labels, seed)


BASELINES = (
    Baseline(
        name="age_sex",
        label="baseline-age-sex",
        shown="age and sex",
        about="logistic regression on age and sex",
        fit=_logistic,
        covariates=("age", "sex"),
        # Where the other of the two may not be used, for instance because it is the label.
        alone={"age": "baseline-age", "sex": "baseline-sex"},
    ),
    Baseline(
        name="hippocampus",
        label="baseline-hippocampus",
        shown="hippocampal volume",
        about="logistic regression on the hippocampal volume, where the table has it",
        fit=_logistic,
        covariates=("hippocampus_share",),
        measured=("hippocampus_ml", "intracranial_ml"),
    ),
    Baseline(
        name="voxels",
        label="baseline-voxels",
        shown="voxels, ridge regression",
        about=f"ridge regression on voxels at {VOXEL_SPACING:g} mm",
        fit=_ridge,
        # The penalty is chosen inside the training fold.
        least=2,
        words=(
            "the voxel-wise model is a ridge-penalised logistic regression at "
            f"{VOXEL_SPACING:g} mm whose penalty was chosen by cross-validation inside the "
            "training fold"
        ),
    ),
)
LABELS = tuple(label for baseline in BASELINES for label in baseline.labels)
"""Every name of a baseline's run, in the order of tables, without that of a training set."""


def named(name: str) -> Baseline:
    """Returns the baseline of that name."""
    return next(baseline for baseline in BASELINES if baseline.name == name)


def values(table: pd.DataFrame, names: Sequence[str], rows: Sequence[int]) -> np.ndarray:
    """Returns (N, P) covariates of some rows of a cohort table; NaN where unknown.

    Ages are years, sex is 0 for F and 1 for M (a third sex enters as unknown: too few to estimate
    a level of its own), a share is of the intracranial volume.
    """
    chosen = table.iloc[list(rows)]
    return np.stack([_column(chosen, name) for name in names], axis=1)


def _column(chosen: pd.DataFrame, name: str) -> np.ndarray:
    if name == "hippocampus_share":
        part, whole = (
            pd.to_numeric(chosen[name], errors="coerce")
            for name in ("hippocampus_ml", "intracranial_ml")
        )
        return (part / whole).to_numpy(float)
    if name == "sex":
        return chosen["sex"].map({"F": 0.0, "M": 1.0}).to_numpy(float)
    return chosen[name].to_numpy(float)
