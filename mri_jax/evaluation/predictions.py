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
"""

import numpy as np
import pandas as pd

from mri_jax.errors import UserError

COLUMNS = (
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
SPLITS = ("test", "validation", "adaptation", "inner")
KEY = ["run", "stage", "repeat", "fold", "cohort", "split", "subject_id", "session_id"]


def probability_of(logits: np.ndarray) -> np.ndarray:
    """Softmax probability of the positive class: (N, 2) logits to (N,) float64."""
    difference = np.asarray(logits[:, 1], np.float64) - np.asarray(logits[:, 0], np.float64)
    return 0.5 * (1.0 + np.tanh(0.5 * difference))


def validate(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check a predictions table; returns it with its columns in order.

    Raises:
      UserError: A column is missing, a label is not 0 or 1, or a row occurs twice.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(f"{source}: column {missing[0]!r} is missing")
    if not frame["label"].isin([0, 1]).all():
        raise UserError(f"{source}: label must be 0 or 1")
    if not frame["split"].isin(SPLITS).all():
        raise UserError(f"{source}: split must be one of {SPLITS}")
    if frame.duplicated(KEY).any():
        raise UserError(f"{source}: a (run, stage, fold, scan) occurs twice")
    return frame[list(COLUMNS)].reset_index(drop=True)
