"""What networks of which every site was left out once say of sites: of each, of all, of a new one.

A site's AUC is that of its own networks, which never saw it. Over sites it is summed up on the
logit scale by `random_effects`, the variance of a site being that of new subjects and of retrained
networks (interval B), and at least that of one of its networks on new subjects. Where networks rank
subjects in opposite directions their mean hardly varies, being near 50% whoever is drawn; that
makes the site no surer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from mri_jax.errors import UserError
from mri_jax.evaluation import two_sample
from mri_jax.evaluation.delong import ROUNDING, Interval
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.evaluation.intervals import LEVEL, interval_a, interval_b, variance_b
from mri_jax.evaluation.metrics import ENSEMBLE, score_of
from mri_jax.evaluation.random_effects import NAN, RandomEffects, combine
from mri_jax.evaluation.scores import estimate, gather

LEAST = 5
"""Controls of a site without which its correlations are not looked at."""
NO_VARIANCE = "no interval: left out of the summary"
COMPLETED = "no interval: in the summary with half a pair more told and half not"
_NOTHING = Interval(NAN, NAN, NAN)

# Features, site and whether of a site that was left out, of the scans of one network.
Features = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SiteScore:
    """The AUC at what was left out once.

    Attributes:
      method: Its networks, or baseline, whichever site was left out.
      left_out: The site, or sites, ``SITE6+SITE7``.
      counts: Positives and negatives that were tested.
      each: (J,) of each network.
      a: With interval A.
      b: With interval B.
      variance: Of the AUC, with which it enters the mean over sites; NaN where there is none.
      weight: Its share in the mean over sites; NaN where it has none.
      note: Why it has no score, no weight or no interval.
    """

    method: Method
    left_out: str
    counts: tuple[int, int]
    each: np.ndarray
    a: Interval
    b: Interval
    variance: float = NAN
    weight: float = NAN
    note: str = ""


@dataclass(frozen=True)
class Gain:
    """What adapting networks to a part of each site changes, on the sites where that was done.

    Attributes:
      sites: Where both the adapted networks and their source were tested, on the same scans.
      lacking: Sites where the source alone was tested.
      source: The mean AUC of the source over ``sites``, as of them alone.
      difference: Mean over the sites of the paired difference, adapted less source, each site
        counting alike.
      low: Lower limit of its 95% t interval over sites; NaN with fewer than two, or if all agree.
      high: Upper limit.
    """

    sites: tuple[str, ...]
    lacking: tuple[str, ...]
    source: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class LeftOut:
    """What a study that leaves every site out once says.

    Attributes:
      sites: A score for each method and site, by site.
      summaries: The mean over sites and so on, as AUC (``tau`` on the logit scale), by method:
        networks by stage, then baselines.
      learnt: A row a left-out site: ``left_out``, ``auc``, ``low``, ``high`` of telling it from the
        other sites by features of networks that never saw it, and ``others``: the mean AUC of
        telling the sites that they were trained on.
      dependence: A row a covariate: its rank correlation ``rho`` with the score among controls
        within a site, ``low``, ``high``, ``controls``, ``sites``, ``least`` and ``most`` of a site.
      gains: What fine-tuning or another adaptation changed, by method.
      untested: Sites that were trained on and never left out.
    """

    sites: tuple[SiteScore, ...]
    summaries: Mapping[Method, RandomEffects]
    learnt: pd.DataFrame
    dependence: pd.DataFrame
    gains: Mapping[Method, Gain]
    untested: tuple[str, ...]


def evaluate(
    predictions: pd.DataFrame,
    methods: Sequence[Method],
    people: pd.DataFrame,
    features: Callable[[Method], Iterable[Features]],
    covariates: Sequence[str],
    seed: int,
) -> LeftOut:
    """Returns what the methods of a table that leaves sites out say of sites.

    Args:
      predictions: A predictions table.
      methods: Its networks and baselines.
      people: ``subject_id``, ``session_id`` and the covariates of the scans.
      features: Returns the features of each network of a method; of none where there are none.
      covariates: Columns of ``people`` that the score is held against, as far as they are there.
      seed: Seed of folds.
    """
    sites = [_site(predictions, method) for method in methods]
    summaries: dict[Method, RandomEffects] = {}
    weighed: list[SiteScore] = []
    for method in dict.fromkeys(site.method for site in sites):
        own = [site for site in sites if site.method == method]
        known = {site.left_out: known for site in own if (known := _on_logits(site)) is not None}
        found = combine(*np.array(list(known.values())).reshape(-1, 2).T)
        summaries[method] = found.carried(lambda value: float(expit(value)))
        weights = iter(found.weights)
        weighed += [
            replace(
                site,
                weight=float(next(weights)),
                note=COMPLETED if site.a.estimate in (0, 1) else "",
            )
            if site.left_out in known
            else replace(site, note=site.note or NO_VARIANCE)
            for site in own
        ]
    gains = {}
    for method in summaries:
        if method.stage != SOURCE and not method.variant.is_baseline:
            of = (method, replace(method, stage=SOURCE))
            gains[method] = _gain(*([s for s in sites if s.method == m] for m in of))
    order = list(dict.fromkeys(method.variant.left_out for method in methods))
    weighed.sort(key=lambda site: order.index(site.left_out))
    sources = [m for m in methods if m.stage == SOURCE and not m.variant.is_baseline]
    return LeftOut(
        tuple(weighed),
        summaries,
        _learnt(sources, features, seed),
        _dependence(predictions, sources, people, covariates),
        gains,
        _untested(predictions, sources),
    )


def _gain(adapted: Sequence[SiteScore], source: Sequence[SiteScore]) -> Gain:
    """Returns what adapting changed, from the scores at all sites of a method and of its source."""
    before = {site.left_out: site for site in source}
    pairs = [
        (site, before[site.left_out])
        for site in adapted
        if len(site.each)
        and (base := before.get(site.left_out))
        and (base.counts, len(base.each)) == (site.counts, len(site.each))
    ]
    there = tuple(site.left_out for site, _ in pairs)
    known = [found for _, site in pairs if (found := _on_logits(site)) is not None]
    mean = float(expit(combine(*np.array(known).reshape(-1, 2).T).mean))
    changes = np.array([site.a.estimate - base.a.estimate for site, base in pairs])
    centre = float(changes.mean()) if len(changes) else NAN
    half = NAN
    if len(changes) > 1 and np.ptp(changes) > 0:
        error = float(changes.std(ddof=1)) / np.sqrt(len(changes))
        half = float(stats.t.ppf(0.5 + LEVEL / 2, len(changes) - 1)) * error
    lacking = tuple(name for name in before if name not in there)
    return Gain(there, lacking, mean, centre, centre - half, centre + half)


def _untested(predictions: pd.DataFrame, sources: Sequence[Method]) -> tuple[str, ...]:
    """Returns the sites of held-out folds that no network of a study was tested on."""
    rows = predictions[predictions["run"].isin([m.run for m in sources])]
    # Held-out scans of several cohorts stand under all of their names.
    trained, tested = (
        {site for names in rows.loc[rows["split"].eq(split), "cohort"].unique()
         for site in names.split("+")}
        for split in ("validation", "test")
    )  # fmt: skip
    return tuple(sorted(trained - tested))


def _site(predictions: pd.DataFrame, method: Method) -> SiteScore:
    """Returns the score at the sites that a method's networks never saw, as one cohort."""
    rows = predictions[
        predictions["run"].eq(method.run)
        & predictions["stage"].eq(method.stage)
        & predictions["split"].eq("test")
    ]
    of = partial(SiteScore, method.wherever, method.variant.left_out)
    try:
        scores = gather(rows.assign(cohort=method.variant.left_out))
    except UserError as error:
        return of((0, 0), np.zeros(0), _NOTHING, _NOTHING, note=str(error))
    if min(scores.counts) == 0:
        note = "undefined: one class alone"
        return of(scores.counts, np.zeros(0), _NOTHING, _NOTHING, note=note)
    value = estimate("auc", scores)
    each = value.by_fold(scores.fold)
    return of(
        scores.counts,
        each.value,
        interval_a("auc", scores),
        interval_b(value, scores.fold, scores.label),
        max(sum(variance_b(each)), float(np.trace(each.covariance)) / len(each.value)),
    )


