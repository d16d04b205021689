"""Results folders made of drawn scores: the same files as a study writes, truth known.

A subject has a latent severity; a network sees it through noise of its own, noise it shares with
the other networks of its fold, and a cohort-wide shift of its scores.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax import files, seeding
from mri_jax.evaluation.baselines import LABELS
from mri_jax.evaluation.metrics import ensemble, metrics_table
from mri_jax.evaluation.predictions import NEEDED, probability_of
from mri_jax.evaluation.variants import CNN, Variant, completed
from mri_jax.runs import results
from tests import studies

COHORTS = {"ADNI1": (41, 46), "ADNI2": (32, 41), "AIBL": (11, 40)}
MCI = {"ADNI2": (18, 50)}
FOLDS = 5
SOURCES = ("CNN-AD1", "CNN-AD2", "CNN-AD2S", "CNN-MCI")
KNOWN = [
    *(Variant(CNN, "", d, w) for d in (5, 7, 10, 12) for w in (1.0, 2.0, 4.0, 5.0)),
    *(Variant(CNN, "", 5, 1.0, kind) for kind in ("se", "map-1-3")),
    *(Variant(CNN, source, 5, w) for source in SOURCES for w in (1.0, 4.0)),
    *(Variant(label, source) for source in ("", *SOURCES) for label in LABELS),
]
"""What the runs are that these folders may hold."""


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


def scored(frame, run, stage, repeat, fold, split, quality, shift, severity, seed):
    """Predictions of one network; a subject scores the same whoever else is asked for."""
    noise = [
        seeding.generator(seed, run, stage, repeat, fold, subject).normal()
        for subject in frame["subject_id"]
    ]
    difference = quality * (severity.loc[frame["subject_id"]].to_numpy() + noise) + shift
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
    )[list(NEEDED)]


def fifth(frame, repeat, seed=3):
    """Subjects of one fifth of a cohort."""
    order = np.random.default_rng(seed).permutation(len(frame))
    return frame.iloc[np.sort(order[repeat::5])]


def make_predictions(
    runs=("cnn5-w1",),
    stages=(),
    repeats=1,
    cohorts=COHORTS,
    seed=5,
    mci=False,
    inner=False,
    baselines=("baseline-age-sex", "baseline-voxels"),
):
    """A predictions table and the cohort table it speaks of."""
    frames = {name: subjects(name, counts) for name, counts in cohorts.items()}
    if mci:
        frames["ADNI2"] = subjects("ADNI2", MCI["ADNI2"], "pMCI", "sMCI")
        frames.pop("AIBL", None)
    people = pd.concat(frames.values(), ignore_index=True)
    drawn = [seeding.generator(seed, "severity", s).normal() for s in people["subject_id"]]
    severity = pd.Series(drawn, index=people["subject_id"]) + 1.3 * people["label"].to_numpy()
    parts = []
    for place, run in enumerate((*runs, *baselines)):
        plain = run.startswith("baseline-age-sex")
        quality = 0.4 if plain else 0.9 + 0.1 * place
        if run.startswith("baseline-voxels"):
            quality = 1.0
        seen = severity * (0.2 if plain else 0.7)
        for fold in range(FOLDS):
            network = (run, "source", 0, fold)
            held = frames["ADNI1"].iloc[fold::FOLDS]
            parts.append(scored(held, *network, "validation", quality, 0.0, seen, seed))
            for name, frame in frames.items():
                if name != "ADNI1":
                    inside = fifth(frame, 0)["subject_id"] if stages and name == "ADNI2" else []
                    taken = frame["subject_id"].isin(inside)
                    for split, rows in (("adaptation", frame[taken]), ("test", frame[~taken])):
                        parts.append(scored(rows, *network, split, quality, 0.8, seen, seed))
    for run in runs:
        for stage in stages:
            for repeat in range(repeats):
                for fold in range(FOLDS):
                    network = (run, stage, repeat, fold)
                    parts += tuned_parts(frames, network, severity, inner, seed)
    predictions = pd.concat([part for part in parts if len(part)], ignore_index=True)
    predictions = completed(predictions, KNOWN)
    random = np.random.default_rng(seed)
    people = people.assign(
        age=random.uniform(60, 88, len(people)).round(1),
        sex=random.choice(["F", "M"], len(people)),
        image="",
    )
    return predictions, people


def tuned_parts(frames, network, severity, inner, seed):
    inside = fifth(frames["ADNI2"], network[2])
    parts = [scored(inside, *network, "adaptation", 2.0, 0.1, severity, seed)]
    if inner:
        parts.append(scored(inside, *network, "inner", 1.0, 0.1, severity * 0.7, seed))
    for name, frame in frames.items():
        rows, split = frame, "test"
        if name == "ADNI2":
            rows = frame[~frame["subject_id"].isin(inside["subject_id"])]
        if name == "ADNI1":
            rows, split = frame.iloc[network[3] :: FOLDS], "validation"
        parts.append(scored(rows, *network, split, 1.1, 0.1, severity * 0.8, seed))
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


def left_out_predictions(sites, seed=5):
    """A predictions table of networks and a baseline of which every site is left out once."""
    frames = {name: subjects(name, counts) for name, counts in sites.items()}
    people = pd.concat(frames.values(), ignore_index=True)
    drawn = [seeding.generator(seed, "severity", s).normal() for s in people["subject_id"]]
    severity = pd.Series(drawn, index=people["subject_id"]) + 1.3 * people["label"].to_numpy()
    known = [
        replace(variant, left_out=site)
        for site in sites
        for variant in (Variant(CNN, "", 5, 1.0), Variant("baseline-hippocampus"))
    ]
    parts = []
    for variant in known:
        out = people["cohort"].eq(variant.left_out)
        for fold in range(2):
            network = (variant.name, "source", 0, fold)
            parts += [
                scored(people[out], *network, "test", 1.0, 0.2, severity, seed),
                scored(people[~out][fold::2], *network, "validation", 1.0, 0.0, severity, seed),
            ]
    people = people.assign(age=np.random.default_rng(seed).uniform(60, 88, len(people)), sex="F")
    return completed(pd.concat(parts, ignore_index=True), known), people


def write_run(
    folder: Path, simulated=True, arrays=False, name="finetune_high", tables=None, **settings
):
    """Write a whole results folder, of drawn tables or of those given; returns its path."""
    rng = np.random.default_rng(11)
    predictions, people = tables or make_predictions(**settings)
    folder.mkdir(parents=True, exist_ok=True)
    networks = predictions[["run", "stage", "repeat", "fold"]].drop_duplicates()
    plan = [
        row
        | {
            "kind": "train" if row["stage"] == "source" else "tune",
            "folder": f"stages/{index:04d}",
            "fingerprint": f"{index:064x}",
            **({} if row["run"].startswith("baseline") else {"trainable_parameters": 900 * index}),
        }
        for index, row in enumerate(networks.to_dict("records"))
    ]
    files.write_json(folder / results.PLAN, {"stages": plan})
    studies.study(name=name, seed=0).write(folder / results.CONFIG)
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


def with_probabilities(frame):
    """Predictions whose logits were changed, with the probabilities that follow from them.

    Where a logit is missing, all three are.
    """
    logits = frame[["logit_0", "logit_1"]]
    logits = logits.where(logits.notna().all(axis=1))
    return frame.assign(
        logit_0=logits["logit_0"],
        logit_1=logits["logit_1"],
        probability=probability_of(logits.to_numpy(float)),
    )
