"""From a finished run to a model: the networks, and the references that its own scans give.

Nothing is fitted on scores of subjects that a network trained on: temperatures and thresholds of
source networks come from their held-out source folds, of tuned networks from ``inner`` scores; the
limits of the distances come from held-out folds. (A held-out fold did choose its network's epoch.)
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf

import mri_jax
from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.evaluation.calibration import temperature
from mri_jax.evaluation.delong import auc_interval
from mri_jax.evaluation.intervals import wilson
from mri_jax.evaluation.metrics import ensemble, score_of
from mri_jax.evaluation.operating import best_threshold
from mri_jax.prediction.folder import FORMAT
from mri_jax.prediction.forward import NetworksOnDevice
from mri_jax.prediction.model import (
    ARGMAX,
    FAR_PERCENT,
    HELD_OUT,
    KINDS,
    CohortRates,
    Distribution,
    Ensemble,
    FeatureReference,
    FigureReference,
    FoldNetwork,
    Model,
    OperatingPoint,
    Rate,
    ScoreGroup,
    Tested,
    TrainingGroup,
    digest_of,
)
from mri_jax.progress import Progress
from mri_jax.runs.trained import SOURCE, Member, TrainedRun
from mri_jax.showing import simulated
from mri_jax.training.checkpoints import Network
from mri_jax.volumes import outliers, quality
from mri_jax.volumes.pipeline import settings_of
from mri_jax.volumes.store import KEY
from mri_jax.volumes.stream import Key

# A temperature or a threshold from fewer scans of a class says too little.
FEWEST = 10
_BATCH = 8
# A feature that varies by less than float32 resolves is constant.
_CONSTANT = 1e-6
# Bounds of the search for a temperature: a result beside them is no minimum.
_TEMPERATURES = (0.011, 99.0)


def build(
    run: TrainedRun, network: str = "", stages: Sequence[str] = (), threads: int = 2
) -> Model:
    """Make the model of one network variant of a run.

    Args:
      run: The run.
      network: The variant; by default the first of the plan.
      stages: Which of its stages; by default all. Of tuned networks those of repeat 0.
      threads: That read volumes.

    Raises:
      UserError: The run lacks the variant, a stage, a network or its store.
    """
    variant = network or run.variants[0]
    chosen = tuple(stages) or run.stages(variant)
    members = {stage: run.ensemble(variant, stage) for stage in chosen}
    loaded = {member: member.load() for stage in chosen for member in members[stage]}
    info = run.store.info
    raw = "pipeline" in info.settings
    try:
        settings = settings_of(info)
    except UserError:
        if raw:
            raise
        settings = None
    negative, positive = run.diagnoses(variant)
    count = sum(len(_keys_of(run, member)) for member in loaded)
    with Progress(count, "scan", "reference features", compiles=True) as progress:
        made = tuple(
            _ensemble(run, stage, members[stage], loaded, threads, progress) for stage in chosen
        )
    return Model(
        name=variant,
        simulated=run.simulated,
        negative=negative,
        positive=positive,
        spec=next(iter(loaded.values())).spec,
        grid=info.grid,
        settings=settings,
        never_raw=not raw,
        normalisation=run.normalisation,
        ensembles=made,
        quality=_quality(run, variant),
        training=tuple(_training(run, variant)),
        notes=tuple(_notes(run, variant)),
        provenance={
            "mri_jax": mri_jax.__version__,
            "versions": run.results.provenance.get("versions", {}),
            "networks": {m.name: m.fingerprint for m in loaded},
            "store_fingerprint": info.fingerprint,
        },
    )


def fingerprint_of(run: TrainedRun, network: str, stages: Sequence[str]) -> str:
    """What determines `build`, cheaply: names the model that a run keeps for the next time."""
    return files.fingerprint(
        {
            "mri_jax": mri_jax.__version__,
            "format": FORMAT,
            "network": network,
            "stages": list(stages),
            "members": [member.fingerprint for member in run.members],
            "predictions": files.fingerprint(run.results.predictions.to_csv()),
            "store": run.store.info.to_json(),
        }
    )


def _keys_of(run: TrainedRun, member: Member) -> tuple[Key, ...]:
    return run.trained_on(member) + run.held_out(member)


def _ensemble(
    run: TrainedRun,
    stage: str,
    members: Sequence[Member],
    loaded: dict[Member, Network],
    threads: int,
    progress: Progress,
) -> Ensemble:
    networks = []
    distances: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for member in members:
        found, held_out = loaded[member], len(run.held_out(member))
        features, digests = _features(run, member, found, threads, progress)
        references = {}
        for kind, rows in features.items():
            references[kind], far = reference(rows[:-held_out], rows[-held_out:])
            distances[kind].append(far)
        networks.append(
            FoldNetwork(member.fold, found.variables, references, frozenset(digests[:-held_out]))
        )
    pooled = {kind: np.concatenate(each) for kind, each in distances.items()}
    rows = run.results.predictions
    of_stage = rows[
        (rows["run"] == members[0].run) & (rows["stage"] == stage) & (rows["repeat"] == 0)
    ]
    fitted_on = of_stage[of_stage["split"] == ("validation" if stage == SOURCE else "inner")]
    together = ensemble(of_stage)
    heat, sentence = _temperature(fitted_on, stage)
    return Ensemble(
        stage=stage,
        networks=tuple(networks),
        temperature=heat,
        calibration=sentence,
        points=tuple(_points(fitted_on, together, stage)),
        groups=tuple(_groups(run, of_stage, together)),
        tested=tuple(_tested(together)),
        distance_limits={k: float(np.percentile(d, FAR_PERCENT)) for k, d in pooled.items()},
        distance_n=len(pooled[KINDS[0]]),
    )


def _features(
    run: TrainedRun, member: Member, network: Network, threads: int, progress: Progress
) -> tuple[dict[str, np.ndarray], list[str]]:
    """By kind (N, F), and digests: of the scans it was trained on, then of the held-out ones."""
    keys = _keys_of(run, member)
    forward = NetworksOnDevice(network.spec, [network.variables])
    stream = run.reader(keys).stream(range(len(keys)), threads, 2 * _BATCH)
    parts = []
    digests: list[str] = []
    while batch := list(islice(stream, _BATCH)):
        digests += map(digest_of, batch)
        parts.append(forward(batch, _BATCH).features)
        progress.advance(len(batch))
    features = {kind: np.concatenate([part[kind][0] for part in parts]) for kind in KINDS}
    return features, digests


def reference(training: np.ndarray, held_out: np.ndarray) -> tuple[FeatureReference, np.ndarray]:
    """Where features lie: the Mahalanobis distance, with the shrunk covariance of Ledoit and Wolf.

    Features are standardised first: shrinkage is towards equal variances, and layers differ in
    scale. One that is constant over the training scans is left out.

    Args:
      training: (N, F) of the scans that the network was trained on.
      held_out: (M, F) of the others of its cohort.

    Returns:
      The reference, and the (M,) distances of the held-out scans, in units of their median.
    """
    mean, spread = training.mean(axis=0), training.std(axis=0)
    varies = spread > _CONSTANT * np.abs(training).max(axis=0)
    precision = np.zeros((len(mean), len(mean)))
    if varies.any():
        standard = (training - mean)[:, varies] / spread[varies]
        shrunk = LedoitWolf(assume_centered=True).fit(standard).precision_
        precision[np.ix_(varies, varies)] = shrunk / np.outer(spread[varies], spread[varies])
    far = FeatureReference(mean, precision, 1.0).distance(held_out)
    typical = max(float(np.median(far)), np.finfo(np.float64).tiny)
    return FeatureReference(mean, precision, typical), far / typical


def _temperature(rows: pd.DataFrame, stage: str) -> tuple[float | None, str]:
    what = "held-out source folds" if stage == SOURCE else "cross-validation inside the tuned part"
    if (reason := _too_few(rows, what)) is not None:
        return None, f"Not calibrated: {reason}."
    found = temperature(rows["label"].to_numpy(), score_of(rows))
    if not _TEMPERATURES[0] < found < _TEMPERATURES[1]:
        return None, f"Not calibrated: the scores of the {what} give no finite temperature."
    scans = len(rows[KEY].drop_duplicates())
    return found, f"Temperature {found:.3g}, fitted on the {what} ({scans} scans)."


def _too_few(rows: pd.DataFrame, what: str) -> str | None:
    scans = rows.drop_duplicates(KEY)["label"]
    fewest = min(int((scans == 0).sum()), int((scans == 1).sum()))
    if not len(scans):
        return f"the run holds no scores from {what}"
    if fewest < FEWEST:
        return f"the {what} hold {fewest} scans of a class, fewer than {FEWEST}"
    return None


def _points(rows: pd.DataFrame, together: pd.DataFrame, stage: str) -> Iterator[OperatingPoint]:
    yield OperatingPoint(
        ARGMAX, 0.0, "The more probable class, as in the run's tables.", _rates(together, 0.0)
    )
    what = "held-out source folds" if stage == SOURCE else "cross-validation inside the tuned part"
    if _too_few(rows, what) is None:
        cut = best_threshold(rows["label"].to_numpy(), score_of(rows))
        basis = f"Highest balanced accuracy on the {what}, single networks."
        yield OperatingPoint(HELD_OUT, cut, basis, _rates(together, cut))


def _rates(together: pd.DataFrame, cut: float) -> tuple[CohortRates, ...]:
    found = []
    for cohort, group in together.groupby("cohort", sort=False):
        positive, above = group["label"].to_numpy() == 1, score_of(group) > cut
        pair = [
            Rate(len(right), wilson(int(right.sum()), len(right)))
            for right in (above[positive], ~above[~positive])
        ]
        if all(rate.n for rate in pair):
            found.append(CohortRates(str(cohort), *pair))
    return tuple(found)


def _groups(
    run: TrainedRun, of_stage: pd.DataFrame, together: pd.DataFrame
) -> Iterator[ScoreGroup]:
    held_out = of_stage[of_stage["split"] == "validation"]
    named = run.results.cohort[[*KEY, "diagnosis"]]
    for rows, held in ((held_out, True), (together, False)):
        rows = rows.merge(named, on=KEY)
        for cohort, of_cohort in rows.groupby("cohort", sort=False):
            for label in (1, 0):
                group = of_cohort[of_cohort["label"] == label]
                if len(group):
                    names = "+".join(sorted(set(group["diagnosis"])))
                    scores = Distribution.of(score_of(group))
                    yield ScoreGroup(str(cohort), names, label, held, scores)


def _tested(together: pd.DataFrame) -> Iterator[Tested]:
    for cohort, group in together.groupby("cohort", sort=False):
        label = group["label"].to_numpy()
        counts = int((label == 1).sum()), int((label == 0).sum())
        if all(counts):
            yield Tested(str(cohort), *counts, auc_interval(label, score_of(group)))


def _source_keys(run: TrainedRun, variant: str) -> pd.DataFrame:
    """(subject_id, session_id) of every scan of the source, one row each."""
    table = run.results.predictions
    chosen = (table["run"] == variant) & (table["stage"] == SOURCE)
    return table[chosen & (table["split"] == "validation")][KEY].drop_duplicates()


def _quality(run: TrainedRun, variant: str) -> dict[str, FigureReference]:
    """Of the source's scans: from the store's index, or measured where the store has no figures."""
    keys = _source_keys(run, variant)
    index = run.store.index.loc[pd.MultiIndex.from_frame(keys)].reset_index(drop=True)
    if "correlation" not in index:
        index = _measured(run, keys).assign(cohort=index["cohort"].to_numpy())
    found = {}
    for name, (low, high) in outliers.widest(outliers.groups_of(index).groups).items():
        values = pd.to_numeric(index[name], errors="coerce").dropna()
        if len(values):
            found[name] = FigureReference(len(values), float(values.median()), low, high)
    return found


def _measured(run: TrainedRun, keys: pd.DataFrame) -> pd.DataFrame:
    info = run.store.info
    try:
        settings = settings_of(info)
    except UserError:
        return keys
    template = settings.load_template()
    rows = []
    for key in keys.itertuples(index=False):
        volume = np.asarray(run.store.volume(*key))
        mask = np.asarray(run.store.mask(*key))
        rows.append(quality.grid_figures(volume, mask, info.grid, template))
    return pd.DataFrame(rows)


def _training(run: TrainedRun, variant: str) -> Iterator[TrainingGroup]:
    rows = _source_keys(run, variant).merge(run.results.cohort, on=KEY)
    for (cohort, diagnosis), group in rows.groupby(["cohort", "diagnosis"], sort=True):
        ages = pd.to_numeric(group["age"], errors="coerce").dropna() if "age" in group else []
        low, middle, high = np.percentile(ages, (5, 50, 95)) if len(ages) else (np.nan,) * 3
        known = (float(low), float(middle), float(high)) if len(ages) else None
        yield TrainingGroup(str(cohort), str(diagnosis), len(group), known)


def _notes(run: TrainedRun, variant: str) -> Iterator[str]:
    if run.simulated:
        yield simulated.caution("training scans")
    if run.study.smoke:
        yield "The run's preset is smoke: a few subjects and epochs; its scores mean nothing."
    yield from (f"The run: {line}." for line in run.results.missing)
    smallest = min((group.n for group in _training(run, variant)), default=0)
    if smallest < 100:
        yield f"Only {smallest} training scans of the smaller class."