def _on_logits(site: SiteScore) -> tuple[float, float] | None:
    """Returns the AUC of a site and its variance on the logit scale; None where there is none.

    Where all pairs are told apart, or none, the AUC has no variance, but to leave such a site out
    would be to leave out the best: half a pair is taken as told and half as not, and the variance
    is that of Hanley and McNeil (1982, doi:10.1148/radiology.143.1.7063747) at what results.
    """
    area = site.a.estimate
    if 0 < area < 1 and site.variance > ROUNDING:
        return _logit(area), site.variance / (area * (1 - area)) ** 2
    if area not in (0, 1):
        return None
    n, m = site.counts
    area = (area * n * m + 0.5) / (n * m + 1)
    pairs = (n - 1) * (area / (2 - area) - area**2) + (m - 1) * (2 * area**2 / (1 + area) - area**2)
    variance = (area * (1 - area) + pairs) / (n * m)
    return _logit(area), variance / (area * (1 - area)) ** 2


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _learnt(
    sources: Sequence[Method], features: Callable[[Method], Iterable[Features]], seed: int
) -> pd.DataFrame:
    rows = []
    for method in sources:
        own, others = [], []
        for values, site, out in features(method):
            # What was left out together is one site here as well.
            names = np.where(out, method.variant.left_out, np.asarray(site, str))
            areas = two_sample.site_areas(values, names, seed)
            if method.variant.left_out in areas:
                own.append(areas.pop(method.variant.left_out))
                others.append(np.mean([area.estimate for area in areas.values()]))
        if own:
            limits = {n: np.mean([getattr(a, n) for a in own]) for n in ("low", "high")}
            rows.append(
                {
                    "left_out": method.variant.left_out,
                    "auc": np.mean([area.estimate for area in own]),
                    **limits,
                    "others": np.mean(others),
                }
            )
    return pd.DataFrame(rows, columns=["left_out", "auc", "low", "high", "others"])


