"""Every declared difference of a table with its tests, and the paper's ANOVA."""

import numpy as np
import pandas as pd
from scipy import stats

from mri_jax.errors import UserError
from mri_jax.evaluation import comparisons, operating
from mri_jax.evaluation.cells import MethodScores, entries
from mri_jax.evaluation.families import SOURCE, Family, Method
from mri_jax.evaluation.metrics import METRICS
from mri_jax.evaluation.operating import ARGMAX, REFITTED
from mri_jax.evaluation.scores import Scores, estimate
from mri_jax.evaluation.summary import ensemble_probability

COLUMNS = (
    "family", "cohort", "split", "first", "second", "metric", "point", "test", "difference", "low",
    "high", "p", "note", "p_delong", "odds", "odds_low", "odds_high", "p_mcnemar", "p_holm",
)  # fmt: skip
NAN = float("nan")


def compare(
    predictions: pd.DataFrame, family: Family, seed: int, found: list[MethodScores] | None = None
) -> pd.DataFrame:
    """Returns the declared pairs of a family on every cohort and metric.

    Returns:
      A row a (pair, cohort, split, point, metric): ``difference`` with interval A, ``p`` (paired
      permutation on the mean over networks; on held-out source folds Nadeau and Bengio's corrected
      t-test, as ``test`` says), ``p_holm`` (within the table and metric; source folds, and source
      networks at a refitted threshold, are families of their own), ``p_delong`` (AUC), ``odds``
      with limits and ``p_mcnemar`` (ACC: the ensembles' decisions), and ``note``. ``point`` is the
      operating point of the second method; the first decides at argmax. All `COLUMNS` are there,
      also where no pair could be tested.
    """
    table = entries(predictions, family) if found is None else found
    place = {(e.method, e.cohort, e.split): e for e in table}
    rows: list[dict[str, object]] = []
    for cohort, split in dict.fromkeys((e.cohort, e.split) for e in table):
        for first, second in family.pairs:
            pair = [place.get((m, cohort, split)) for m in (first, second)]
            if family.apart and pair == [None, None]:
                continue
            base = {"family": family.key, "cohort": cohort, "split": split}
            base |= {"first": first.name, "second": second.name}
            for metric in METRICS:
                row = _compared(metric, pair[0], pair[1], split, seed)
                rows.append(base | {"metric": metric, "point": ARGMAX} | row)
            if split == "test" and first.stage != SOURCE and second == Method(first.run):
                found_at = _at_refitted(predictions, pair[0], pair[1], seed)
                rows += [base | {"point": REFITTED} | row for row in found_at]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    if len(frame):
        adjusted = frame.groupby(["split", "point", "metric"])["p"].transform(comparisons.holm)
        frame["p_holm"] = adjusted.astype(float)
    return frame


def _compared(
    metric: str, first: MethodScores | None, second: MethodScores | None, split: str, seed: int
) -> dict[str, object]:
    missing = [e for e in (first, second) if e is None or e.scores is None]
    if first is None or second is None or first.scores is None or second.scores is None:
        reason = next((e.note for e in missing if e is not None and e.note), "no predictions")
        return {"test": "", "p": NAN, "note": reason}
    one, two = first.scores, second.scores
    try:
        comparisons.aligned(one, two)
    except UserError as error:
        return {"test": "", "p": NAN, "note": str(error)}
    if split == "validation":
        pair = [estimate(metric, scores).by_fold(scores.fold).value for scores in (one, two)]
        effect = comparisons.corrected_t(pair[0] - pair[1])
        return {"test": "corrected t"} | _effect(effect, "the folds do not vary")
    effect = comparisons.permutation(metric, one, two, seed=seed)
    alike = "the two methods do not differ on any subject"
    row = {"test": "permutation"} | _effect(effect, alike)
    if metric == "auc" and not np.isnan(effect.effect):
        row["p_delong"] = delong_p(one, two)
    if metric == "acc":
        row |= _mcnemar(one, two)
    return row


