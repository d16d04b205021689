"""How well two sites can be told apart from features: a classifier two-sample test.

Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests". An AUC of one half: these
features tell nothing of the site. What tells the sites apart may be their scanners or their people.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mri_jax.evaluation.delong import Interval, auc_interval

_FOLDS = 5
LEAST = 5
"""Scans of each site that the test needs."""


def scores(features: np.ndarray, site: np.ndarray, seed: int) -> np.ndarray:
    """Returns how much each scan looks like the second site, (N,) log odds, out of fold.

    A ridge-penalised logistic regression (penalty 1 on standardised features) in a stratified
    5-fold cross-validation; standardised inside the folds that train.

    Args:
      features: (N, F); constant features are no harm.
      site: (N,) 0 or 1, at least `LEAST` of each.
      seed: Seed of the folds.
    """
    return _out_of_fold(features, site, seed)


def _out_of_fold(features: np.ndarray, site: np.ndarray, seed: int) -> np.ndarray:
    """Returns decisions as `scores` has them; (N, sites) of more than two."""
    found: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed % 2**32)
    # A problem so small takes several times as long on several threads.
    with threadpool_limits(1, "blas"):
        for train, held_out in folds.split(features, site):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
            model.fit(features[train], site[train])
            rows.append(held_out)
            found.append(model.decision_function(features[held_out]))
    return np.concatenate(found)[np.argsort(np.concatenate(rows))]


def site_areas(features: np.ndarray, site: np.ndarray, seed: int) -> dict[str, Interval]:
    """Returns the AUC of telling each of several sites from all others.

    One multinomial logistic regression as in `scores`, its decision for a site being the score;
    intervals as DeLong's. Sites with fewer than `LEAST` scans are left out.

    Args:
      features: (N, F).
      site: (N,) the name of each scan's site.
      seed: Seed of the folds.

    Returns:
      By site; empty where fewer than two have enough scans.
    """
    names, counts = np.unique(np.asarray(site, str), return_counts=True)
    kept = names[counts >= LEAST]
    if len(kept) < 2:
        return {}
    rows = np.isin(site, kept)
    features, place = features[rows], np.searchsorted(kept, np.asarray(site, str)[rows])
    decided = _out_of_fold(features, place, seed)
    if len(kept) == 2:
        decided = np.stack([-decided, decided], axis=1)
    return {
        str(name): auc_interval((place == number).astype(int), decided[:, number])
        for number, name in enumerate(kept)
    }


def site_auc(networks: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> Interval:
    """Returns the mean AUC over networks of telling the sites apart.

    The limits are the means of the networks' own (DeLong): the target's scans are the same for all
    networks, so that these are no independent repetitions. They leave out what cross-validation
    adds: of 64 features without any difference a single network's interval held one half in 87 of
    100 draws.

    Args:
      networks: For each network (N, F) features and (N,) site, 0 or 1.
      seed: Seed of the folds.
    """
    found = [auc_interval(site, scores(features, site, seed)) for features, site in networks]
    low, high = (
        float(np.mean([getattr(each, name) for each in found])) for name in ("low", "high")
    )
    return Interval(float(np.mean([each.estimate for each in found])), low, high)
