"""BatchNorm's statistics estimated anew, against NumPy."""

import jax
import numpy as np
import pytest

from mri_jax.keys import random_key
from mri_jax.models.cnn import fresh_variables
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs
from mri_jax.training.statistics import reestimated
from mri_jax.training.step import StepSettings
from mri_jax.training.wave import Wave
from tests.networks import apply
from tests.training.small import LABELS, SHAPE, SPEC, volumes


@pytest.fixture(scope="module")
def programs():
    return Programs(Wave((jax.local_devices()[0],), forms="xla"))


def statistics(programs, rows):
    variables = jax.device_get(fresh_variables(SPEC, SHAPE, random_key(7, "init")))
    feed = OnDevice(volumes(), range(len(LABELS)))
    stacked = programs.wave.stack([variables])
    (found,) = reestimated(StepSettings(SPEC), stacked, [np.array(rows)], feed, programs)
    return variables, found


@pytest.mark.parametrize("scans", [8, 13])
def test_those_of_the_first_layer_are_of_all_scans_whatever_the_batches(programs, scans):
    variables, found = statistics(programs, range(3, 3 + scans))
    _, kept = apply(SPEC, variables, volumes()[3 : 3 + scans], intermediates=True)
    z = np.asarray(kept["conv1/pre_activation"], float)
    np.testing.assert_allclose(found["bn1"]["mean"], z.mean((0, 1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found["bn1"]["var"], z.var((0, 1, 2, 3)), rtol=1e-5)
    assert found["bn1"]["count"] == (1 if scans == 8 else 2)
    assert set(found) == {"bn1", "bn2"}
    assert found["bn2"]["var"].dtype == np.float32


def test_a_network_with_its_own_batchs_statistics_normalises_every_layer(programs):
    variables, found = statistics(programs, range(8))
    adapted = {**variables, "batch_stats": found}
    _, kept = apply(SPEC, adapted, volumes()[:8], intermediates=True)
    z = np.asarray(kept["conv2/pre_activation"], float)
    np.testing.assert_allclose(found["bn2"]["mean"], z.mean((0, 1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found["bn2"]["var"], z.var((0, 1, 2, 3)), rtol=1e-4)
