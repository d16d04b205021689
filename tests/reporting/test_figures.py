"""Curves of trainings and of scores."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import synthetic_run

from mri_jax.evaluation.variants import completed
from mri_jax.reporting.figures import _apart, score_figures
from mri_jax.reporting.figures_detail import training_figures


def test_training_curves_show_what_there_is_in_natural_order(analysis):
    rows = [
        {"run": run, "stage": stage, "repeat": 0, "fold": fold, "epoch": epoch,
         "train_loss": 1.0 / epoch, "best": epoch == 2,
         "validation_loss": None if stage != "source" else 1.1 / epoch}
        for run, stage in (("cnn10-w1", "source"), ("cnn5-w1", "tuned-conv10"),
                           ("cnn5-w1", "tuned-conv2"), ("cnn5-w1", "source"))
        for fold in (0, 1) for epoch in (1, 2, 3)
    ]  # fmt: skip
    run = dataclasses.replace(analysis.runs[0], history=pd.DataFrame(rows))
    told = completed(pd.DataFrame({"run": ["cnn10-w1", "cnn5-w1"]}), synthetic_run.KNOWN)
    made = training_figures(dataclasses.replace(analysis, runs=(run,), predictions=told))
    assert [picture.key for picture in made] == [
        "training-cnn5-w1-source", "training-cnn5-w1-tuned-conv2",
        "training-cnn5-w1-tuned-conv10", "training-cnn10-w1-source",
    ]  # fmt: skip
    assert [len(picture.figure.axes) for picture in made] == [2, 1, 1, 2]
    assert "no scan was held out" in made[1].caption
    assert ["ring" in picture.caption for picture in made] == [True, False, False, True]
    assert all(line.get_marker() != "o" for line in made[1].figure.axes[0].lines)
    ring = made[0].figure.axes[1].lines[1]
    assert ring.get_xdata().tolist() == [2]
    assert ring.get_ydata().tolist() == pytest.approx([0.55])


def test_curves_of_networks_and_baselines_are_apart_and_coinciding_bands_are_left_out(analysis):
    drawn = {picture.key: picture for picture in score_figures(analysis)}
    (networks,) = drawn["finetune-roc-ADNI2"].figure.axes
    (baselines,) = drawn["finetune-roc-baselines-ADNI2"].figure.axes
    labels = [text.get_text() for text in networks.get_legend().get_texts()]
    assert [label.replace("\n", " ").partition(" (")[0] for label in labels] == [
        "CNN-5, source", "CNN-5, last conv and FC layers fine-tuned",
    ]  # fmt: skip
    assert len(baselines.get_legend().get_texts()) == len(analysis.sections[0].family.baselines)
    points = (
        analysis.sections[0]
        .points.query("cohort == 'ADNI2' and method == 'cnn5-w1' and point == 'argmax'")
        .set_index("metric")["mean"]
    )
    marks = [tuple(map(float, np.ravel(line.get_data()))) for line in networks.lines]
    assert (pytest.approx(1 - points["spe"]), pytest.approx(points["sen"])) in marks
    assert _apart(np.full(10, 0.5), [(np.zeros(10), np.full(10, 0.4))])
    assert not _apart(np.full(10, 0.5), [(np.zeros(10), np.ones(10))])
