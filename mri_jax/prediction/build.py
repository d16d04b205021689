"""From a finished run to a model: the networks, and the references that its own scans give.

Nothing is fitted on scores of subjects that a network trained on: temperatures and thresholds of
source networks come from their held-out source folds, of tuned networks from ``inner`` scores; the
limits of the distances come from held-out folds. (A held-out fold did choose its network's epoch.)
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

import mri_jax
from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.prediction import training_data
from mri_jax.prediction.features import features_of, reference
from mri_jax.prediction.folder import FORMAT
from mri_jax.prediction.model import (
    FAR_PERCENT,
    KINDS,
    Ensemble,
    FoldNetwork,
    ModelProvenance,
    PortableModel,
)
from mri_jax.prediction.performance import performance_of
from mri_jax.progress import Progress
from mri_jax.runs.trained import Member, TrainedRun
from mri_jax.training.checkpoints import Network
from mri_jax.volumes.pipeline import settings_of


def build(
    run: TrainedRun,
    network: str = "",
    stages: Sequence[str] = (),
    threads: int = 2,
    forms: str | None = None,
) -> PortableModel:
    """Make the model of one network variant of a run.

    Args:
      run: The run.
      network: The variant; by default the first of the plan.
      stages: Which of its stages; by default all. Of tuned networks those of repeat 0.
      threads: That read volumes.
      forms: How conv layers are computed (`mri_jax.models.choice`); None: the machine's choice.

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
    count = sum(len(run.trained_on(m)) + len(run.held_out(m)) for m in loaded)
    with Progress(count, "feature vector", "reference features", compiles=True) as progress:
        features = partial(features_of, run, threads=threads, progress=progress, forms=forms)
        made = tuple(_ensemble(run, stage, members[stage], loaded, features) for stage in chosen)
    return PortableModel(
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
        quality=training_data.figures_of(run, variant),
        training=tuple(training_data.groups_of(run, variant)),
        notes=tuple(training_data.notes_of(run, variant, chosen)),
        provenance=ModelProvenance(
            mri_jax=mri_jax.__version__,
            versions=run.results.provenance.versions if run.results.provenance else {},
            networks={m.name: m.fingerprint for m in loaded},
            store_fingerprint=info.fingerprint,
        ),
    )


def fingerprint_of(run: TrainedRun, network: str, stages: Sequence[str]) -> str:
    """Returns a cheap fingerprint of what determines `build`; it names the kept model."""
    return files.fingerprint(
        {
            "mri_jax": mri_jax.__version__,
            "format": FORMAT,
            "network": network,
            "stages": list(stages),
            "members": [member.fingerprint for member in run.members],
            "predictions": files.fingerprint(run.results.predictions.to_csv()),
            "store": run.store.info.to_json(),
            "notes": list(training_data.notes_of(run, network, stages)),
        }
    )


def _ensemble(
    run: TrainedRun,
    stage: str,
    members: Sequence[Member],
    loaded: dict[Member, Network],
    features: Callable[[Member, Network], tuple[dict[str, np.ndarray], list[str]]],
) -> Ensemble:
    networks = []
    distances: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for member in members:
        found, held_out = loaded[member], len(run.held_out(member))
        rows_of, digests = features(member, found)
        references = {}
        for kind, rows in rows_of.items():
            references[kind], far = reference(rows[:-held_out], rows[-held_out:])
            distances[kind].append(far)
        networks.append(
            FoldNetwork(member.fold, found.variables, references, frozenset(digests[:-held_out]))
        )
    pooled = {kind: np.concatenate(each) for kind, each in distances.items()}
    known = performance_of(run, members[0].run, stage)
    return Ensemble(
        stage=stage,
        networks=tuple(networks),
        temperature=known.temperature,
        calibration=known.calibration,
        points=known.points,
        groups=known.groups,
        tested=known.tested,
        distance_limits={k: float(np.percentile(d, FAR_PERCENT)) for k, d in pooled.items()},
        distance_n=len(pooled[KINDS[0]]),
    )
