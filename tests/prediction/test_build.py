"""The model of a really trained run, and equal outputs of the run and of its export."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mri_jax import cli
from mri_jax.evaluation.families import Method
from mri_jax.evaluation.learning import HARDLY
from mri_jax.evaluation.metrics import score_of
from mri_jax.evaluation.operating import best_threshold
from mri_jax.models.conv_layer import max_pool
from mri_jax.prediction.build import build, fingerprint_of
from mri_jax.prediction.features import reference
from mri_jax.prediction.forward import NetworksOnDevice
from mri_jax.prediction.model import KINDS, widths
from mri_jax.prediction.training_data import notes_of
from mri_jax.runs.trained import open_run
from tests.networks import apply


@pytest.fixture(scope="module")
def run(small_run):
    return open_run(small_run)


@pytest.fixture(scope="module")
def made(run):
    return build(run)


def test_nothing_is_fitted_on_scores_of_training_subjects(run, made):
    source, tuned = made.ensembles
    held_out = run.results.predictions.query("stage == 'source' and split == 'validation'")
    held_out = held_out[held_out["run"] == "cnn2-w1"]
    assert len(held_out) == 20
    expected = best_threshold(held_out["label"].to_numpy(), score_of(held_out))
    assert source.point("held-out").threshold == expected
    assert source.distance_n == 20
    # Two scans a class were tuned on: too few for a threshold or a temperature.
    assert tuned.point("held-out") is None
    assert tuned.temperature is None
    assert "hold 2 scans of a class, fewer than 10" in tuned.calibration


def test_rates_and_scores_are_those_of_the_runs_tables(run, made):
    source = made.ensembles[0]
    metrics = pd.read_csv(run.results.path / "metrics.csv")
    row = metrics.query("run == 'cnn2-w1' and stage == 'source' and fold == -1").iloc[0]
    (rates,) = source.point("argmax").rates
    assert rates.cohort == "ADNI2"
    assert rates.sensitivity.share.estimate == pytest.approx(row["sen"])
    assert rates.specificity.share.estimate == pytest.approx(row["spe"])
    assert (rates.sensitivity.n, rates.specificity.n) == (row["n_positive"], row["n_negative"])
    assert source.tested[0].auc.estimate == pytest.approx(row["auc"])
    assert [(g.cohort, g.diagnosis, g.held_out, g.scores.n) for g in source.groups] == [
        ("ADNI1", "AD", True, 10),
        ("ADNI1", "CN", True, 10),
        ("ADNI2", "AD", False, 8),
        ("ADNI2", "CN", False, 8),
    ]


def test_networks_that_have_hardly_learnt_are_named_in_another_model(run):
    plan = run.results.plan
    source = plan["stage"].eq("source") & plan["fold"].eq(1) & plan["run"].eq("cnn2-w1")
    fine, flat = (
        replace(run, results=replace(run.results, plan=plan.assign(not_learnt=reasons)))
        for reasons in ("", np.where(source, "flat", ""))
    )
    stages = ("source", "tuned-high")
    (told,) = set(notes_of(flat, "cnn2-w1", stages)) - set(notes_of(fine, "cnn2-w1", stages))
    assert told.startswith(f"Fold 1 of {Method('cnn2-w1', 'source').name}: {HARDLY}: flat; ")
    digests = {fingerprint_of(each, "cnn2-w1", stages) for each in (fine, flat)}
    assert len(digests) == 2


def test_the_reference_of_features_leaves_out_the_held_out_fold(run, made):
    network = made.ensembles[0].networks[1]
    member = run.ensemble("cnn2-w1", "source")[1]
    loaded = member.load()
    forward = NetworksOnDevice(loaded.spec, [loaded.variables])
    reader = run.reader(run.trained_on(member))
    rows = [reader.read(i) for i in range(len(reader))]
    parts = forward(rows[:8], 8).features, forward(rows[8:], 9).features
    for kind in KINDS:
        features = np.concatenate([part[kind][0] for part in parts])
        found = network.features[kind]
        np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert found.precision.shape == (widths(loaded.spec)[kind],) * 2


def test_features_of_layers_are_the_moments_of_every_channel(run):
    loaded = run.ensemble("cnn2-w1", "source")[0].load()
    volume = run.reader(run.held_out(run.ensemble("cnn2-w1", "source")[0])).read(0)
    found = NetworksOnDevice(loaded.spec, [loaded.variables])([volume], 2).features
    # From the plain form, which keeps every layer's map before pooling.
    _, kept = apply(loaded.spec, loaded.variables, volume[None], intermediates=True)
    expected = []
    for i, pool in enumerate(loaded.spec.pool_after, start=1):
        output = kept[f"conv{i}/feature_map"]
        output = np.asarray(max_pool(output) if pool else output, np.float64)[0]
        flat = output.reshape(-1, output.shape[-1])
        expected += [*flat.mean(axis=0), *flat.std(axis=0)]
    assert found["layers"].shape == (1, 1, len(expected))
    np.testing.assert_allclose(found["layers"][0, 0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found["penultimate"][0, 0], np.asarray(kept["penultimate"])[0], rtol=1e-4, atol=1e-5
    )


def test_a_reference_counts_each_feature_in_its_own_scale_and_finds_what_is_new(rng):
    scale = np.array([1.0, 100.0, 1e-3, 0.0])
    draw = 5.0 + rng.normal(size=(4000, 4)) * scale
    found, far = reference(draw[:3000], draw[3000:])
    assert np.median(far) == pytest.approx(1.0)
    # Of three independent normal features the median distance is the root of chi-square's.
    assert found.typical == pytest.approx(2.366**0.5, rel=0.03)
    for feature in range(3):
        moved = found.mean + 10 * scale * (np.arange(4) == feature)
        assert found.distance(moved[None])[0] == pytest.approx(10 / found.typical, rel=0.05)
    # One that is constant over the training scans says nothing of distances.
    assert found.distance(found.mean[None] + [[0, 0, 0, 1e-7]])[0] == 0.0


def test_the_distance_of_a_scan_is_the_median_over_networks(made):
    source = made.ensembles[0]
    features = {
        kind: np.stack(
            [
                n.features[kind].mean + (i == 1) * 1e3 * np.ones((2, 1))
                for i, n in enumerate(source.networks)
            ]
        )
        for kind in KINDS
    }
    # Far in one network of three: the median is that of the others.
    for kind, found in source.distances(features).items():
        assert source.networks[1].features[kind].distance(features[kind][1])[0] > 10
        np.testing.assert_allclose(found, [0.0, 0.0])


def test_run_and_export_predict_the_same_bytes_and_the_folder_names_nobody(
    run, small_run, tmp_path, capsys
):
    store = str(run.store_path)
    assert cli.main(["predict", str(small_run), store, "--out", str(tmp_path / "a")]) == 0
    assert cli.main(["export-model", str(small_run), "--out", str(tmp_path / "m")]) == 0
    assert cli.main(["predict", str(tmp_path / "m"), store, "--out", str(tmp_path / "b")]) == 0
    one, other = ((tmp_path / x / "predictions.csv").read_bytes() for x in "ab")
    assert one == other
    rows = pd.read_csv(tmp_path / "a" / "predictions.csv")
    assert len(rows) == 80  # 40 scans, two stages
    # What the run itself said about its target, by the same networks.
    asked = run.results.predictions.query("stage == 'source' and cohort == 'ADNI2' and fold == 2")
    asked = asked[asked["run"] == "cnn2-w1"].set_index("subject_id")
    found = rows[rows["stage"] == "source"].set_index("subject_id").loc[asked.index]
    np.testing.assert_allclose(found["fold_2"], asked["probability"], atol=1e-5)
    np.testing.assert_allclose(
        expit(found["score"]), found[["fold_0", "fold_1", "fold_2"]].mean(axis=1), atol=1e-6
    )
    # Every network knows the volumes it was trained on, and no others; the exported one too.
    for stage in ("source", "tuned-high"):
        members = run.ensemble("cnn2-w1", stage)
        count = pd.Series([key for m in members for key in run.trained_on(m)]).value_counts()
        told = rows[rows["stage"] == stage].set_index(["subject_id", "session_id"])
        told = told["networks_trained_on_it"]
        assert told[told > 0].to_dict() == count.to_dict()
        assert len(told) > len(count)
    page = ["--pages", "--stage", "tuned-high", "--out", str(tmp_path / "d")]
    assert cli.main(["predict", str(tmp_path / "m"), store, *page]) == 0
    known = told[told == 3].index[0]
    html = (tmp_path / "d" / "pages" / f"{'__'.join(known)}.html").read_text(encoding="utf-8")
    assert "trained on this very scan (last conv and FC layers fine-tuned: 3 of 3)" in html
    text = b"".join(p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file())
    assert not any(name.encode() in text for name in rows["subject_id"])
    assert b"pickle" not in text
    code = cli.main(
        [
            "predict",
            str(tmp_path / "m"),
            store,
            "--out",
            str(tmp_path / "c"),
            "--stage",
            "tuned-low",
        ]
    )
    assert code == 2
    assert "stage: 'tuned-low' is not of the model" in capsys.readouterr().err
    one_stage = ["--stage", "tuned-high", "--out", str(tmp_path / "c")]
    assert cli.main(["predict", str(small_run), store, *one_stage]) == 0
    assert set(pd.read_csv(tmp_path / "c" / "predictions.csv")["stage"]) == {"tuned-high"}
