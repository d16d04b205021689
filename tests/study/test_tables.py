import numpy as np
import pandas as pd

from mri_jax.evaluation.learning import INHERITED
from mri_jax.evaluation.predictions import probability_of
from mri_jax.evaluation.variants import CNN
from mri_jax.study import tables

CLASSES = ("CN", "AD")


def predictions_of(stages, folds=2, subjects=12):
    rng, parts = np.random.default_rng(4), []
    label = np.arange(subjects) % 2
    for shift, stage in enumerate(stages):
        for fold in range(folds):
            logits = np.stack([np.zeros(subjects), rng.normal(size=subjects) + label * shift], 1)
            frame = pd.DataFrame({"subject_id": [f"s{i:02d}" for i in range(subjects)]})
            parts.append(
                frame.assign(
                    run="cnn5-w1", stage=stage, repeat=0, fold=fold, cohort="ADNI2", split="test",
                    session_id="bl", label=label, logit_0=logits[:, 0], logit_1=logits[:, 1],
                    probability=probability_of(logits),
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def plan_of(stages):
    rows = [{"run": "cnn5-w1", "stage": s, "trainable_parameters": 10 * i} for i, s in
            enumerate(stages)]  # fmt: skip
    return pd.DataFrame(rows)


def test_parameters_stand_beside_scores_and_many_layers_are_exploratory():
    few = ["source", "tuned-high"]
    many = ["source", *(f"tuned-conv{i}" for i in range(1, 6))]
    for stages, exploratory in ((few, False), (many, True)):
        (table,) = tables.comparisons(predictions_of(stages), plan_of(stages), CLASSES)
        assert table.data["stage"].tolist() == stages
        assert table.data["trained parameters"].tolist() == [
            str(10 * i) for i in range(len(stages))
        ]
        shown = tables.shown(table, simulated=True)
        assert ("Exploratory" in shown) is exploratory
        assert "SIMULATED" in shown
        assert "SIMULATED" not in tables.shown(table, simulated=False)


def test_a_baseline_has_no_stage():
    frame = pd.concat(
        [
            predictions_of(["source"]).assign(family=CNN, source="", depth=5, width=1.0),
            predictions_of(["source"]).assign(run="baseline-age-sex", family="baseline-age-sex"),
        ],
        ignore_index=True,
    )
    plan = pd.DataFrame({"run": ["cnn5-w1", "baseline-age-sex"], "stage": "source"})
    (table,) = tables.comparisons(frame, plan, CLASSES)
    assert table.data["stage"].tolist() == ["source", ""]
    assert table.data["AD + CN"].tolist() == ["6 + 6", "6 + 6"]


def test_an_effect_is_a_paired_difference_in_points():
    frame = predictions_of(["source", "tuned-high"])
    (line,) = tables.effects(frame)
    assert line.startswith("cnn5-w1 tuned-high minus source on ADNI2: AUC")
    scores = tables.metrics_table(frame).set_index(["stage", "fold"])["auc"]
    change = 100 * (scores["tuned-high"] - scores["source"])
    assert f"AUC {change.mean():+.2f} ± {change.std(ddof=1):.2f} points" in line.replace("−", "-")
    spread = f"(spread over 2 networks, from {change.min():+.2f} to {change.max():+.2f})"
    assert line.replace("−", "-").endswith(spread)


def test_a_note_names_the_folds_that_have_hardly_learnt_and_those_tuned_from_them():
    stages = ["source", "tuned-high"]
    plan = plan_of([s for s in stages for _ in range(2)]).assign(repeat=0, fold=[0, 1, 0, 1])
    plan["not_learnt"] = ["", "its loss", "", f"it {INHERITED}"]
    (table,) = tables.comparisons(predictions_of(stages), plan, CLASSES)
    assert table.data["note"].tolist() == [
        "fold 1: has hardly learnt",
        "fold 1: descends from a network that has hardly learnt",
    ]


def ensemble_cell(label, score):
    """Five folds with the same scores on one target."""
    logits = np.stack([np.zeros(len(score)), np.asarray(score, float)], axis=1)
    frame = pd.DataFrame({"label": label, "logit_0": logits[:, 0], "logit_1": logits[:, 1]})
    frame = frame.assign(
        run="cnn5-w1", stage="source", repeat=0, cohort="AIBL", split="test", session_id="bl",
        subject_id=[f"s{i}" for i in range(len(label))], probability=probability_of(logits),
    )  # fmt: skip
    folds = pd.concat([frame.assign(fold=k) for k in range(5)], ignore_index=True)
    (table,) = tables.comparisons(folds, plan_of(["source"]), CLASSES)
    return table.data["ensemble AUC [95% CI]"].item()


def test_a_missing_interval_is_said_in_words():
    label = [1, 1, 1, 0, 0, 0]
    assert ensemble_cell(label, [3, 2, 1, -1, -2, -3]) == "100.0 (no interval: perfect separation)"
    assert ensemble_cell([1, 0, 0, 0], [0, 1, -1, -2]) == (
        "66.7 (no interval: a class has a single subject)"
    )
    assert ensemble_cell([1, 1, 1], [1, 2, 3]) == "undefined"
    assert ensemble_cell(label, [3, 2, -1, 1, -2, -3]).startswith("88.9 [")


def test_a_target_of_one_class_is_scored_for_what_it_can_give():
    frame = predictions_of(["source", "tuned-high"])
    controls = frame[frame["label"] == 0].assign(cohort="CONTROLS")
    both = pd.concat([frame, controls], ignore_index=True)
    _, table = tables.comparisons(both, plan_of(["source", "tuned-high"]), CLASSES)
    assert table.key == "test-CONTROLS"
    cells = table.data.iloc[0]
    assert cells["AD + CN"] == "0 + 6"
    assert {cells[m] for m in ("AUC", "BAC", "SEN", "ensemble AUC [95% CI]")} == {"undefined"}
    right = [(g["logit_1"] <= g["logit_0"]).mean() for _, g in controls.groupby(["stage", "fold"])]
    wanted = f"{100 * np.mean(right[:2]):.1f} ± {100 * np.std(right[:2], ddof=1):.1f}"
    assert cells["SPE"] == cells["ACC"] == wanted
    of_both, of_one = tables.effects(both)
    assert of_both.startswith("cnn5-w1 tuned-high minus source on ADNI2: AUC −4.17 ± 13.75 points")
    assert of_one == "cnn5-w1 tuned-high minus source on CONTROLS: undefined for 2 of 2 networks"
