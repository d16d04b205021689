import dataclasses

import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.simulation.phantom import check_room, phantom_on, template
from mri_jax.simulation.regions import REGIONS, coordinates
from mri_jax.volumes.grids import GRIDS, Grid

# Right-hemisphere centroids of the AAL atlas, rounded (Tzourio-Mazoyer et al. 2002), mm. The second
# region joins amygdala and parahippocampal gyrus, the third the three lateral temporal gyri, whose
# centroids are averaged; ours has the temporal pole and part of the fusiform gyrus as well.
PUBLISHED = {
    "hippocampus": ((27, -20, -10), 6),
    "amygdala_parahippocampal": ((25, -8, -19), 8),
    "lateral_temporal": ((55, -27, -9), 10),
}


def test_tissues_fill_the_mask_and_regions_never_overlap():
    phantom = template()
    assert np.allclose(phantom.tissue.sum(0), phantom.mask, atol=2e-3)
    assert phantom.regions.sum(0).max() <= 1.0 + 1e-6
    assert 1_850 < phantom.mask.sum() / 1000 < 2_050


def test_head_and_brain_are_aligned():
    phantom = template()
    brain = phantom.tissue[1] * 0.6 + phantom.tissue[2] * 0.9
    inside = phantom.mask > 0.99
    shifted = np.roll(phantom.head, 3, axis=1)
    here = np.corrcoef(brain[inside], phantom.head[inside])[0, 1]
    there = np.corrcoef(brain[inside], shifted[inside])[0, 1]
    assert here > 0.8
    assert here > there + 0.1


@pytest.mark.parametrize("name", PUBLISHED)
def test_regions_lie_where_the_atlas_has_them(name):
    phantom = template()
    right = phantom.regions[REGIONS.index(name)][91:]
    x, y, z = coordinates(phantom.grid)
    total = right.sum()
    found = [float((right * axis).sum() / total) for axis in (x[91:], y, z)]
    centroid, tolerance = PUBLISHED[name]
    assert np.linalg.norm(np.subtract(found, centroid)) < tolerance


def test_regions_have_plausible_volumes_and_are_symmetric():
    phantom = template()
    volumes = dict(zip(REGIONS, phantom.volumes_ml(), strict=True))
    assert 7 < volumes["hippocampus"] < 10
    assert 12 < volumes["ventricles"] < 25
    assert volumes["cortex"] > 500
    assert np.allclose(phantom.regions[0], phantom.regions[0][::-1], atol=0.05)


@pytest.mark.parametrize("name", ["demo", "dev"])
def test_averaging_keeps_volumes(name):
    assert np.allclose(phantom_on(GRIDS[name]).volumes_ml(), template().volumes_ml(), rtol=2e-3)


def test_a_grid_too_coarse_or_too_small_is_refused():
    with pytest.raises(UserError, match=r"grid: 'coarse' .* is too small for hippocampus"):
        phantom_on(Grid("coarse", (12, 14, 13), 16.0, (-88.0, -122.0, -70.0)))
    cut = Grid("cut", (24, 56, 48), 4.0, (2.0, -128.0, -76.0))
    with pytest.raises(UserError, match=r"'cut' .* mL inside"):
        phantom_on(cut)
    check_room(dataclasses.replace(phantom_on(GRIDS["demo"])))