def _dependence(
    predictions: pd.DataFrame,
    sources: Sequence[Method],
    people: pd.DataFrame,
    covariates: Sequence[str],
) -> pd.DataFrame:
    """Returns rank correlations with the score among controls, pooled over sites.

    Within a site Spearman's; over sites the mean of Fisher's z, weighed by controls less 3, with
    the variance of Bonett and Wright (2000, doi:10.1007/BF02294183).
    """
    key = ["subject_id", "session_id"]
    scored: dict[str, pd.DataFrame] = {}
    for method in sources:
        rows = predictions[
            predictions["run"].eq(method.run)
            & predictions["stage"].eq(SOURCE)
            & predictions["split"].isin(["test", "adaptation"])
            & predictions["label"].eq(0)
            & predictions["fold"].ne(ENSEMBLE)
        ]
        of = rows.assign(score=score_of(rows)).groupby(key)["score"].mean().reset_index()
        scored[method.variant.left_out] = of.merge(people, on=key, how="left")
    found = []
    for name in covariates:
        each = []
        for controls in scored.values():
            if name not in controls:
                continue
            known = controls[[name, "score"]].astype(float).dropna()
            if len(known) >= LEAST and known.nunique().min() > 1:
                rho = float(stats.spearmanr(known[name], known["score"]).statistic)
                each.append((rho, len(known)))
        if each:
            rho, size = np.array(each).T
            z, weight = np.arctanh(np.clip(rho, -0.999, 0.999)), size - 3
            centre = float(weight @ z / weight.sum())
            spread = weight**2 @ ((1 + rho**2 / 2) / (size - 3))
            error = float(np.sqrt(spread)) / weight.sum()
            half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
            found.append(
                {
                    "covariate": name,
                    "rho": np.tanh(centre),
                    "low": np.tanh(centre - half),
                    "high": np.tanh(centre + half),
                    "controls": int(size.sum()),
                    "sites": len(each),
                    "least": rho.min(),
                    "most": rho.max(),
                }
            )
    columns = ["covariate", "rho", "low", "high", "controls", "sites", "least", "most"]
    return pd.DataFrame(found, columns=columns)
