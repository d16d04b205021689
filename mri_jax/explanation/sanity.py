"""Checks that reviewers ask for, each with its rule.

Cascading randomisation and permuted labels are those of Adebayo et al. 2018 (arXiv:1810.03292): a
map that stays as it is when the network's weights, or the labels it learned, become random does not
explain the network.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import jax
import numpy as np
from scipy import stats

from mri_jax.explanation.score import ScoredNetwork
from mri_jax.explanation.statistics import subject_interval
from mri_jax.keys import key_data
from mri_jax.models.cnn import fresh_variables
from mri_jax.seeding import stream_seed
from mri_jax.showing.simulated import COHORTS

# Largest rank correlation that a map may keep with that of a random network.
SIGNED_LIMIT, ABSOLUTE_LIMIT = 0.25, 0.5
# By how much the networks must agree more with each other than with a random one.
AGREEMENT_MARGIN = 0.1
# A map that is 0 by construction in more of the rest of the brain cannot err there.
LEAST_REACH = 0.5
AREAS = ("voxels", "strong", "regions", "reach")
# Fewer values than this have no rank correlation worth a verdict.
LEAST_UNITS = 20
PASSED, FAILED, UNDECIDED = "passed", "FAILED", "undecided"

RULES = {
    "cascade": (
        "all layers randomised: mean rank correlation with the trained network's map at most "
        f"{SIGNED_LIMIT} (signed, either way) and {ABSOLUTE_LIMIT} (absolute values)"
    ),
    "permuted labels": (
        "network trained on permuted labels: mean rank correlation of its map with the trained "
        f"network's at most {SIGNED_LIMIT} (signed) and {ABSOLUTE_LIMIT} (absolute values)"
    ),
    "agreement": (
        "mean rank correlation between the maps of the networks (signed) at least "
        f"{AGREEMENT_MARGIN} above that with a fully randomised network"
    ),
    "truth": (
        "absolute attribution ranks voxels of the true effect above the rest of the brain: the "
        "whole 95% interval of its AUC over subjects lies above 0.5 and above the means for a "
        f"randomised network and one of permuted labels ({COHORTS} only)"
    ),
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check of one method.

    Attributes:
      method: Its name.
      check: One of `RULES`.
      outcome: ``passed``, ``FAILED`` or ``undecided``.
      finding: The numbers behind it, one line.
      rule: What was asked.
    """

    method: str
    check: str
    outcome: str
    finding: str
    rule: str

    def to_json(self) -> dict[str, str]:
        """As a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Similarity:
    """Mean rank correlations of two networks' maps over some scans.

    Attributes:
      signed: Rank correlation of the maps.
      absolute: Rank correlation of their absolute values.
    """

    signed: float
    absolute: float


def cascade(
    network: ScoredNetwork, seed: int, shape: tuple[int, ...]
) -> Iterator[tuple[str, ScoredNetwork]]:
    """Yields the network with ever more layers drawn anew, from the last (``fc3``) down to conv1.

    A conv layer's normalisation goes with it, its statistics included. Yields the name of the layer
    that was added, and the network.
    """
    spec, variables = network.network.spec, network.variables
    x, y, z = shape[:3]
    key = key_data(stream_seed(seed, "explain", "cascade") % 2**32)
    fresh = jax.device_get(fresh_variables(spec, (x, y, z), key))
    params, stats_ = dict(variables["params"]), dict(variables["batch_stats"])
    convs = (name for name in spec.layer_names if name.startswith("conv"))
    norms = dict(zip(convs, spec.norm_names, strict=True))
    for name in reversed([n for n in spec.layer_names if n not in spec.norm_names]):
        for each in filter(None, (name, norms.get(name))):
            params[each] = fresh["params"][each]
            if each in stats_:
                stats_[each] = fresh["batch_stats"][each]
        drawn = {"params": dict(params), "batch_stats": dict(stats_)}
        yield name, network._replace(variables=drawn)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where a side is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


def pairwise(units: Sequence[np.ndarray]) -> float:
    """Returns the mean rank correlation over all pairs of networks; NaN for fewer than two."""
    if len(units) < 2 or any(np.ptp(u) == 0 for u in units):
        return math.nan
    matrix = np.corrcoef([stats.rankdata(u) for u in units])
    return float(matrix[np.triu_indices(len(units), 1)].mean())


def similarity(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Similarity:
    """Returns the mean rank correlations of the units of two networks' maps of the same scans."""
    pairs = list(zip(first, second, strict=True))
    signed = [rank_correlation(a, b) for a, b in pairs]
    absolute = [rank_correlation(np.abs(a), np.abs(b)) for a, b in pairs]
    # A map that is constant for the random network has nothing in common with any other.
    return Similarity(*(float(np.mean(np.nan_to_num(x))) for x in (signed, absolute)))


