import math
from dataclasses import dataclass

import numpy as np
import pytest

from mri_jax.explanation.methods import Explained, MethodSettings, make_methods
from mri_jax.explanation.sanity import (
    FAILED,
    PASSED,
    UNDECIDED,
    Similarity,
    Verdict,
    cascade,
    failures,
    judge_agreement,
    judge_cascade,
    judge_permuted,
    judge_truth,
    pairwise,
    rank_correlation,
    similarity,
)
from mri_jax.explanation.truth import Truth, auc, aucs, parcellate
from tests.explanation.small import GRID, SPEC, background, brain, network, volume


@dataclass
class EdgeDetector:
    """A map that has nothing to do with the network."""

    name: str = "edges"
    note: str = ""

    def explain(self, asked, x):
        edges = np.abs(np.diff(x[..., 0], axis=1, append=0)).astype(np.float32)
        return Explained(edges, edges[brain()], float("nan"))


def steps_of(method, asked, volumes):
    first = [method.explain(asked, v).units for v in volumes]
    return [
        (layer, similarity(first, [method.explain(random, v).units for v in volumes]))
        for layer, random in cascade(asked, 1, GRID.shape)
    ]


def test_cascade_randomises_from_the_top_and_keeps_what_lies_below():
    asked = network()
    found = list(cascade(asked, 1, GRID.shape))
    assert [name for name, _ in found] == ["fc2", "fc1", "conv3", "conv2", "conv1"]
    for place, (_, random) in enumerate(found):
        for later, (name, _) in enumerate(found):
            same = np.array_equal(
                random.variables["params"][name]["kernel"],
                asked.variables["params"][name]["kernel"],
            )
            assert same == (later > place)
            norm = name.replace("conv", "bn")
            if norm != name:
                fresh = (random.variables["params"][norm]["scale"] == 1).all()
                assert fresh == (later <= place)
    assert (found[-1][1].variables["batch_stats"]["bn1"]["mean"] == 0).all()


def test_a_map_that_ignores_the_weights_fails_and_a_gradient_passes():
    asked, volumes = network(), [volume(1), volume(2)]
    edges = steps_of(EdgeDetector(), asked, volumes)
    verdict = judge_cascade("edges", edges, units=1000)
    assert verdict.outcome == FAILED
    assert edges[-1][1].signed == pytest.approx(1.0)
    assert failures([verdict], "edges") == "FAILED: cascade"
    regions = np.zeros(GRID.shape, np.int32)
    (gradient,) = make_methods(
        ["integrated-gradients"], MethodSettings(steps=8), SPEC, GRID, background(), regions
    )
    steps = steps_of(gradient, asked, volumes)
    assert abs(steps[-1][1].signed) < 0.25 < abs(steps[0][1].signed) + 0.25
    assert judge_cascade("g", [("conv1", Similarity(0.1, 0.4))], units=1000).outcome == PASSED


@pytest.mark.parametrize(
    ("found", "outcome"),
    [((0.24, 0.49), PASSED), ((-0.26, 0.1), FAILED), ((0.0, 0.51), FAILED)],
)
def test_rule_of_similarity(found, outcome):
    verdict = judge_permuted("m", Similarity(*found), 1000, "loss 0.1")
    assert verdict.outcome == outcome
    assert "loss 0.1" in verdict.finding


def test_few_values_are_undecided():
    assert judge_cascade("m", [("conv1", Similarity(0.9, 0.9))], units=5).outcome == UNDECIDED


def test_rank_correlation_is_spearman_s(rng):
    from scipy.stats import spearmanr

    first, second = np.round(rng.normal(size=(2, 50)), 1)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(first, first**3) == pytest.approx(1.0)
    assert math.isnan(rank_correlation(first, np.zeros(50)))


def test_agreement(rng):
    base = rng.normal(size=200)
    alike = [base + 0.1 * rng.normal(size=200) for _ in range(3)]
    apart = [rng.normal(size=200) for _ in range(3)]
    assert pairwise(alike) > 0.95
    assert math.isnan(pairwise(alike[:1]))
    random = Similarity(0.05, 0.2)
    assert judge_agreement("m", [pairwise(alike)], random, 200).outcome == PASSED
    assert judge_agreement("m", [pairwise(apart)], random, 200).outcome == FAILED
    assert judge_agreement("m", [math.nan], random, 200).outcome == UNDECIDED


def truth() -> Truth:
    labels = np.zeros(GRID.shape, np.int32)
    labels[4:12, 4:9, 3:6] = 1
    rest = brain() & (labels == 0)
    parcels, affected = parcellate(labels, rest, GRID)
    strong = labels == 1
    strong[8:] = False
    return Truth(labels == 1, strong, rest, parcels, affected)


def test_attribution_of_the_true_effect_scores_one(rng):
    known = truth()
    values = np.where(known.effect, -2.0, 1.0) + 0.01 * rng.normal(size=GRID.shape)
    found = aucs(values, known)
    assert found == {"voxels": 1.0, "strong": 1.0, "regions": 1.0, "reach": 1.0}
    marked = aucs(np.where(known.effect, 1.0, 0.0), known)
    assert judge_truth("m", [marked] * 5, {}, 0).outcome == UNDECIDED
    blind = aucs(rng.normal(size=GRID.shape), known)
    assert abs(blind["voxels"] - 0.5) < 0.08
    assert judge_truth("m", [found] * 5, {}, 0).outcome != FAILED
    guess = [{**found, "voxels": 0.5 + 0.05 * (-1) ** i} for i in range(8)]
    assert judge_truth("m", guess, {"random": 0.5}, 0).outcome == FAILED
    good = [{**found, "voxels": 0.7 + 0.05 * (-1) ** i} for i in range(8)]
    assert judge_truth("m", good, {"random": 0.5, "permuted": math.nan}, 0).outcome == PASSED
    assert judge_truth("m", good, {"random": 0.72}, 0).outcome == FAILED


def test_parcels_part_hemispheres_and_leave_out_crumbs():
    known = truth()
    assert known.affected.sum() == 2
    assert not (known.parcels[~brain()] > 0).any()
    counts = np.bincount(known.parcels.ravel())[1:]
    assert counts.min() >= 8
    assert len(counts) == len(known.affected)


def test_auc_counts_ties_by_half():
    assert auc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(0.875)
    assert math.isnan(auc(np.zeros(0), np.ones(3)))


def test_failures_name_the_checks_of_one_method():
    made = [Verdict(m, c, o, "", "") for m, c, o in (
        ("a", "cascade", FAILED), ("a", "truth", FAILED), ("a", "agreement", PASSED),
        ("b", "cascade", PASSED),
    )]  # fmt: skip
    assert failures(made, "a") == "FAILED: cascade, truth"
    assert failures(made, "b") == ""
