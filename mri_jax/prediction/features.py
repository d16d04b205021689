"""Where features of a network lie on the scans that it knows, and on those held out from it."""

from itertools import islice

import numpy as np
from sklearn.covariance import LedoitWolf

from mri_jax.prediction.forward import NetworksOnDevice
from mri_jax.prediction.model import KINDS, FeatureReference, digest_of
from mri_jax.progress import Progress
from mri_jax.runs.trained import Member, TrainedRun
from mri_jax.training.checkpoints import Network

_BATCH = 8
# A feature that varies by less than float32 resolves is constant.
_CONSTANT = 1e-6


def features_of(
    run: TrainedRun,
    member: Member,
    network: Network,
    threads: int,
    progress: Progress,
    forms: str | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """By kind (N, F), and digests: of the scans it was trained on, then of the held-out ones."""
    keys = run.trained_on(member) + run.held_out(member)
    forward = NetworksOnDevice(network.spec, [network.variables], forms)
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
    """Returns where features lie: Mahalanobis distance with Ledoit and Wolf's shrunk covariance.

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
