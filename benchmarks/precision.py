"""Does a network learn the same in bfloat16 as in float32? Loss curves of both, on SIMULATED scans.

    python -m benchmarks.precision --seeds 3        # about 15 minutes on two cores

CNN-5 is trained for 200 steps as preset ``demo`` does, from the same parameters, with the same
order of scans and the same dropout, in both types and by the same form of its conv layers. XLA's
forms are taken, which round to bfloat16 where GPUs and TPUs do; the native kernels would not. For
scale, float32 is trained once more with another dropout and order.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from configs import baseline
from mri_jax.keys import random_key
from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.models.cnn import fresh_variables
from mri_jax.settings.study import Study
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.training.inference import cross_entropy
from mri_jax.training.state import Batch
from mri_jax.training.step import OptimizerSettings, StepSettings, init_state, train_step
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.stream import Reader

STEPS, BATCH, WINDOW = 200, 2, 50
EACH_CLASS, HELD_OUT = 30, 10
"""Scans of a class, and how many of them are not trained on."""


class Scans(NamedTuple):
    """Normalised volumes, (N, X, Y, Z, 1), and their labels, (N,)."""

    volumes: np.ndarray
    labels: np.ndarray


class Trained(NamedTuple):
    """What one training gave.

    Attributes:
      losses: (steps,) of the training.
      held_out: Mean cross-entropy on the held-out scans, at the end.
    """

    losses: np.ndarray
    held_out: float


def scans(folder: Path, each_class: int = EACH_CLASS) -> Scans:
    """Returns simulated scans of one cohort, the classes in turns."""
    counts = {"AD": each_class, "CN": each_class}
    settings = SimulationSettings("demo", 7, (CohortRequest("ADNI1", counts),))
    made = simulate(settings, folder / "simulated", workers=1)
    study = Study.parse(baseline.get_config("demo").to_dict())
    table = pd.read_csv(made.table_path, dtype=str)
    of_class = [table[table["diagnosis"] == name] for name in ("CN", "AD")]
    keys = tuple(
        (part["subject_id"].iloc[i], part["session_id"].iloc[i])
        for i in range(each_class)
        for part in of_class
    )
    volumes = Reader(VolumeStore(made.store_path), keys, study.data.intensities).load(1)
    return Scans(volumes, np.tile(np.array([0, 1], np.int32), each_class))


def train(found: Scans, dtype: str, seed: int, noise: int, held_out: int = HELD_OUT) -> Trained:
    """Returns the losses of a training in a type.

    Args:
      found: The scans; the last ones are held out.
      dtype: Of the activations.
      seed: Of the parameters.
      noise: Of dropout and the order of scans.
      held_out: Scans of a class that are not trained on.
    """
    spec = CNNSpec.preset("cnn5", dtype=dtype)
    settings = StepSettings(spec, OptimizerSettings(3e-4))
    key = jax.numpy.asarray(random_key(seed, "init"))
    variables = fresh_variables(spec, found.volumes.shape[1:4], key)
    state = init_state(settings, variables, random_key(noise, "dropout"))
    step = jax.jit(partial(train_step, settings, forms=choice.XLA), donate_argnums=0)
    known = len(found.labels) - 2 * held_out
    rng, order, losses = np.random.default_rng(noise), np.empty(0, int), []
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = rng.permutation(known)
        rows, order = order[:BATCH], order[BATCH:]
        batch = Batch(found.volumes[rows], found.labels[rows], np.ones(BATCH, np.float32))
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    logits = jax.jit(partial(CNN(spec, forms=choice.XLA).apply, train=False))(
        {"params": state.params, "batch_stats": state.batch_stats}, found.volumes[known:]
    )
    return Trained(np.array(losses), cross_entropy(np.asarray(logits), found.labels[known:]))


def windows(losses: np.ndarray) -> np.ndarray:
    """Returns the mean loss of each `WINDOW` steps."""
    return losses.reshape(-1, WINDOW).mean(1)


def main() -> None:
    """Prints the curves of each seed, and how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = scans(Path(folder))
    print("| seed | type | mean loss of each 50 steps | held-out loss |\n|---|---|---|---|")
    apart: dict[str, list[float]] = {}
    for seed in range(asked.seeds):
        plain = train(found, "float32", seed, noise=seed)
        for name, dtype, noise in (
            ("bfloat16", "bfloat16", seed),
            ("float32, other dropout and order", "float32", 100 + seed),
        ):
            other = train(found, dtype, seed, noise)
            between = np.abs(windows(other.losses) - windows(plain.losses)).mean()
            apart.setdefault(name, []).append(between)
            if name == "bfloat16":
                _row(seed, "float32", plain)
            _row(seed, name, other)
    for name, each in apart.items():
        print(f"{name}: windows {np.mean(each):.3f} from float32's on the average")


def _row(seed: int, name: str, trained: Trained) -> None:
    curve = ", ".join(f"{loss:.3f}" for loss in windows(trained.losses))
    print(f"| {seed} | {name} | {curve} | {trained.held_out:.3f} |", flush=True)


if __name__ == "__main__":
    main()
