"""What a run is, in columns: no table is read by the names of its runs.

Every file with a row a network says in these columns what stands in its rows:

``family``   ``cnn``, or the plain name of a baseline, e.g. ``baseline-voxels``
``source``   the name of the training set where a study names it, e.g. ``CNN-AD2``; else empty
``depth``    conv layers; empty for a baseline
``width``    factor on the filters; empty for a baseline
``attention``  the gate after some blocks, ``se``, and which where these are not the last two,
             ``se-3-4-5``; empty where there is none
``norm``     ``instance`` or ``group``; empty: BatchNorm
``residual`` ``residual``; empty where blocks are not
``chosen``   ``searched`` or ``random``: the best of so many trials; empty: what the study names
``left_out`` the sites that its networks never saw, ``SITE3`` or ``SITE6+SITE7``, where every site
             is left out once; else empty

A family of networks with further fields gets further columns. Where nothing is known of a run, as
in a results folder of an earlier version without its config, all of them are empty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

CNN = "cnn"
"""The family of 3D-CNNs of `mri_jax.models`."""
NETWORKS = (CNN,)
"""Every family of networks; any other is a baseline."""
SEARCHED, RANDOM = "searched", "random"
"""How a search chose a network: it is its winner, or the best of as many random trials."""


@dataclass(frozen=True)
class Variant:
    """What the networks of a run have in common, or which baseline it is.

    Attributes:
      family: `CNN`, the plain name of a baseline, or empty where nothing is known.
      source: The name of the training set, where the study names it.
      depth: Conv layers; None of a baseline.
      width: Factor on the filters; None of a baseline.
      attention: The gate after some blocks (`mri_jax.models.CNNSpec`), and which where these are
        not the last two; empty where there is none.
      norm: The normalisation; empty: BatchNorm.
      residual: ``residual`` where blocks are; else empty.
      chosen: `SEARCHED` or `RANDOM`: a network that a search chose; else empty.
      left_out: The sites that it never saw, where every site is left out once; else empty.
    """

    family: str = ""
    source: str = ""
    depth: int | None = None
    width: float | None = None
    attention: str = ""
    norm: str = ""
    residual: str = ""
    chosen: str = ""
    left_out: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether it is a plain classifier."""
        return bool(self.family) and self.family not in NETWORKS

    @property
    def order(self) -> tuple[str, int, float, tuple[str, ...], str]:
        """What sorts networks by training set, depth, width, options and what was left out."""
        return self.source, self.depth or 0, self.width or 0.0, self.options, self.left_out

    @property
    def options(self) -> tuple[str, ...]:
        """In what else than depth and width a network differs from the paper's: `OPTIONS`."""
        return tuple(getattr(self, name) for name in OPTIONS)

    @property
    def name(self) -> str:
        """The name of the run in tables and files.

        >>> Variant(CNN, "", 5, 1.0).name, Variant(CNN, "CNN-AD1", 5, 4.0).name
        ('cnn5-w1', 'CNN-AD1-w4')
        >>> Variant(CNN, "", 5, 1.0, "se").name, Variant(CNN, "", 7, 2.0, "map-1", "group").name
        ('cnn5-se-w1', 'cnn7-map-1-group-w2')
        >>> Variant(CNN, "", 4, 0.5, chosen=SEARCHED).name
        'searched-cnn4-w0.5'
        >>> Variant("baseline-voxels", "CNN-AD2").name
        'baseline-voxels-CNN-AD2'
        >>> Variant(CNN, "", 5, 1.0, left_out="NYU").name
        'cnn5-w1-without-NYU'
        """
        without = f"without-{self.left_out}" if self.left_out else ""
        if self.family == CNN:
            which = self.source or f"{CNN}{self.depth}"
            parts = (self.chosen, which, *self.options, f"w{self.width:g}", without)
            return "-".join(filter(None, parts))
        return "-".join(filter(None, (self.family, self.source, without)))


OPTIONS = ("attention", "norm", "residual")
"""Columns of text, empty for networks as the paper has them."""
COLUMNS = tuple(column.name for column in fields(Variant))
UNKNOWN = Variant()


def of_rows(rows: pd.DataFrame) -> dict[str, Variant]:
    """Returns what the columns of a table say of each of its runs, in the order of the table.

    A run of which the columns say nothing, and every run of a table without them, is `UNKNOWN`.
    """
    told = rows.reindex(columns=["run", *COLUMNS]).drop_duplicates("run")
    return {str(row["run"]): _of_row(row) for row in told.to_dict("records")}


def _of_row(row: Mapping[Any, Any]) -> Variant:
    known = {name: row[name] for name in COLUMNS if not pd.isna(row[name])}
    numbers = {"depth": int, "width": float}
    return Variant(**{name: numbers.get(name, str)(value) for name, value in known.items()})


def of_baselines(rows: pd.DataFrame) -> pd.Series:
    """Returns for each row of a table whether its run is a baseline."""
    return rows["run"].map({run: v.is_baseline for run, v in of_rows(rows).items()}).astype(bool)


def described(rows: pd.DataFrame, variants: Mapping[str, Variant]) -> pd.DataFrame:
    """Returns a table with the columns of its runs, at its end where it has none.

    Args:
      rows: A table with a column ``run``.
      variants: What each of its runs is; a run that is not among them is `UNKNOWN`.
    """
    told = {run: variants.get(run, UNKNOWN) for run in rows["run"].unique()}
    columns = {
        name: rows["run"].map({run: getattr(variant, name) for run, variant in told.items()})
        for name in COLUMNS
    }
    kinds = {"depth": "Int64", "width": float}
    return rows.assign(**{n: column.astype(kinds.get(n, object)) for n, column in columns.items()})


def completed(rows: pd.DataFrame, known: Iterable[Variant]) -> pd.DataFrame:
    """Returns a table whose columns also say what is known of runs of which it says nothing."""
    by_name = {variant.name: variant for variant in known}
    said = of_rows(rows)
    return described(rows, {run: v if v.family else by_name.get(run, v) for run, v in said.items()})
