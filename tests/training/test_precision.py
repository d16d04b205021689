"""Training in bfloat16 follows training in float32, on a simulated cohort."""

import numpy as np
import pytest

from benchmarks import precision

pytestmark = pytest.mark.slow


def test_200_steps_in_bfloat16_have_the_losses_of_float32(tmp_path):
    found = precision.scans(tmp_path, each_class=20)
    plain, narrow, other = (
        precision.train(found, dtype, seed=1, noise=noise, held_out=5)
        for dtype, noise in (("float32", 1), ("bfloat16", 1), ("float32", 101))
    )
    assert len(plain.losses) == 200
    assert 0 < np.abs(plain.losses[0] - narrow.losses[0]) < 0.02
    apart, by_chance = (
        np.abs(precision.windows(each.losses) - precision.windows(plain.losses)).mean()
        for each in (narrow, other)
    )
    assert apart < 0.03
    assert apart < 1.5 * by_chance
    assert abs(narrow.held_out - plain.held_out) < 0.05
