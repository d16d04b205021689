"""Does the same network, trained by PyTorch, learn the same? (SIMULATED cohorts.)

    python -m benchmarks.twin --out twin.jsonl              # about 15 minutes on two cores
    python -m benchmarks.twin --out twin.jsonl --pairs 0    # the table again

Pairs of networks of preset ``demo`` start from equal weights and see equal batches in equal order;
dropout is drawn by each library. Both are trained for a fixed number of epochs on four of five
folds of a simulated source cohort, and scored on a simulated target cohort. That the losses of
equal steps agree without dropout is a test (`tests/training/test_twin.py`).
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from etils import epath

from benchmarks.contenders import torch_network
from benchmarks.stopping import Unsaved
from configs import baseline
from mri_jax.evaluation.metrics import auc
from mri_jax.keys import random_key
from mri_jax.models import CNNSpec
from mri_jax.models.cnn import fresh_variables
from mri_jax.planning.fits import source_fit
from mri_jax.settings.study import Study
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.training import inference, loop
from mri_jax.training.devices import start
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs
from mri_jax.training.wave import Wave
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.stream import Reader

PER_CLASS = 60
EPOCHS = 20
SEED = 11


def copy_weights(variables: Any, network: torch.nn.Sequential, spec: CNNSpec) -> None:
    """Give a network of PyTorch the parameters of one of ours."""
    parameters = jax.tree.map(np.asarray, variables["params"])
    convs = [m for m in network if isinstance(m, torch.nn.Conv3d)]
    norms = [m for m in network if isinstance(m, torch.nn.BatchNorm3d)]
    linears = [m for m in network if isinstance(m, torch.nn.Linear)]

    def put(tensor: torch.Tensor, values: np.ndarray) -> None:
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.array(values)))

    for i, (conv, norm) in enumerate(zip(convs, norms, strict=True), start=1):
        put(conv.weight, parameters[f"conv{i}"]["kernel"].transpose(4, 3, 0, 1, 2))
        put(norm.weight, parameters[f"bn{i}"]["scale"])
        put(norm.bias, parameters[f"bn{i}"]["bias"])
        norm.eps = spec.epsilon
    for i, linear in enumerate(linears, start=1):
        kernel = parameters[f"fc{i}"]["kernel"]
        if i == 1:  # flattened (X, Y, Z, C) here, (C, X, Y, Z) there
            channels = spec.conv_filters[-1]
            kernel = kernel.reshape(-1, channels, kernel.shape[-1]).swapaxes(0, 1)
            kernel = kernel.reshape(-1, kernel.shape[-1])
        put(linear.weight, kernel.T)
        put(linear.bias, parameters[f"fc{i}"]["bias"])


def losses(
    network: torch.nn.Sequential, rate: float, batches: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Iterator[float]:
    """The loss of each step of Adam over batches (N, X, Y, Z, 1) with their labels."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    loss_of = torch.nn.CrossEntropyLoss()
    for volumes, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        x = torch.from_numpy(np.moveaxis(volumes, -1, 1).copy())
        loss = loss_of(network(x), torch.from_numpy(labels.astype(np.int64)))
        loss.backward()
        optimizer.step()
        yield loss.item()


