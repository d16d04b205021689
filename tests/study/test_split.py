"""A whole study whose batches are split over two devices, against the same study on one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mri_jax.runs import results
from mri_jax.study.dry_run import print_plan
from mri_jax.study.run import run
from mri_jax.study.running import Running
from mri_jax.training.wave import Wave
from tests.conftest import ROOT
from tests.study.test_feeds import study_of
from tests.tiny import make_cohorts


def run_both(folder: str) -> None:
    """In a process of two devices: the study on one, split and streamed, and the latter's plan."""
    place, devices = Path(folder), tuple(jax.local_devices())
    cohorts = make_cohorts(place / "cohorts", subjects=6, cohorts=("ADNI1", "ADNI2"))
    one, split = Wave(devices[:1], forms="xla"), Wave(devices, 2, "xla")
    for name, wave, placement in (("one", one, "device"), ("split", split, "stream")):
        settings = study_of(cohorts, data__placement=placement, baselines__age_sex=False)
        run(settings, place / name, place / f"{name}-stages", Running(wave, report=False))
    print_plan(settings, place / "plan", place / "plan-stages", Running(split))


@pytest.mark.slow
def test_a_study_of_split_batches_gives_the_predictions_of_one_device(tmp_path):
    code = "import sys; from tests.study.test_split import run_both; run_both(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, cwd=ROOT,
        capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The plan measured the features of the frozen prefix on two devices.
    assert "in all about" in done.stdout
    one, split = (
        results.load(tmp_path / name).predictions.set_index(
            ["run", "stage", "fold", "repeat", "cohort", "subject_id", "split"]
        )["probability"]
        for name in ("one", "split")
    )
    assert {"source", "tuned-high"} <= set(one.index.get_level_values("stage"))
    assert one.std() > 1e-3
    np.testing.assert_allclose(split.loc[one.index], one, atol=1e-5)
