"""Which source networks have hardly learnt, by their own held-out folds, and the words for it.

A network has hardly learnt where, at the epoch that was kept, its loss on the held-out fold is not
below that of guessing by `MARGIN`, or where it decides every scan of a held-out fold of both
classes alike. The loss judges probabilities: such a network may still order the scans well, which
its AUC says. Guessing has the loss of one that knows nothing of the scans: of the share of each
class (ln 2 where they are even), and ln 2 where the loss weighed the classes alike in training.

Pure functions of a predictions table, so that they hold for every results folder; no target enters.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mri_jax.evaluation.families import SOURCE
from mri_jax.evaluation.metrics import auc, score_of
from mri_jax.evaluation.variants import of_baselines

MARGIN = 0.05
"""Share of the loss of guessing by which a network's held-out loss must lie below it."""
FAILED = "training failed"
HARDLY = "has hardly learnt"
INHERITED = f"descends from a network that {HARDLY}"
"""What is said of networks in the log, in tables and on pages."""
COLUMNS = ("run", "fold", "loss", "chance", "reason")


def chance_loss(label: np.ndarray, balanced: bool = False) -> float:
    """Returns the least cross-entropy of one probability for all scans.

    Args:
      label: (N,) 0 or 1, of the held-out fold.
      balanced: Whether training weighed the classes alike; one that knows nothing then says 1/2.

    Returns:
      The entropy of the classes' shares in nats, or ln 2; 0 where only one class is there.
    """
    share = float(np.mean(np.asarray(label) == 1))
    if balanced or not 0.0 < share < 1.0:
        return float(np.log(2)) if balanced else 0.0
    return float(-share * np.log(share) - (1 - share) * np.log1p(-share))


def hardly(loss: float, chance: float, held_out_auc: float = float("nan")) -> str:
    """Returns why a held-out loss shows that hardly anything was learnt; empty where it does not.

    Args:
      loss: On the held-out fold, in nats.
      chance: Loss of guessing, from `chance_loss`.
      held_out_auc: AUC on the held-out fold; NaN where it is not known.

    Examples:
      >>> hardly(0.685, 0.693, 0.79)[:50]
      'its probabilities are hardly better than guessing '
      >>> hardly(0.685, 0.693, 0.79)[50:]
      '(held-out loss 0.685, guessing 0.693; held-out AUC 79%)'
    """
    if not loss > (1 - MARGIN) * chance > 0:
        return ""
    known = "" if np.isnan(held_out_auc) else f"; held-out AUC {held_out_auc:.0%}"
    how = "hardly" if loss < chance else "no"
    return (
        f"its probabilities are {how} better than guessing "
        f"(held-out loss {loss:.3f}, guessing {chance:.3f}{known})"
    )


def not_learnt(label: np.ndarray, score: np.ndarray, balanced: bool = False) -> str:
    """Returns why a network has hardly learnt; empty where it has, or where nothing can be said.

    Args:
      label: (N,) 0 or 1, of its held-out source fold.
      score: (N,) difference of the logits.
      balanced: As of `chance_loss`.
    """
    label, score = np.asarray(label), np.asarray(score, float)
    if len(np.unique(label)) < 2 or np.isnan(score).any():
        return ""
    guessing = chance_loss(label, balanced)
    reasons = [hardly(_loss(label, score), guessing, auc(label, score))]
    positive = score > 0
    if positive.all() or not positive.any():
        decided = "positive" if positive.all() else "negative"
        reasons.append(f"it decides all {len(label)} scans of its held-out fold {decided}")
    return ", and ".join(filter(None, reasons))


def _loss(label: np.ndarray, score: np.ndarray) -> float:
    return float(np.logaddexp(0.0, np.where(label == 1, -score, score)).mean())


def unlearnt(predictions: pd.DataFrame, balanced: Mapping[str, bool] | None = None) -> pd.DataFrame:
    """Returns the source networks that have hardly learnt.

    Args:
      predictions: A predictions table; its ``validation`` rows are read.
      balanced: Which runs weighed the classes alike in training; by default none.

    Returns:
      A row a network: ``run``, ``fold``, ``loss`` and ``chance`` (nats), ``reason``.
    """
    rows = predictions[predictions["split"].eq("validation") & predictions["stage"].eq(SOURCE)]
    found = []
    for (run, fold), group in rows[~of_baselines(rows)].groupby(["run", "fold"]):
        label, score = group["label"].to_numpy(), score_of(group)
        alike = (balanced or {}).get(str(run), False)
        reason = not_learnt(label, score, alike)
        if reason:
            found.append((run, fold, _loss(label, score), chance_loss(label, alike), reason))
    return pd.DataFrame(found, columns=list(COLUMNS))
