"""What a stage hands to its training."""

import numpy as np

from mri_jax.study.trainer import balanced_weights


def test_balanced_classes_weigh_alike_whatever_their_number():
    labels = np.array([0, 2, 2, 2, 0, 2, 2, 2])
    weights = balanced_weights(labels, 3)
    np.testing.assert_allclose(weights, [8 / (3 * 2), 0.0, 8 / (3 * 6)], rtol=1e-12)
    two = np.array([0, 1, 1, 1])
    np.testing.assert_array_equal(balanced_weights(two, 2), 4 / (2 * np.array([1, 3])))
    np.testing.assert_allclose(balanced_weights(two, 2)[two].sum(), 4.0, rtol=1e-12)
