"""How long must source networks of small cohorts train? Chosen on held-out source scans alone.

    taskset -c 0 python benchmarks/stopping.py --out trained.jsonl   # about 25 minutes on one core
    python benchmarks/stopping.py --out trained.jsonl --minutes 0    # the table again

From one simulated source cohort (SIMULATED; no target is made) cohorts of 20, 40, 80 and 200 scans
are drawn, and the network of preset ``demo`` is trained on four fifths of each for a fixed number
of steps, and for as many epochs as the preset allows at least. The last fifth stops it, as in a
study. Early stopping reads nothing but that fifth's losses, so every rule is tried afterwards on
the same trainings. What a rule chose is judged on 60 other scans of the source, which no training
saw: each epoch that was the best so far is scored.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from configs import baseline
from mri_jax.evaluation.metrics import auc
from mri_jax.keys import random_key
from mri_jax.models.cnn import fresh_variables
from mri_jax.planning.fits import source_fit
from mri_jax.settings.study import Study
from mri_jax.showing.forms import grid
from mri_jax.showing.table import from_rows
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.training import inference, loop
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs
from mri_jax.training.wave import Wave
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.stream import Reader

SIZES = (20, 40, 80, 200)
STEPS = 720
FRESH = 30
"""Scans a class on which the chosen networks are judged."""
POOL = max(SIZES) // 2 + FRESH + 10
SEED = 7


class Rule(NamedTuple):
    """A rule of stopping: the larger of the limits in epochs and in steps holds."""

    min_steps: int
    patience_steps: int
    min_epochs: int = 12
    patience: int = 5
    max_epochs: int = 20
    min_delta: float = 1e-3

    def stop(self, losses: Sequence[float], steps: int) -> int:
        """The epoch (from 1) after which training ends, with ``steps`` in an epoch."""
        least = max(self.min_epochs, math.ceil(self.min_steps / steps))
        patience = max(self.patience, math.ceil(self.patience_steps / steps))
        reference, waited = math.inf, 0
        for epoch, loss in enumerate(losses, start=1):
            waited, reference = (0, loss) if loss < reference - self.min_delta else (
                waited + 1, reference,
            )  # fmt: skip
            if epoch >= max(self.max_epochs, least) or (epoch >= least and waited >= patience):
                return epoch
        return len(losses)


RULES = tuple(
    Rule(least, patience)
    for least, patience in (
        (0, 0), (360, 240), (480, 240), (576, 240), (720, 240)
    )
)  # fmt: skip


class Unsaved:
    """Takes the place of saved states, which a benchmark does without."""

    def save(self, state: Any) -> None:
        """Forget it."""


def scans(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, X, Y, Z, 1) normalised volumes of the simulated source, and their labels (1: AD)."""
    settings = SimulationSettings("demo", SEED, (CohortRequest("ADNI1", {"AD": POOL, "CN": POOL}),))
    made = simulate(settings, folder / f"simulated-{settings.fingerprint[:16]}", workers=1)
    store = VolumeStore(made.store_path)
    study = Study.parse(baseline.get_config("demo").to_dict())
    keys = tuple(store.index.index)
    labels = {row["subject_id"]: row["diagnosis"] == "AD" for row in _rows(made.table_path)}
    volumes = Reader(store, keys, study.data.intensities).load(1)
    return volumes, np.array([labels[subject] for subject, _ in keys], np.int32)


def _rows(path: Path) -> list[dict[str, str]]:
    import pandas as pd

    return pd.read_csv(path, dtype=str).to_dict("records")