def cohorts(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised volumes (N, X, Y, Z, 1), labels (1: AD), and whether a scan is of the target."""
    counts = {"AD": PER_CLASS, "CN": PER_CLASS}
    requests = (CohortRequest("ADNI1", counts), CohortRequest("AIBL", counts))
    settings = SimulationSettings("demo", SEED, requests)
    made = simulate(settings, folder / f"simulated-{settings.fingerprint[:16]}", workers=1)
    import pandas as pd

    rows = pd.read_csv(made.table_path, dtype=str).set_index("subject_id")
    store = VolumeStore(made.store_path)
    keys = tuple(store.index.index)
    study = Study.parse(baseline.get_config("demo").to_dict())
    volumes = Reader(store, keys, study.data.intensities).load(1)
    listed = rows.loc[[subject for subject, _ in keys]]
    return (
        volumes,
        (listed["diagnosis"] == "AD").to_numpy().astype(np.int32),
        (listed["cohort"] == "AIBL").to_numpy(),
    )


def pair(
    wave: Wave, volumes: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int
) -> dict[str, Any]:
    """Target AUC of both networks of one pair."""
    study = Study.parse(baseline.get_config("demo").to_dict())
    folds = np.concatenate([np.flatnonzero((labels == c) & ~target) for c in (0, 1)])
    train = np.sort(folds[np.arange(len(folds)) % 5 != seed % 5])
    fit = source_fit(study.runs[0], len(train))
    length = dataclasses.replace(fit.stopping, min_epochs=EPOCHS, max_epochs=EPOCHS)
    fit = dataclasses.replace(fit, stopping=length)
    spec, tested = fit.step.spec, np.flatnonzero(target)
    key = jax.numpy.asarray(random_key(SEED, "init", seed))
    job = loop.Job(
        seed=SEED, purpose=("twin", seed),
        variables=jax.device_get(fresh_variables(spec, volumes.shape[1:4], key)),
        train=train, validation=train[:0], labels=labels, weights=np.ones(len(labels), np.float32),
    )  # fmt: skip
    programs = Programs(wave)
    feed = OnDevice(volumes, range(len(volumes)))
    training = loop.Training(job, loop.begin(fit, job), Unsaved())
    (state,) = loop.fit(fit, [training], feed, programs, loop.Control())
    stacked = programs.wave.stack([state.best])
    (logits,) = inference.predict(fit.step, stacked, [tested], feed, programs)
    ours = auc(labels[tested], logits[:, 1].astype(float) - logits[:, 0])

    torch.manual_seed(seed)
    network = torch_network(spec, volumes.shape[1:4])
    copy_weights(job.variables, network, spec)
    network.train()
    orders = (rows for e in range(1, EPOCHS + 1) for rows in loop.epoch_order(job, e, fit.batch))
    batches = ((volumes[rows], labels[rows]) for rows in orders)
    for _ in losses(network, fit.step.optimizer.learning_rate, batches):
        pass
    network.eval()
    with torch.inference_mode():
        each = [
            network(torch.from_numpy(np.moveaxis(volumes[i : i + 1], -1, 1).copy())) for i in tested
        ]
    found = torch.cat(each).numpy().astype(float)
    return {"seed": seed, "ours": ours, "torch": auc(labels[tested], found[:, 1] - found[:, 0])}


def table(records: Sequence[dict[str, Any]]) -> str:
    """A line a pair, the means, and the standard error of the difference."""
    ours, theirs = (np.array([r[name] for r in records]) for name in ("ours", "torch"))
    error = (ours - theirs).std(ddof=1) / len(records) ** 0.5 if len(records) > 1 else float("nan")
    lines = [f"pair {r['seed']}: ours {r['ours']:.3f}, PyTorch {r['torch']:.3f}" for r in records]
    lines.append(f"mean: ours {ours.mean():.3f}, PyTorch {theirs.mean():.3f} (SIMULATED)")
    return "\n".join((*lines, f"standard error of their difference: {error:.3f}"))


def main() -> None:
    """Train the pairs that are not in the file, then print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="pairs, a JSON line each")
    parser.add_argument("--pairs", type=int, default=10)
    asked = parser.parse_args()
    known = asked.out.read_text().splitlines() if asked.out.exists() else []
    done = [json.loads(line) for line in known]
    left = [seed for seed in range(asked.pairs) if seed not in {r["seed"] for r in done}]
    if left:
        wave = start(epath.Path(asked.out.parent)).of(1)
        volumes, labels, target = cohorts(asked.out.parent)
    for seed in left:
        done.append(pair(wave, volumes, labels, target, seed))
        with asked.out.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(done[-1], flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
