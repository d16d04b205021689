"""Adaptation against simulated cohorts whose truth is that scanners, people or nothing differ."""

from pathlib import Path

import numpy as np
import pytest

from mri_jax.evaluation.metrics import metrics_table
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.cautions import cautions
from mri_jax.runs import results
from mri_jax.study.run import run as run_study
from mri_jax.study.running import Running
from tests import studies


def finished(folder: Path, shift: str, seed: int, methods: tuple[str, ...], **fields: object):
    """Returns the results of a study at `demo` of one shift, with two networks."""
    study = studies.study(
        "adaptation", seed=seed, targets=("AIBL",), simulation__shift=shift,
        simulation__seed=seed, simulation__subjects_per_class=40,
        train__folds=2, finetune__cohort="AIBL", finetune__layers=(), finetune__inner_folds=0,
        adaptation__methods=methods, adaptation__resampled=(), baselines__age_sex=False,
        baselines__hippocampus=False, baselines__voxels=False, **fields,
    )  # fmt: skip
    place = folder / f"{shift}-{seed}"
    run_study(study, place, folder / "stages", Running(say=lambda _: None, report=False))
    return results.load(place)


def mean_bac(found, stage: str) -> float:
    """Returns the mean balanced accuracy of a stage's networks on the target's test part."""
    rows = metrics_table(found.predictions)
    return float(rows.loc[rows["stage"].eq(stage) & rows["split"].eq("test"), "bac"].mean())


@pytest.mark.slow
def test_with_another_gain_alone_adabn_wins_back_half_of_what_was_lost(tmp_path):
    # Volumes are not normalised, which would undo a gain.
    lost, won = [], []
    for seed in range(1, 6):
        alike = finished(tmp_path, "none", seed, ("adabn",), data__normalisation="none")
        # Intensities are 3.2 times those of the source.
        apart = finished(
            tmp_path, "gain", seed, ("adabn",), simulation__strength=4.0,
            data__normalisation="none",
        )  # fmt: skip
        lost.append(mean_bac(alike, "source") - mean_bac(apart, "source"))
        won.append(mean_bac(apart, "adapted-adabn") - mean_bac(apart, "source"))
    assert np.mean(lost) >= 0.10
    assert np.mean(won) >= 0.5 * np.mean(lost)


@pytest.mark.slow
def test_with_nothing_different_no_method_differs_from_the_source(tmp_path):
    methods = ("adabn", "tent", "coral", "dann", "l2-sp")
    found = finished(tmp_path, "none", 1, methods)
    (section,) = analyse(load_runs([str(found.path)])).sections
    rows = section.differences
    auc_rows = rows[rows["metric"].eq("auc") & rows["split"].eq("test")]
    assert len(auc_rows) == len(methods)
    assert (auc_rows["p_holm"] >= 0.05).all()


@pytest.mark.slow
def test_with_another_population_the_warning_of_unequal_shares_appears(tmp_path):
    found = finished(tmp_path, "population", 1, ("adabn",))
    lines = cautions(analyse(load_runs([str(found.path)])))
    assert any("What aligns the sites takes unequal shares" in line for line in lines)
    alike = finished(tmp_path, "none", 1, ("adabn",))
    lines = cautions(analyse(load_runs([str(alike.path)])))
    assert not any("unequal shares" in line for line in lines)