def judge_cascade(method: str, steps: Sequence[tuple[str, Similarity]], units: int) -> Verdict:
    """Judge the correlations of `cascade`, in its order."""
    return _judge_similarity("cascade", method, steps[-1][1], units)


def judge_permuted(method: str, found: Similarity, units: int, trained: str) -> Verdict:
    """Judge a network of permuted labels; ``trained`` says how far it got."""
    verdict = _judge_similarity("permuted labels", method, found, units)
    return Verdict(**{**asdict(verdict), "finding": f"{verdict.finding}; {trained}"})


def _judge_similarity(check: str, method: str, found: Similarity, units: int) -> Verdict:
    finding = f"signed {found.signed:+.2f}, absolute {found.absolute:+.2f}"
    good = abs(found.signed) <= SIGNED_LIMIT and found.absolute <= ABSOLUTE_LIMIT
    return _verdict(method, check, good, finding, units)


def judge_agreement(
    method: str, agreement: Sequence[float], randomised: Similarity, units: int
) -> Verdict:
    """Judge `pairwise` correlations, a value a scan; NaN ones (one network only) do not count."""
    known = [value for value in agreement if not math.isnan(value)]
    if not known:
        finding = "each scan has one network that may explain it"
        return Verdict(method, "agreement", UNDECIDED, finding, RULES["agreement"])
    mean = float(np.mean(known))
    finding = f"{mean:+.2f} between networks, {randomised.signed:+.2f} with a random one"
    good = mean >= randomised.signed + AGREEMENT_MARGIN
    return _verdict(method, "agreement", good, finding, units)


def _verdict(method: str, check: str, good: bool, finding: str, units: int) -> Verdict:
    if units < LEAST_UNITS:
        finding = f"{finding}; {units} values are too few for a rank correlation"
        return Verdict(method, check, UNDECIDED, finding, RULES[check])
    return Verdict(method, check, PASSED if good else FAILED, finding, RULES[check])


def judge_truth(
    method: str, found: Sequence[dict[str, float]], others: dict[str, float], seed: int
) -> Verdict:
    """Judge the areas of `truth.aucs`, one a subject.

    Args:
      method: Its name.
      found: A dictionary a subject.
      others: Mean voxel AUC of networks that know nothing of the disease (randomised, permuted
        labels), which must be surpassed; NaN where unknown.
      seed: Seed of the bootstrap.
    """
    mean, low, high = subject_interval([f["voxels"] for f in found], seed)
    strong, regions = (float(np.mean([f[name] for f in found])) for name in ("strong", "regions"))
    beside = "".join(f", {name} {value:.2f}" for name, value in others.items())
    finding = (
        f"AUC of voxels {mean:.3f} [{low:.3f}, {high:.3f}], of the strongest {strong:.3f}, "
        f"of regions {regions:.3f}{beside}"
    )
    ignorant = max([0.5, *(v for v in others.values() if not math.isnan(v))])
    outcome = PASSED if low > ignorant else FAILED
    if math.isnan(low):
        outcome = UNDECIDED
    reach = float(np.mean([f["reach"] for f in found]))
    if reach < LEAST_REACH:
        outcome = UNDECIDED
        finding = f"says nothing: the map can mark only {reach:.0%} of the rest of the brain"
    return Verdict(method, "truth", outcome, finding, RULES["truth"])


def failures(verdicts: Sequence[Verdict], method: str) -> str:
    """Returns the end of a title: empty, or ``FAILED: cascade, truth``."""
    names = [v.check for v in verdicts if v.method == method and v.outcome == FAILED]
    return f"{FAILED}: {', '.join(names)}" if names else ""
