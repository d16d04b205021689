from dataclasses import replace

import numpy as np
import pytest

from mri_jax.explanation.occlusion import drops, patch_starts, spread
from mri_jax.explanation.score import ScoredNetwork, scores
from mri_jax.explanation.windows import patch_drops, plan_windows
from mri_jax.models import CNNSpec
from tests.explanation.small import GRID, SPEC, background, brain, network, volume

FILL = background().mean


def naive(asked: ScoredNetwork, x: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    clean = float(scores(*asked, x[None])[0])
    found = []
    for start in starts:
        box = tuple(slice(s, s + size) for s in start)
        hidden = x.copy()
        hidden[box] = FILL[box]
        found.append(clean - float(scores(*asked, hidden[None])[0]))
    return np.array(found)


@pytest.mark.parametrize(
    ("spec", "size", "layers"),
    [
        (SPEC, 4, 3),
        (SPEC, 2, 1),
        (CNNSpec((2, 1), (3, 4), fc=(6,), dropout=(0.0, 0.0)), 6, 2),
        # A gate sees the whole map.
        (replace(SPEC, attention="cbam", attention_blocks=(2,)), 4, 1),
        (replace(SPEC, attention="se"), 4, 0),
        (replace(SPEC, residual=True, norm="group"), 4, 0),
    ],
)
def test_windows_give_what_whole_volumes_give(spec, size, layers):
    """At the faces, edges and corners of a volume of odd sides too."""
    assert len(plan_windows(spec, size)) == layers
    asked, x = network(spec), volume(1)
    x += np.float32(0.1)
    starts = patch_starts(np.ones(GRID.shape, bool), size)
    ends = np.array(GRID.shape)
    rim = ((starts == 0) | (starts + size >= ends)).any(axis=1)
    chosen = np.concatenate([starts[rim][::7], starts[~rim][::5]])
    wanted = naive(asked, x, chosen, size)
    found = patch_drops(asked, x, FILL, chosen, size, chunk=8)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1, np.abs(wanted).max()))


def test_region_occlusion_fills_with_the_mean():
    asked, x = network(), volume(1)
    labels = np.zeros(GRID.shape, np.int32)
    labels[4:8, 4:9, 3:6], labels[9:12, 3:6, 5:9] = 2, 5
    wanted, clean = [], float(scores(*asked, x[None])[0])
    for label in (2, 5):
        hidden = np.where((labels == label)[..., None], FILL, x)
        wanted.append(clean - float(scores(*asked, hidden[None])[0]))
    found = drops(asked, x, FILL, labels, np.array([2, 5]), chunk=4)
    # Two programs round scores of this size apart by some units in the last place (JAX 0.12: four).
    np.testing.assert_allclose(found, wanted, atol=8 * np.finfo(np.float32).eps * abs(clean))
    assert np.abs(found).min() > 1e-4


def test_a_region_that_the_network_ignores_contributes_nothing():
    """Voxels that only pooling's dropped plane sees, and a region already at its mean."""
    asked, x = network(), volume(1)
    labels = np.zeros(GRID.shape, np.int32)
    labels[5:8, 5:8, 5:8] = 1
    labels[10:12, 5:8, 5:8] = 2
    same = np.where((labels == 1)[..., None], x, FILL)
    found = drops(asked, x, same, labels, np.array([1, 2]), chunk=2)
    # The clean and the occluded score come from two programs, equal up to rounding.
    assert abs(found[0]) < 1e-4 < 1e-3 < abs(found[1])


def test_an_ignored_half_of_the_volume_is_zero():
    """FC weights of every position in the right half are 0, so patches there change nothing."""
    spec = CNNSpec((1,), (3,), fc=(6,), dropout=(0.0, 0.0))
    asked = network(spec)
    dense = asked.variables["params"]["fc1"]
    x, y, z = (n // 2 for n in GRID.shape)
    kernel = dense["kernel"].reshape(x, y, z, 3, -1).copy()
    kernel[x // 2 :] = 0.0
    dense["kernel"] = kernel.reshape(dense["kernel"].shape)
    starts = np.array([[2, 4, 4], [12, 4, 4]], np.int32)
    found = patch_drops(asked, volume(1), FILL, starts, 2, chunk=2)
    # The clean and the occluded score come from two programs, equal up to rounding.
    assert abs(found[1]) < 1e-5 < 1e-3 < abs(found[0])


def test_patches_cover_the_brain_once():
    starts = patch_starts(brain(), 4)
    covered = spread(np.ones(len(starts)), starts, 4, GRID.shape)
    assert (covered[brain()] > 0).all()
    assert covered.sum() == pytest.approx(len(starts), rel=1e-5)
    assert (starts % 4 == 0).all()
