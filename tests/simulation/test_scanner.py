import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mri_jax.simulation.people import scan_named
from mri_jax.simulation.scanner import (
    BIAS_KNOTS,
    Scanner,
    acquire,
    blurred,
    scanner_of,
    smooth_field,
)
from mri_jax.simulation.settings import SimulationSettings, default_cohorts

SETTINGS = SimulationSettings("demo", 9, default_cohorts(("AD", "CN")))
SHAPE = (30, 34, 28)


def plain(**changes):
    fields = {
        "contrast": jnp.array([0.2, 0.6, 0.9]),
        "bias": jnp.zeros(BIAS_KNOTS),
        "noise": jnp.array(0.0),
        "resolution": jnp.array([0.01, 0.01, 0.01]),
        "gamma": jnp.array(1.0),
        "gain": jnp.array(1.0),
    }
    return Scanner(**{name: jnp.asarray(v) for name, v in {**fields, **changes}.items()})


def test_noise_is_rician_and_averages_over_a_larger_voxel():
    noisy = plain(noise=0.08)
    air = acquire(jnp.zeros(SHAPE), noisy, (1.0, 1.0, 1.0), jax.random.key(1))
    assert float(air.mean()) == pytest.approx(0.08 * np.sqrt(np.pi / 2), rel=0.02)
    for spacing in (1.0, 2.0):
        tissue = acquire(jnp.full(SHAPE, 0.9), noisy, (spacing,) * 3, jax.random.key(2))
        assert float(tissue.std()) == pytest.approx(0.08 / spacing**1.5, rel=0.03)


def test_intensity_curve_and_gain():
    image = acquire(
        jnp.full(SHAPE, 0.5), plain(gamma=2.0, gain=300.0), (1.0,) * 3, jax.random.key(0)
    )
    assert np.allclose(image, 75.0, rtol=1e-5)


def test_the_point_spread_is_that_asked_for_on_each_axis():
    point = np.zeros(SHAPE, np.float32)
    point[15, 17, 14] = 1.0
    deviations, spacing = (2.0, 3.0, 1.5), (1.0, 1.5, 1.2)
    spread = np.asarray(blurred(jnp.asarray(point), jnp.array(deviations), spacing))
    assert spread.sum() == pytest.approx(1.0, rel=1e-3)
    for axis, centre in enumerate((15, 17, 14)):
        profile = spread.sum(tuple(a for a in range(3) if a != axis))
        offset = spacing[axis] * (np.arange(SHAPE[axis]) - centre)
        assert np.sqrt((profile * offset**2).sum()) == pytest.approx(deviations[axis], rel=0.03)


def test_random_fields_have_unit_variance_and_are_smooth():
    knots = jax.random.normal(jax.random.key(3), (6, 7, 6, 400))
    field = np.asarray(smooth_field(knots, SHAPE))
    assert field.shape == (*SHAPE, 400)
    assert field.std() == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.diff(field, axis=0)).max() < 1.0


def test_sites_differ_and_scans_of_a_site_differ_little():
    scans = {c: [scanner_of(scan_named(SETTINGS, c, "CN", i)) for i in range(30)]
             for c in ("ADNI1", "ADNI3")}  # fmt: skip
    gain = {c: np.array([float(s.gain) for s in made]) for c, made in scans.items()}
    assert gain["ADNI3"].min() > 1.5 * gain["ADNI1"].max()
    within = np.std([np.log(np.asarray(s.contrast)) for s in scans["ADNI1"]], axis=0)
    assert (within > 0.005).all()
    assert (within < 0.03).all()
    again = scanner_of(scan_named(SETTINGS, "ADNI1", "CN", 0))
    for field in dataclasses.fields(Scanner):
        first, second = getattr(scans["ADNI1"][0], field.name), getattr(again, field.name)
        assert np.array_equal(first, second)
