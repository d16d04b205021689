import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mri_jax.simulation import warp

SHAPE = (9, 12, 10)


def test_sampling_agrees_with_scipy(rng):
    values = rng.standard_normal((*SHAPE, 2)).astype(np.float32)
    points = rng.uniform(-2, 13, (40, 3)).astype(np.float32)
    found = warp.sample(jnp.asarray(values), jnp.asarray(points))
    for channel in range(2):
        wanted = ndimage.map_coordinates(
            values[..., channel], points.T, order=1, mode="nearest", output=np.float64
        )
        assert np.allclose(found[:, channel], wanted, atol=1e-5)


def test_exponential_of_a_linear_velocity_is_the_matrix_exponential():
    # v = A (p - c) flows to expm(A) (p - c); here a rotation about Z with a contraction along Z.
    angle, shrink = 0.3, -0.2
    here = np.asarray(warp.lattice(SHAPE))
    offset = here - (np.array(SHAPE) - 1) / 2
    velocity = np.stack(
        [-angle * offset[..., 1], angle * offset[..., 0], shrink * offset[..., 2]], axis=-1
    )
    moved = offset + np.asarray(warp.exponential(jnp.asarray(velocity, jnp.float32), 8))
    x, y = offset[..., 0], offset[..., 1]
    wanted = np.stack(
        [
            np.cos(angle) * x - np.sin(angle) * y,
            np.sin(angle) * x + np.cos(angle) * y,
            np.exp(shrink) * offset[..., 2],
        ],
        axis=-1,
    )
    inner = (slice(3, -3), slice(4, -4), slice(3, -3))
    assert np.allclose(moved[inner], wanted[inner], atol=0.01)


def test_the_jacobian_of_a_linear_map_is_its_determinant():
    matrix = np.array([[0.1, 0.2, 0.0], [-0.1, 0.05, 0.3], [0.0, 0.1, -0.2]])
    displacement = np.asarray(warp.lattice(SHAPE)) @ matrix.T
    found = warp.jacobian_determinant(jnp.asarray(displacement, jnp.float32))
    assert found.shape == tuple(n - 1 for n in SHAPE)
    assert np.allclose(found, np.linalg.det(np.eye(3) + matrix), atol=1e-4)


def test_a_fold_has_a_negative_jacobian():
    displacement = np.zeros((*SHAPE, 3), np.float32)
    displacement[4, ..., 0] = 3.0
    assert float(warp.jacobian_determinant(jnp.asarray(displacement)).min()) == pytest.approx(-2)
