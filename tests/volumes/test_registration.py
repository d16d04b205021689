"""A known affine is found again, wherever the head lies."""

import numpy as np
import pytest

from mri_jax.errors import UserError
from mri_jax.volumes import registration
from mri_jax.volumes.resampling import Image, transform_points


def distance(template, one, other):
    """Mean distance (mm) over the template's brain between where two transforms put it."""
    points = transform_points(template.affine, np.argwhere(template.mask[::5, ::5, ::5]) * 5)
    gap = transform_points(one, points) - transform_points(other, points)
    return np.linalg.norm(gap, axis=1).mean()


CASES = [
    ((30, 0, 0), (40, 0, 0), 1.15),
    ((-30, 0, 0), (0, 40, 0), 0.85),
    ((0, 30, 0), (0, 0, -40), 1.0),
    ((0, -30, 0), (-40, 0, 0), 0.9),
    ((0, 0, 30), (0, -40, 0), 1.1),
    ((0, 0, -30), (23, -23, 23), 0.85),
    ((17, -17, 17), (-23, 23, 23), 1.15),
]


@pytest.mark.parametrize(("angles", "shift", "scale"), CASES)
def test_recovers_a_known_affine(template, moved, angles, shift, scale):
    scan, truth = moved(angles, np.array(shift, float), scale)
    fit = registration.register_head(scan, template)
    assert distance(template, fit.matrix, truth) < 1.0
    assert fit.correlation > 0.97


def test_fat_brighter_than_the_brain_does_not_mislead(template, moved):
    where = ((6, -4, 7), np.array([9.0, -12, 14]), 0.93)
    scan, truth = moved(*where)
    brain, _ = moved(*where, stripped=True)
    bright = Image(scan.data + 1.5 * (scan.data - brain.data), scan.affine)
    fit = registration.register_head(bright, template)
    assert distance(template, fit.matrix, truth) < 2.0


def test_refinement_on_the_brain_is_finer_than_a_millimetre(template, moved):
    scan, truth = moved((4, -3, 5), np.array([3.0, -2, 1]), 0.93, stripped=True)
    start = registration.AffineFit(truth + np.pad(np.full((3, 1), 3.0), ((0, 1), (3, 0))), 0.0)
    assert distance(template, start.matrix, truth) > 5
    fit = registration.register_brain(scan, scan.data > 0, start, template)
    assert distance(template, fit.matrix, truth) < 0.6


@pytest.mark.parametrize("scale", [0.88, 1.12])
def test_rigid_keeps_the_size_and_finds_the_place(template, moved, scale):
    scan, truth = moved((9, -6, 8), np.array([5.0, -8, 4]), scale, stripped=True)
    # The start is turned and shifted as an affine fit of a deformed head may be.
    skewed = truth.copy()
    skewed[:3, :3] = truth[:3, :3] @ np.array([[1.0, 0.06, 0], [0, 1, 0], [0, -0.05, 1]])
    skewed[:3, 3] += 2.0
    found = registration.register_rigid(
        scan, scan.data > 0, registration.AffineFit(skewed, 0.9), template
    )
    turn = found.matrix[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    angle = np.degrees(np.arccos((np.trace(turn.T @ truth[:3, :3] / scale) - 1) / 2))
    assert angle < 1.0
    centre = template.centre[None]
    gap = transform_points(found.matrix, centre) - transform_points(truth, centre)
    assert np.linalg.norm(gap) < 1.0


def test_a_head_turned_against_its_header_is_refused_and_the_turn_is_named(head, template):
    wrong = Image(head.data, np.diag([-1.0, -1.0, 1.0, 1.0]) @ head.affine)
    said = r"turned by 180 degrees about the superior-inferior axis the head correlates (0\.9|1\.0)"
    with pytest.raises(UserError, match=said):
        registration.register_head(wrong, template)


def test_finds_no_head_in_noise(template, rng):
    noise = Image(rng.random((61, 67, 59)).astype(np.float32), np.diag([3.0, 3, 3, 1]))
    with pytest.raises(UserError, match="no head found"):
        registration.register_head(noise, template)


@pytest.mark.slow
def test_recovers_an_affine_applied_to_a_real_head(template, shared_data):
    """The header of the PDDL head is moved; its own registration is the reference."""
    from scipy.spatial.transform import Rotation

    from mri_jax.volumes.scans import read_scan

    scan = read_scan(shared_data / "heads" / "pddl_t1w_2mm.nii.gz")
    still = registration.register_head(Image(scan.data, scan.affine), template).matrix
    for angles, shift, scale in CASES:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
        matrix[:3, 3] = shift
        fit = registration.register_head(Image(scan.data, matrix @ scan.affine), template)
        assert distance(template, fit.matrix, matrix @ still) < 1.0
