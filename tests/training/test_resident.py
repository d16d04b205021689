"""The peak of the process's memory, by Linux."""

import sys

import numpy as np
import pytest

from mri_jax.training import resident


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_holds_until_it_is_forgotten():
    resident.forget_peak()
    before = resident.peak()
    held = np.ones(32 << 20)
    assert resident.peak() - before > 240 << 20
    del held
    assert resident.peak() - before > 240 << 20
    resident.forget_peak()
    assert resident.peak() - before < 64 << 20
