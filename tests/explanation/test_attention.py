from dataclasses import replace

import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.explanation import attention
from mri_jax.explanation.methods import METHODS, MethodSettings, available, make_methods
from mri_jax.models import CNNSpec
from tests.explanation.small import GRID, SPEC, background, network, volume
from tests.models.by_hand import sigmoid
from tests.models.layers import convolve
from tests.networks import apply

GATED = replace(SPEC, attention="spatial")


def methods(spec, names=("attention",), block=0):
    settings, labels = MethodSettings(block=block), np.zeros(GRID.shape, np.int32)
    return make_methods(names, settings, spec, GRID, background(), labels)


def test_the_map_holds_the_gate_s_weights_at_the_centres_of_its_voxels():
    asked, x = network(GATED), volume(1)
    (method,) = methods(GATED, block=1)
    found = method.explain(asked, x)
    # By hand from what the gate reads: the pooled map of the block before it.
    _, kept = apply(GATED, asked.variables, x[None], intermediates=True)
    maps = np.asarray(kept["conv1/feature_map"])[:, :16, :22, :14]
    n, sizes, channels = 1, (8, 11, 7), maps.shape[-1]
    windows = maps.reshape(n, sizes[0], 2, sizes[1], 2, sizes[2], 2, channels)
    pooled = windows.max((2, 4, 6))
    both = np.stack([pooled.mean(-1), pooled.max(-1)], -1)
    gate = asked.variables["params"]["att1"]
    weights, _ = sigmoid(convolve(both, gate["kernel"]) + gate["bias"])
    # Voxel 4 of the map lies between voxels 8 and 9 of the volume, a quarter from each.
    near = np.array([0.125, 0.75, 0.125])
    wanted = np.einsum("xyz,x,y,z", weights[0, 3:6, 3:6, 3:6, 0], near, near, near)
    assert found.map[8:10, 8:10, 8:10].mean() == pytest.approx(wanted, rel=1e-4)
    assert 0 < found.units.min() < found.units.max() < 1
    assert (found.map[~background().brain] == 0).all()
    assert found.units.shape == (background().brain.sum(),)
    assert "8x11x7" in method.note
    assert "not what speaks" in method.note


@pytest.mark.parametrize(
    ("shape", "blocks", "block"),
    [((96, 112, 96), (4, 5), 4), ((181, 217, 181), (3, 5), 3), ((48, 56, 48), (4, 5), 4)],
)
def test_the_default_block_is_the_deepest_whose_gate_has_six_voxels_a_side(shape, blocks, block):
    spec = CNNSpec(attention="cbam", attention_blocks=blocks)
    assert attention.default_block(spec, shape) == block


def test_only_gates_of_positions_can_be_shown():
    assert "attention" in available(GATED)
    for spec in (SPEC, replace(SPEC, attention="se")):
        assert available(spec) == METHODS[:-1]
        with pytest.raises(UserError, match=r"attention shows gates of positions .*spatial, cbam"):
            methods(spec)
    last = replace(SPEC, attention="map", attention_blocks=(2,))
    with pytest.raises(UserError, match="block: 1 has no gate to show; blocks that have one: 2"):
        methods(last, block=1)
    # Asked about together, Grad-CAM shows the block and attention what it has.
    cam, gate = methods(last, ("grad-cam", "attention"), block=1)
    assert (cam.block, gate.block) == (1, 2)
