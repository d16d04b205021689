import jax
import numpy as np
import pytest
from scipy import ndimage

from mri_jax.backend import FEW_PASSES
from mri_jax.keys import key_data, typed_key
from mri_jax.simulation.atrophy import WARP_GRID, atrophy
from mri_jax.simulation.people import scan_named
from mri_jax.simulation.phantom import template
from mri_jax.simulation.render import registration_error, renderer, shaped, source_grid
from mri_jax.simulation.settings import SimulationSettings, default_cohorts
from mri_jax.volumes.grids import GRIDS

SETTINGS = SimulationSettings("demo", 4, default_cohorts(("AD", "CN")))
SCANS = [scan_named(SETTINGS, "ADNI1", "AD", 2), scan_named(SETTINGS, "AIBL", "CN", 5)]


@pytest.fixture(scope="module")
def rendered_first():
    return renderer(GRIDS["demo"])(SCANS[0])


def test_a_scan_is_the_same_in_any_order(rendered_first):
    render = renderer(GRIDS["demo"])
    other, again = render(SCANS[1]), render(SCANS[0])
    assert rendered_first.volume.tobytes() == again.volume.tobytes()
    assert rendered_first.volumes_ml.tobytes() == again.volumes_ml.tobytes()
    assert not np.array_equal(again.volume, other.volume)


def test_a_brain_has_dark_fluid_and_bright_white_matter(rendered_first):
    scan, rendered = SCANS[0], rendered_first
    inside = rendered.volume[rendered.mask] / scan.site.gain
    assert (rendered.volume[~rendered.mask] == 0).all()
    low, high = np.percentile(inside, [1, 90])
    assert low < 0.45 < 0.7 < high < 1.2
    assert rendered.minimum_jacobian > 0
    assert 1.5 < rendered.residual_warp_mm < 7
    wanted = np.exp(scan.targets) * np.asarray(atrophy().volumes)
    assert np.allclose(rendered.volumes_ml, wanted, rtol=[0.02] * 4 + [0.04])


def test_volumes_measured_at_one_millimetre_agree_with_those_of_the_coarser_warp():
    """An independent measurement: SciPy deforms the regions of the 1 mm template."""
    phantom = template()
    displacement, achieved = jax.jit(shaped, compiler_options=FEW_PASSES)(
        atrophy(), SCANS[0].targets.astype(np.float32), typed_key(key_data(SCANS[0].anatomy_seed))
    )
    axes = [o + s * np.arange(n) for o, s, n in
            zip(phantom.grid.origin, (1.0,) * 3, phantom.grid.shape, strict=True)]  # fmt: skip
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    here = (points - np.reshape(WARP_GRID.origin, (3, 1, 1, 1))) / WARP_GRID.spacing
    moved = np.stack(
        [
            ndimage.map_coordinates(part, here, order=1, mode="nearest", output=np.float32)
            for part in np.moveaxis(np.asarray(displacement), -1, 0)
        ]
    )
    points += WARP_GRID.spacing * moved - np.reshape(phantom.grid.origin, (3, 1, 1, 1))
    found = [
        ndimage.map_coordinates(region, points, order=1).sum(dtype=np.float64) / 1000
        for region in phantom.regions
    ]
    # Hippocampus and amygdala are a few voxels of the 3 mm warp thick.
    assert np.allclose(found, achieved, rtol=[0.03, 0.04, 0.02, 0.02, 0.04])


def test_registration_leaves_a_small_error_and_the_grids_share_one_space():
    affine = registration_error(SCANS[0])
    assert np.abs(affine[:3, :3] - np.eye(3)).max() < 0.1
    assert np.abs(affine[:3, 3]).max() < 3
    for grid in GRIDS.values():
        source = source_grid(grid)
        low = np.subtract(grid.origin, grid.spacing / 2)
        assert np.allclose(low, np.subtract(source.origin, source.spacing / 2))
        assert source.spacing == max(1.0, grid.spacing / 2)


@pytest.mark.slow
def test_anatomy_and_truth_do_not_depend_on_the_grid():
    coarse, fine = (renderer(GRIDS[name])(SCANS[1]) for name in ("demo", "dev"))
    assert np.allclose(coarse.volumes_ml, fine.volumes_ml, rtol=1e-5)
    averaged = fine.volume.reshape(48, 2, 56, 2, 48, 2).mean((1, 3, 5))
    both = coarse.mask & (averaged > 0)
    assert np.corrcoef(averaged[both], coarse.volume[both])[0, 1] > 0.97
