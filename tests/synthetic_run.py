"""Results folders made of drawn scores: the same files as a study writes, truth known.

A subject has a latent severity; a network sees it through noise of its own, noise it shares with
the other networks of its fold, and a cohort-wide shift of its scores.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax import files, results
from mri_jax.evaluation.metrics import ensemble, metrics_table
from mri_jax.evaluation.predictions import COLUMNS, probability_of

COHORTS = {"ADNI1": (41, 46), "ADNI2": (32, 41), "AIBL": (11, 40)}
MCI = {"ADNI2": (18, 50)}
FOLDS = 5


def subjects(cohort, counts, positive="AD", negative="CN"):
    m, n = counts
    return pd.DataFrame(
        {
            "subject_id": [f"{cohort}_{positive[0]}{i:04d}" for i in range(m)]
            + [f"{cohort}_{negative[0]}{i:04d}" for i in range(n)],
            "session_id": "m00",
            "cohort": cohort,
            "diagnosis": [positive] * m + [negative] * n,
            "label": [1] * m + [0] * n,
        }
    )


def scored(frame, run, stage, repeat, fold, split, quality, shift, rng, severity):
    """Predictions of one network on the rows of ``frame``."""
    difference = (
        quality * (severity.loc[frame["subject_id"]].to_numpy() + rng.normal(size=len(frame)))
        + shift
    )
    logits = np.stack([-difference / 2, difference / 2], axis=1)
    return frame.assign(
        run=run,
        stage=stage,
        repeat=repeat,
        fold=fold,
        split=split,
        logit_0=logits[:, 0],
        logit_1=logits[:, 1],
        probability=probability_of(logits),
    )[list(COLUMNS)]


def fifth(frame, repeat, seed=3):
    """Subjects of one fifth of a cohort."""
    order = np.random.default_rng(seed).permutation(len(frame))
    return frame.iloc[np.sort(order[repeat::5])]


def make_predictions(
    runs=("cnn5-w1",), stages=(), repeats=1, cohorts=COHORTS, seed=5, mci=False, inner=False
):
    """A predictions table and the cohort table it speaks of."""
    rng = np.random.default_rng(seed)
    frames = {name: subjects(name, counts) for name, counts in cohorts.items()}
    if mci:
        frames["ADNI2"] = subjects("ADNI2", MCI["ADNI2"], "pMCI", "sMCI")
        frames.pop("AIBL", None)
    people = pd.concat(frames.values(), ignore_index=True)
    latent = rng.normal(size=len(people)) + 1.3 * people["label"]
    severity = pd.Series(latent.to_numpy(), index=people["subject_id"])
    source = frames["ADNI1"]
    parts = []
    for place, run in enumerate((*runs, "baseline-age-sex", "baseline-voxels")):
        quality = 0.4 if run == "baseline-age-sex" else 0.9 + 0.1 * place
        noisy = severity * (0.2 if run == "baseline-age-sex" else 0.7)
        for fold in range(FOLDS):
            held = source.iloc[fold::FOLDS]
            parts.append(
                scored(held, run, "source", 0, fold, "validation", quality, 0.0, rng, noisy)
            )
            for name, frame in frames.items():
                if name == "ADNI1":
                    continue
                tuned_here = stages and name == "ADNI2"
                inside = fifth(frame, 0)["subject_id"] if tuned_here else []
                for split, rows in (
                    ("adaptation", frame[frame["subject_id"].isin(inside)]),
                    ("test", frame[~frame["subject_id"].isin(inside)]),
                ):
                    if len(rows):
                        parts.append(
                            scored(rows, run, "source", 0, fold, split, quality, 0.8, rng, noisy)
                        )
    for run in runs:
        for stage in stages:
            for repeat in range(repeats):
                for fold in range(FOLDS):
                    parts += tuned_parts(frames, run, stage, repeat, fold, rng, severity, inner)
    predictions = pd.concat(parts, ignore_index=True)
    people = people.assign(
        age=rng.uniform(60, 88, len(people)).round(1),
        sex=rng.choice(["F", "M"], len(people)),
        image="",
    )
    return predictions, people


def tuned_parts(frames, run, stage, repeat, fold, rng, severity, inner):
    inside = fifth(frames["ADNI2"], repeat)
    args = (run, stage, repeat, fold)
    parts = [scored(inside, *args, "adaptation", 2.0, 0.1, rng, severity)]
    if inner:
        parts.append(scored(inside, *args, "inner", 1.0, 0.1, rng, severity * 0.7))
    for name, frame in frames.items():
        rows = frame
        if name == "ADNI2":
            rows = frame[~frame["subject_id"].isin(inside["subject_id"])]
        split = "validation" if name == "ADNI1" else "test"
        rows = rows.iloc[fold::FOLDS] if name == "ADNI1" else rows
        parts.append(scored(rows, *args, split, 1.1, 0.1, rng, severity * 0.8))
    return parts


def history(predictions, rng):
    networks = predictions[["run", "stage", "repeat", "fold"]].drop_duplicates()
    networks = networks[~networks["run"].str.startswith("baseline")]
    lines = []
    for row in networks.to_dict("records"):
        epochs = 12 + int(rng.integers(0, 6))
        loss = 0.7 * np.exp(-np.arange(epochs) / 6) + 0.05 * rng.uniform(size=epochs)
        best = int(np.argmin(loss))
        for epoch in range(epochs):
            lines.append(
                row
                | {
                    "epoch": epoch + 1,
                    "train_loss": float(loss[epoch] * 0.9),
                    "validation_loss": float(loss[epoch]),
                    "best": epoch == best,
                }
            )
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_run(folder: Path, simulated=True, arrays=False, name="finetune_high", **settings):
    """Write a whole results folder; returns its path."""
    rng = np.random.default_rng(11)
    predictions, people = make_predictions(**settings)
    folder.mkdir(parents=True, exist_ok=True)
    networks = predictions[["run", "stage", "repeat", "fold"]].drop_duplicates()
    plan = [
        row
        | {
            "kind": "train" if row["stage"] == "source" else "tune",
            "folder": f"stages/{index:04d}",
            "fingerprint": f"{index:064x}",
            "trainable_parameters": 1000 * (index + 1),
        }
        for index, row in enumerate(networks.to_dict("records"))
    ]
    files.write_json(folder / results.PLAN, {"stages": plan})
    files.write_json(
        folder / results.CONFIG,
        {
            "name": name,
            "preset": "demo",
            "seed": 0,
            "model": {"width": 1.0},
            "data": {"grid": "demo"},
        },
    )
    files.write_json(
        folder / results.PROVENANCE,
        {
            "simulated": simulated,
            "versions": {"jax": "0.10.2"},
            "git": "0" * 40,
            "devices": ["cpu"],
        },
    )
    files.write_csv(folder / results.COHORT, people)
    files.write_csv(folder / results.PREDICTIONS, predictions)
    files.write_csv(
        folder / results.METRICS, metrics_table(pd.concat([predictions, ensemble(predictions)]))
    )
    files.write_text(folder / results.HISTORY, history(predictions, rng))
    if arrays:
        write_arrays(folder, networks, rng)
    return folder


def write_arrays(folder, networks, rng):
    filters, maps = {}, {"scan": np.array("ADNI2_A0003 m00")}
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 28, 22)], indexing="ij"))
    ball = (axes**2).sum(axis=0) < 0.8
    for row in networks.to_dict("records"):
        if row["run"].startswith("baseline"):
            continue
        key = f"{row['run']}/{row['stage']}/fold{row['fold']}/conv1"
        filters[key] = rng.normal(size=(3, 3, 3, 1, 8)).astype(np.float32)
        if row["fold"] == 0:
            noise = rng.normal(size=(24, 28, 22, 8))
            maps[key] = (ball[..., None] * (1 + 0.3 * noise)).astype(np.float32)
    np.savez(folder / results.FILTERS, **filters)
    np.savez(folder / results.FEATURE_MAPS, **maps)
