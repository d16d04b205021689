"""How many labels it takes, from predictions whose gains are known."""

import numpy as np
import pandas as pd
import pytest
import synthetic_run

from mri_jax import files
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.label_curve import curve, gains_table, numbers, ways
from mri_jax.reporting.report import write_report
from mri_jax.runs import results

STAGES = tuple(f"tuned-{way}-labels{share}" for way in ("all", "head") for share in (5, 20, 80))


def study(folder):
    """Fine-tuning of all layers gains from 20% on; of the head never."""
    run = synthetic_run.write_run(
        folder, cohorts={"ADNI1": (40, 40), "ADNI2": (60, 60)}, stages=STAGES, baselines=()
    )
    path = run / results.PREDICTIONS
    table = pd.read_csv(path)
    source = table["stage"].eq("source") & table["cohort"].eq("ADNI2")
    like = table[source].set_index(["fold", "subject_id"])[["logit_0", "logit_1"]]
    keys = pd.MultiIndex.from_frame(table[["fold", "subject_id"]])
    tuned = table["stage"].ne("source") & table["split"].eq("test") & table["cohort"].eq("ADNI2")
    table.loc[tuned, ["logit_0", "logit_1"]] = like.reindex(keys[tuned]).to_numpy()
    gains = tuned & table["stage"].isin(("tuned-all-labels20", "tuned-all-labels80"))
    table["logit_1"] += gains * np.where(table["label"] == 1, 3.0, -3.0)
    probability = 1 / (1 + np.exp(table["logit_0"] - table["logit_1"]))
    files.write_csv(path, table.assign(probability=probability))
    return run


def test_the_first_clear_gain_is_named_with_its_number_of_subjects(tmp_path):
    run = study(tmp_path / "run")
    analysis = analyse(load_runs([str(run)]))
    (section,) = analysis.sections
    assert section.family.key == "labels"
    assert {way: len(found) for way, found in ways(section).items()} == {
        "tuned-all": 3, "tuned-head": 3,
    }  # fmt: skip
    known = numbers(section, analysis)
    assert known["cnn5-w1"] == 0
    assert known["cnn5-w1 tuned-all-labels20"] == 24  # a fifth of 120, as the made run cuts
    table = gains_table(section, analysis)
    data = table.data.set_index(["way", "against"])
    assert data.loc[("tuned-all", "source network"), "subjects"] == 24
    assert data.loc[("tuned-all", "source network"), "low"] > 0
    assert pd.isna(data.loc[("tuned-head", "source network"), "subjects"])
    assert [row[2].text for row in table.rows][1] == "none of these"
    assert table.rows[0][2].text.startswith("24 subjects\nAUC +")
    assert "same subjects throughout: ADNI2" in curve(section, analysis).caption


@pytest.mark.usefixtures("unrendered")
def test_the_page_has_the_curve_and_the_table(tmp_path):
    written = write_report([str(study(tmp_path / "run"))])
    page = written.page.read_text(encoding="utf-8")
    assert "Labels until it gains" in page
    assert (tmp_path / "run" / "figures" / "labels-curve.svg").exists()
    assert (tmp_path / "run" / "tables" / "labels-gains.csv").exists()
