"""The predictions table: what every network said about every scan it was shown.

Columns
-------
``run``          the network variant, e.g. ``cnn5-w1``; baselines are ``baseline-NAME``
``stage``        ``source`` (trained on the source cohort), ``tuned-LAYERS`` (fine-tuned, e.g.
                 ``tuned-high``; with ``-adapt`` appended where BatchNorm statistics adapt)
``repeat``       which fine-tuning fifth, 0 for the source
``fold``         which source fold was held out, from 0
``cohort``       the cohort of the scan
``split``        ``test``, ``validation`` (the held-out source fold), ``adaptation`` (the part of
                 the target that is tuned on) or ``inner`` (that part again, each scan scored by a
                 network tuned without it)
``subject_id``, ``session_id``
``label``        1 positive (AD or pMCI), 0 negative
``logit_0``, ``logit_1``   of the negative and of the positive class
``probability``  softmax of the logits, positive class
``family``, ``source``, ``depth``, ``width``   what the run is; see `mri_jax.evaluation.variants`
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.evaluation import variants
from mri_jax.evaluation.baselines import LABELS
from mri_jax.problems import refuse_absent

NEEDED = (
    "run",
    "stage",
    "repeat",
    "fold",
    "cohort",
    "split",
    "subject_id",
    "session_id",
    "label",
    "logit_0",
    "logit_1",
    "probability",
)
COLUMNS = (*NEEDED, *variants.COLUMNS)
SPLITS = ("test", "validation", "adaptation", "inner")
_NUMBERS = ("repeat", "fold", "logit_0", "logit_1", "probability")
# Of a probability and the softmax of logits that were written in decimals.
_TOLERANCE = 1e-6
_OPTION, _OPTION_RULE = r"(?:[a-z]+(?:-\d+)*)?", "a kind, or one with blocks as se-3-4-5, or empty"
KEY = ["run", "stage", "repeat", "fold", "cohort", "split", "subject_id", "session_id"]


def probability_of(logits: np.ndarray) -> np.ndarray:
    """Softmax probability of the positive class: (N, 2) logits to (N,) float64."""
    difference = np.asarray(logits[:, 1], np.float64) - np.asarray(logits[:, 0], np.float64)
    return 0.5 * (1.0 + np.tanh(0.5 * difference))


def validate(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check a predictions table; returns it with all its columns, in order.

    The columns that say what a run is are empty in tables of earlier versions, which lack them.

    Logits are finite, or both are missing together with the probability: a network whose training
    failed, or that computed no number for a scan.

    Raises:
      UserError: A column is missing, a cell is not what its column holds (the first is named by
        its row), or a row occurs twice.
    """
    refuse_absent(source, NEEDED, frame)
    frame = frame.reindex(columns=list(COLUMNS))
    numbers = frame[list(_NUMBERS)].apply(pd.to_numeric, errors="coerce")
    logits = numbers[["logit_0", "logit_1"]].to_numpy(float)
    nothing = frame[["logit_0", "logit_1", "probability"]].isna().all(axis=1).to_numpy()
    probability = numbers["probability"].to_numpy(float)
    with np.errstate(invalid="ignore"):
        agrees = np.abs(probability - probability_of(logits)) <= _TOLERANCE
    rules = (
        ("label", frame["label"].isin([0, 1]), "0 or 1"),
        ("split", frame["split"].isin(SPLITS), f"one of {', '.join(SPLITS)}"),
        ("fold", _counts(numbers["fold"]), "a whole number, 0 or more"),
        ("repeat", _counts(numbers["repeat"]), "a whole number, 0 or more"),
        ("logit_0", nothing | np.isfinite(logits[:, 0]), "a finite number, or missing with all"),
        ("logit_1", nothing | np.isfinite(logits[:, 1]), "a finite number, or missing with all"),
        ("probability", nothing | agrees, "the softmax of its row's logits"),
    )
    _refuse(frame, rules, source, 2)
    check_runs(frame, source)
    twice = frame.duplicated(KEY)
    if twice.any():
        place = int(np.argmax(twice.to_numpy()))
        scan = " ".join(frame[["subject_id", "session_id"]].iloc[place])
        raise UserError(
            f"{source}: row {place + 2}: a (run, stage, fold, scan) occurs twice: {scan}"
        )
    return variants.described(frame, variants.of_rows(frame)).reset_index(drop=True)


def check_runs(frame: pd.DataFrame, source: str, first: int = 2) -> None:
    """Checks what a table says of its runs; it need not say anything.

    Args:
      frame: A table with a column ``run``.
      source: What messages call it.
      first: Number of its first row.

    Raises:
      UserError: A cell is not what its column holds, or rows of one run say different things.
    """
    frame = frame.reindex(columns=["run", *variants.COLUMNS])
    plain = ~frame.map(lambda cell: isinstance(cell, list | dict))
    _refuse(frame, [(c, plain[c], "text or a number") for c in frame], source, first)
    depth, width = (pd.to_numeric(frame[c], errors="coerce") for c in ("depth", "width"))
    texts = frame[list(variants.OPTIONS)].astype(object).fillna("").astype(str)
    families = ("", *variants.NETWORKS, *LABELS)
    rules = (
        ("family", frame["family"].isna() | frame["family"].isin(families), "of this version"),
        ("depth", frame["depth"].isna() | _counts(depth - 1), "1 or more, or empty"),
        ("width", frame["width"].isna() | ((width > 0) & np.isfinite(width)), "above 0, or empty"),
        *((name, texts[name].str.fullmatch(_OPTION), _OPTION_RULE) for name in texts),
        ("run", _alike(frame), "described alike in all its rows"),
    )
    _refuse(frame, rules, source, first)


def _refuse(
    frame: pd.DataFrame, rules: Iterable[tuple[str, Any, str]], source: str, first: int
) -> None:
    """Refuses the first cell that breaks a rule: (column, whether each row keeps it, its words)."""
    for column, holds, rule in rules:
        if not np.all(holds):
            place = int(np.argmin(np.asarray(holds)))
            value = frame[column].iloc[place]
            raise UserError(f"{source}: row {place + first}: {column} {value!r} must be {rule}")


def _alike(frame: pd.DataFrame) -> pd.Series:
    """Returns for each row whether it says of its run what the run's first row says."""
    told = frame[["run", *variants.COLUMNS]].drop_duplicates()
    other = told.index[told["run"].duplicated()]
    return pd.Series(~frame.index.isin(other), frame.index)


def _counts(values: pd.Series) -> pd.Series:
    return (values >= 0) & (values % 1 == 0) & np.isfinite(values)