def _at_refitted(
    predictions: pd.DataFrame, tuned: MethodScores | None, source: MethodScores | None, seed: int
) -> list[dict[str, object]]:
    """Tuned networks at argmax against their source, its threshold refitted on the same part."""
    if tuned is None or source is None or tuned.scores is None or source.scores is None:
        return []
    everyone = operating.never_trained(predictions, source.method.run, source.cohort)
    try:
        comparisons.aligned(tuned.scores, source.scores)
    except UserError:
        return []  # the rows at argmax say why
    shown = operating.shown_to(predictions, tuned.method.run, tuned.method.stage, tuned.cohort)
    cuts = operating.refitted(everyone, tuned.scores, shown)
    if cuts is None or np.isnan(cuts).any():
        return []
    alike = "the two decide alike on every subject"
    rows = []
    for metric in METRICS:
        if metric != "auc":
            effect = comparisons.permutation(
                metric, tuned.scores, source.scores, threshold=(None, cuts), seed=seed
            )
            rows.append({"metric": metric, "test": "permutation"} | _effect(effect, alike))
    return rows


def _effect(effect: comparisons.Effect, without_p: str) -> dict[str, object]:
    note = without_p if np.isnan(effect.p) else ""
    if not note and np.isnan(effect.low):
        note = "no interval: no variance"
    if np.isnan(effect.effect):
        note = "undefined: a class is absent"
    return {
        "difference": effect.effect,
        # A difference of two shares cannot leave this range; a t interval on four folds can.
        "low": float(np.clip(effect.low, -1.0, 1.0)),
        "high": float(np.clip(effect.high, -1.0, 1.0)),
        "p": effect.p,
        "note": note,
    }


def delong_p(one: Scores, two: Scores) -> float:
    """Returns the p of DeLong's paired test of two methods' mean AUCs on the same subjects.

    NaN where the difference has no variance: nothing was compared.
    """
    pair = [estimate("auc", s) for s in (one, two)]
    influence = pair[0].influence.mean(axis=0) - pair[1].influence.mean(axis=0)
    variance = float((influence**2).sum())
    if not variance > 1e-18:
        return NAN
    z = (pair[0].value.mean() - pair[1].value.mean()) / np.sqrt(variance)
    return float(2 * stats.norm.sf(abs(z)))


def _mcnemar(one: Scores, two: Scores) -> dict[str, object]:
    pair = [ensemble_probability(s) for s in (one, two)]
    if pair[0] is None or pair[1] is None:
        return {}
    effect = comparisons.mcnemar(one.label, pair[0] > 0.5, pair[1] > 0.5)
    return {
        "odds": effect.effect,
        "odds_low": effect.low,
        "odds_high": effect.high,
        "p_mcnemar": effect.p,
    }


def anova_table(summary: pd.DataFrame, family: Family) -> pd.DataFrame:
    """Returns the paper's test: one-way ANOVA over the networks' values, folds as independent.

    Args:
      summary: From `summarise`, all of one family.
      family: Only its networks enter, not the baselines.

    Returns:
      A row a (cohort, split, metric): ``eta_squared`` with 95% limits, ``f``, ``p``.
    """
    names = [m.name for m in family.networks]
    chosen = summary["method"].isin(names) & (summary["networks"] > 1)
    rows = []
    for key, group in summary[chosen].groupby(["cohort", "split", "metric"], sort=False):
        if len(group) < 2:
            continue
        effect = comparisons.anova(group["mean"], group["sd"], group["networks"])
        named = dict(zip(("cohort", "split", "metric"), key, strict=True))
        rows.append(
            {"family": family.key, **named, "methods": len(group)}
            | {"eta_squared": effect.effect, "low": effect.low, "high": effect.high}
            | {"f": effect.statistic, "p": effect.p}
        )
    return pd.DataFrame(rows)
