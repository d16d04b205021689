"""Five folds on five devices (forced on the host) against one device, as real processes."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mri_jax.training.checkpoints import TrainingCheckpoints
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Wave
from mri_jax.training.loop import fit, predict, resume, with_step
from mri_jax.training.step import OptimizerSettings
from tests.conftest import ROOT
from tests.training.small import LABELS, job, settings, volumes


def train_all(folder: str, out: str) -> None:
    """Train five folds in waves of the devices at hand; save epochs and logits of all scans."""
    devices, feed, how = jax.local_devices(), OnDevice(volumes()), settings(max_epochs=5)
    logits, epochs = [], []
    for start in range(0, 5, len(devices)):
        jobs = [job(fold) for fold in range(start, min(start + len(devices), 5))]
        wave = Wave(tuple(devices[: len(jobs)]))
        places = [TrainingCheckpoints(f"{folder}/{len(devices)}/{one.name}") for one in jobs]
        states = [resume(how, one, place) for one, place in zip(jobs, places, strict=True)]
        ended = fit(how, jobs, states, places, feed, wave, lambda _: None, lambda: False)
        rows = [np.arange(len(LABELS))] * len(jobs)
        logits += predict(how, wave.stack([e.best for e in ended]), rows, feed, wave)
        epochs += [(int(e.stopping.epochs), int(e.stopping.best_epoch)) for e in ended]
    np.savez(out, logits=np.stack(logits), epochs=np.array(epochs))


def run(tmp_path, devices: int):
    code = "import sys; from tests.training.test_folds import train_all; train_all(*sys.argv[1:])"
    flags = f"--xla_force_host_platform_device_count={devices}"
    out = tmp_path / f"{devices}.npz"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(out)],
        env={**os.environ, "XLA_FLAGS": flags}, cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    return np.load(out)


def test_five_devices_give_the_predictions_of_one(tmp_path):
    one, five = run(tmp_path, 1), run(tmp_path, 5)
    np.testing.assert_array_equal(one["epochs"], five["epochs"])
    # Folds stop at different epochs, so a stopped fold kept its best state while others went on.
    assert len(set(one["epochs"][:, 0])) > 1
    assert np.abs(one["logits"]).max() > 0.1
    np.testing.assert_allclose(one["logits"], five["logits"], atol=1e-5)


def test_a_nan_is_found_where_it_arises(tmp_path):
    how = with_step(settings(), optimizer=OptimizerSettings(learning_rate=1e30))
    one, wave = job(0), Wave(tuple(jax.local_devices()[:1]))
    with TrainingCheckpoints(tmp_path) as place, jax.debug_nans(True):
        states = [resume(how, one, place)]
        feed = OnDevice(volumes())
        with pytest.raises(FloatingPointError, match="invalid value"):
            fit(how, [one], states, [place], feed, wave, lambda _: None, lambda: False)
