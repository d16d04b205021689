from dataclasses import replace

import jax
import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.explanation.gradcam import check_block, coarse_map, default_block, grad_cam, upsample
from mri_jax.explanation.score import scores
from mri_jax.models import CNN, CNNSpec
from tests.compiling import QUICKLY
from tests.explanation.small import GRID, SPEC, network, volume
from tests.networks import apply

CNN5 = CNNSpec()


@pytest.mark.parametrize(
    ("shape", "block"),
    [((48, 56, 48), 4), ((96, 112, 96), 5), ((181, 217, 181), 5), ((11, 40, 40), 1)],
)
def test_default_block_is_the_deepest_with_six_voxels(shape, block):
    assert default_block(CNN5, shape) == block


@pytest.mark.parametrize(
    ("block", "options"),
    [(1, {}), (2, {}), (1, {"attention": "cbam"}), (2, {"residual": True, "norm": "instance"})],
)
def test_weights_are_mean_gradients_of_the_feature_map(block, options):
    """Gradients by finite differences through a bias added to one channel of the feature map."""
    asked = network(replace(SPEC, **options))
    spec, variables = asked.network.spec, asked.variables
    plain = CNN(spec, forms="reference")
    x = volume(1)[None]
    last = sum(SPEC.repetitions[:block])
    _, kept = apply(spec, variables, x, intermediates=True)
    features = np.asarray(kept[f"conv{last}/feature_map"], np.float64)

    def rest(maps):
        pooled = jax.lax.reduce_window(
            maps, -np.inf, jax.lax.max, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "VALID"
        )
        gated, _ = plain.apply(variables, pooled, last, method="gated")
        logits = plain.apply(variables, gated, train=False, first=last + 1)
        return (logits[:, 1] - logits[:, 0]).sum()

    run = jax.jit(jax.value_and_grad(rest), compiler_options=QUICKLY)
    score, gradient = run(kept[f"conv{last}/feature_map"])
    assert float(score) == pytest.approx(float(scores(*asked, x)[0]), rel=1e-4)
    gradient = np.asarray(gradient, np.float64)
    wanted = np.einsum("nxyzc,nc->nxyz", features, gradient.mean((1, 2, 3)))
    found = np.asarray(coarse_map(*asked, x, block))
    assert (found < 0).any() or (found > 0).any()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_upsampling_puts_voxels_at_their_centres():
    coarse = np.arange(4.0)[None, :, None, None] * np.ones((1, 4, 2, 2))
    found = np.asarray(upsample(coarse, (9, 4, 4), 2))[0, :, 1, 1]
    # Voxel j lies at 2 j + 0.5; the last plane was dropped by pooling.
    np.testing.assert_allclose(found, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3, 0], atol=1e-6)


def test_map_has_the_volume_s_shape():
    found = grad_cam(*network(), volume(1)[None], 2)
    assert found.shape == (1, *GRID.shape)


def test_a_block_that_is_not_there_is_named():
    with pytest.raises(UserError, match="block: 3 must lie between 1 and 2"):
        check_block(SPEC, 3)