def draw(labels: np.ndarray, size: int, replicate: int) -> tuple[np.ndarray, ...]:
    """Rows to train on, to stop by, and to judge by; every class alike in each."""
    found: list[list[int]] = [[], [], []]
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        found[2] += rows[:FRESH].tolist()
        rng = np.random.default_rng([SEED, size, replicate, label])
        chosen = rng.permutation(rows[FRESH:])[: size // 2]
        found[1] += chosen[: size // 10].tolist()
        found[0] += chosen[size // 10 :].tolist()
    return tuple(np.array(sorted(rows)) for rows in found)


def train(volumes: np.ndarray, labels: np.ndarray, size: int, replicate: int) -> dict[str, Any]:
    """One training: held-out losses of every epoch, and the judged scores of each best so far."""
    study = Study.parse(baseline.get_config("demo").to_dict())
    train_rows, held_out, fresh = draw(labels, size, replicate)
    fit = source_fit(study.runs[0], len(train_rows))
    steps = len(train_rows) // fit.batch
    epochs = max(math.ceil(STEPS / steps), RULES[0].max_epochs)

    def until(epoch: int) -> loop.FitSettings:
        length = dataclasses.replace(fit.stopping, min_epochs=epoch, max_epochs=epoch)
        return dataclasses.replace(fit, stopping=length)

    key = jax.numpy.asarray(random_key(SEED, "init", size, replicate))
    job = loop.Job(
        seed=SEED, purpose=(size, replicate),
        variables=jax.device_get(fresh_variables(fit.step.spec, volumes.shape[1:4], key)),
        train=train_rows, validation=held_out, labels=labels,
        weights=np.ones(len(labels), np.float32),
    )  # fmt: skip
    programs = Programs(Wave(tuple(jax.local_devices()[:1])))
    feed = OnDevice(volumes, range(len(volumes)))
    state, losses, judged = loop.begin(until(epochs), job), [], {}
    started = time.perf_counter()
    for epoch in range(1, epochs + 1):
        training = loop.Training(job, state, Unsaved())
        (state,) = loop.fit(until(epoch), [training], feed, programs, loop.Control())
        losses.append(float(state.history[epoch - 1][1]))
        if int(state.stopping.best_epoch) == epoch:
            stacked = programs.wave.stack([state.best])
            (logits,) = inference.predict(fit.step, stacked, [fresh], feed, programs)
            score = logits[:, 1].astype(float) - logits[:, 0]
            judged[epoch] = {
                "loss": inference.cross_entropy(logits, labels[fresh]),
                "auc": auc(labels[fresh], score),
            }
    seconds = time.perf_counter() - started
    about = {"size": size, "replicate": replicate, "steps": steps, "seconds": round(seconds, 1)}
    return {**about, "losses": losses, "judged": judged}


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: what each rule would have chosen, by size."""
    header = ("scans", "networks", "rule (min, patience)", "epochs", "steps", "held-out loss",
              "fresh loss", "fresh AUC", "fresh loss above 0.658")  # fmt: skip
    rows = []
    for size in SIZES:
        group = [r for r in records if r["size"] == size]
        for rule in RULES if group else ():
            chosen = list(_chosen(group, rule))
            means = [np.mean([c[k] for c in chosen]) for k in range(5)]
            name = "epochs alone" if not rule.min_steps else (
                f"{rule.min_steps}, {rule.patience_steps} steps"
            )  # fmt: skip
            stuck = sum(c[3] > 0.658 for c in chosen)
            shown = (f"{means[0]:.0f}", f"{means[1]:.0f}", f"{means[2]:.3f}", f"{means[3]:.3f}")
            rows.append((size, len(group), name, *shown, f"{100 * means[4]:.1f}", stuck))
    return grid(from_rows("stopping", "Rules that stop training", header, rows))


def _chosen(group: Sequence[dict[str, Any]], rule: Rule) -> Iterator[tuple[float, ...]]:
    for record in group:
        stop = rule.stop(record["losses"], record["steps"])
        best = int(np.argmin(record["losses"][:stop])) + 1
        judged = record["judged"][str(best)]
        found = (stop, stop * record["steps"], record["losses"][best - 1])
        yield *found, judged["loss"], judged["auc"]


def main() -> None:
    """Train until the minutes are over, then print the table of all trainings in the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="trainings, a JSON line each")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--replicates", type=int, default=5, help="cohorts of each size")
    asked = parser.parse_args()
    deadline = time.monotonic() + 60 * asked.minutes
    done = [json.loads(line) for line in asked.out.read_text().splitlines()] if (
        asked.out.exists()
    ) else []  # fmt: skip
    known = {(r["size"], r["replicate"]) for r in done}
    order = (40, 20, 80, 200)
    wanted = [(s, r) for r in range(asked.replicates) for s in order if (s, r) not in known]
    if wanted and asked.minutes:
        volumes, labels = scans(asked.out.parent)
        for size, replicate in wanted:
            if time.monotonic() > deadline:
                break
            record = json.loads(json.dumps(train(volumes, labels, size, replicate)))
            done.append(record)
            with asked.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            told = {k: record[k] for k in ("size", "replicate", "steps", "seconds")}
            print(told, f"best {min(record['losses']):.3f}", flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
