import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_run
from scipy import stats

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.evaluation import differences, families, summary
from mri_jax.evaluation.families import Method
from mri_jax.evaluation.metrics import mean_and_sd, metrics_table
from mri_jax.evaluation.variants import completed
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.cautions import cautions
from mri_jax.runs import results

TWO = {name: synthetic_run.COHORTS[name] for name in ("ADNI1", "ADNI2")}


def analysed(*folders):
    return analyse(load_runs([str(folder) for folder in folders]))


def rewritten(folder, change):
    """The predictions of a run, changed in place."""
    path = folder / results.PREDICTIONS
    frame = pd.read_csv(path, dtype={"subject_id": str, "session_id": str})
    files.write_csv(path, synthetic_run.with_probabilities(change(frame)))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "high"
    return synthetic_run.write_run(folder, stages=("tuned-high",))


@pytest.fixture(scope="module")
def analysis(written):
    """The analysis of a run that no test changes."""
    return analysed(written)


@pytest.fixture
def run(written, tmp_path):
    """The same run, for a test to change."""
    return Path(shutil.copytree(written, tmp_path / "high"))


def test_families_of_a_whole_study():
    runs = ("cnn5-w1", "cnn10-w1", "cnn5-w2", "CNN-AD1-w1", "CNN-AD2-w1", "other")
    base = ("baseline-voxels", "baseline-voxels-CNN-AD2")
    frame = pd.DataFrame(
        [(run, "source") for run in (*runs, *base)] + [("cnn5-w1", "tuned-conv1")],
        columns=["run", "stage"],
    )
    told = completed(frame, synthetic_run.KNOWN)
    found = {f.key: f for f in families.declare(told)}
    assert sorted(found) == ["depth", "finetune", "source", "task-w1", "width"]
    assert [m.run for m in found["depth"].networks] == ["cnn5-w1", "cnn10-w1"]
    assert [m.run for m in found["width"].networks] == ["cnn5-w1", "cnn5-w2"]
    assert (Method("cnn10-w1"), Method("cnn5-w1")) in found["depth"].pairs
    assert (Method("cnn5-w1"), Method("baseline-voxels")) in found["depth"].pairs
    task = found["task-w1"]
    assert (Method("CNN-AD2-w1"), Method("CNN-AD1-w1")) in task.pairs
    assert (Method("CNN-AD2-w1"), Method("baseline-voxels-CNN-AD2")) in task.pairs
    assert (Method("CNN-AD1-w1"), Method("baseline-voxels-CNN-AD2")) not in task.pairs
    assert [m.run for m in found["source"].networks] == ["other"]


def test_summary_prints_the_mean_and_sd_of_the_metrics_table(written, analysis):
    section = analysis.sections[0]
    predictions = results.load(written).predictions
    expected = mean_and_sd(metrics_table(predictions)).set_index(["run", "stage", "cohort"])
    tuned = section.summary.query("stage == 'tuned-high' and split == 'test'")
    for row in tuned.to_dict("records"):
        want = expected.query("split == 'test'").loc[(row["run"], row["stage"], row["cohort"])]
        assert row["mean"] == pytest.approx(want[f"{row['metric']}_mean"])
        assert row["sd"] == pytest.approx(want[f"{row['metric']}_sd"])
        assert not row["a_low"] > row["mean"]
        assert not row["b_high"] < row["mean"]


def test_a_tuned_family_keeps_to_the_cohorts_where_something_was_tuned(run):
    def also_elsewhere(frame):
        source = frame[frame["stage"].eq("source") & frame["split"].eq("test")]
        others = source.assign(cohort="ELSEWHERE", subject_id="other-" + source["subject_id"])
        return pd.concat([frame, others], ignore_index=True)

    (section,) = analysed(rewritten(run, also_elsewhere)).sections
    assert section.family.key == "finetune"
    assert "ELSEWHERE" not in section.cohorts


def test_source_and_tuned_stand_on_the_same_subjects(written, analysis):
    section = analysis.sections[0]
    cells = [e for e in section.entries if e.cohort == "ADNI2" and e.split == "test"]
    first = cells[0].scores
    assert len(cells) == 4
    for cell in cells[1:]:
        np.testing.assert_array_equal(cell.scores.scan, first.scan)
        np.testing.assert_array_equal(cell.scores.tested, first.tested)
    adapted = results.load(written).predictions.query("split == 'adaptation'")
    assert not {scan.split("/")[0] for scan in first.scan} & set(adapted["subject_id"])


def test_holm_runs_within_a_table_and_a_metric(analysis):
    frame = analysis.sections[0].differences.query("split == 'test' and point == 'argmax'")
    for _, family in frame.groupby("metric"):
        known = family.dropna(subset=["p"]).sort_values("p")
        first = known.iloc[0]
        assert first["p_holm"] == pytest.approx(min(1.0, first["p"] * len(known)))


def test_anova_of_a_table_is_the_test_on_its_networks(tmp_path):
    run = synthetic_run.write_run(tmp_path / "d", runs=("cnn5-w1", "cnn7-w1", "cnn10-w1"))
    section = analysed(run).sections[0]
    table = metrics_table(results.load(run).predictions.query("split == 'test'"))
    groups = [
        table.query("run == @name and cohort == 'AIBL'")["acc"]
        for name in ("cnn5-w1", "cnn7-w1", "cnn10-w1")
    ]
    row = section.anova.query("cohort == 'AIBL' and metric == 'acc' and split == 'test'")
    assert row["p"].item() == pytest.approx(stats.f_oneway(*groups).pvalue)


def test_runs_that_share_networks_are_reported_together(tmp_path, written, analysis):
    low = synthetic_run.write_run(tmp_path / "low", stages=("tuned-low",), name="finetune_low")
    section = analysed(written, low).sections[0]
    names = [m.name for m in section.family.networks]
    assert names == ["cnn5-w1", "cnn5-w1 tuned-low", "cnn5-w1 tuned-high"]
    alone = analysis.sections[0].summary
    both = section.summary.query("stage == 'tuned-high'").reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone.query("stage == 'tuned-high'").reset_index(drop=True))


def test_different_test_sets_are_refused_and_the_difference_named(tmp_path, run):
    low = synthetic_run.write_run(tmp_path / "low", stages=("tuned-low",), name="finetune_low")
    rewritten(
        low,
        lambda f: f[
            ~(
                f["stage"].eq("tuned-low")
                & f["split"].eq("test")
                & f["subject_id"].isin(("ADNI2_A0003", "ADNI2_A0004"))
            )
        ],
    )
    with pytest.raises(UserError, match=r"not comparable on ADNI2 .*different test sets: . scans"):
        analysed(run, low)


def test_two_networks_under_one_name_are_refused(tmp_path, run):
    other = synthetic_run.write_run(tmp_path / "other", stages=("tuned-high",), seed=6)
    with pytest.raises(UserError, match="high and other hold different networks under one name"):
        analysed(run, other)


def test_simulated_and_real_runs_never_mix(tmp_path, run):
    real = synthetic_run.write_run(tmp_path / "real", simulated=False)
    with pytest.raises(UserError, match="high is simulated and real is not"):
        load_runs([str(run), str(real)])
    with pytest.raises(UserError, match="given twice"):
        load_runs([str(run), str(run)])


def test_an_unfinished_run_is_named(tmp_path, run):
    (run / results.PREDICTIONS).unlink()
    with pytest.raises(UserError, match=r"holds no predictions\.csv"):
        analysed(run)
    with pytest.raises(UserError, match="no such results folder"):
        analysed(tmp_path / "absent")


def test_a_partly_deleted_run_says_what_is_missing(run):
    for name in (results.CONFIG, results.COHORT, results.HISTORY):
        (run / name).unlink()
    rewritten(run, lambda f: f[~(f["stage"].eq("tuned-high") & f["fold"].eq(4))])
    lines = "\n".join(cautions(analysed(run)))
    assert "config.json is absent" in lines
    assert "cohort.csv is absent" in lines
    assert "1 of 20 planned networks without predictions" in lines


def test_nan_scores_are_stated_and_never_averaged_away(run):
    def one_nan(frame):
        place = frame.query("stage == 'tuned-high' and split == 'test'").index[0]
        return frame.assign(logit_1=frame["logit_1"].where(frame.index != place))

    rewritten(run, one_nan)
    analysis = analysed(run)
    lines = "\n".join(cautions(analysis))
    assert (
        "CNN-5, last conv and FC layers fine-tuned is not shown: cnn5-w1 tuned-high ADNI2: 1 of"
        in lines
    )
    rows = analysis.sections[0].summary.query("stage == 'tuned-high' and cohort == 'ADNI2'")
    assert rows["mean"].isna().all()
    pairs = analysis.sections[0].differences
    broken = pairs[pairs["first"].eq("cnn5-w1 tuned-high") & pairs["cohort"].eq("ADNI2")]
    assert broken["p"].isna().all()
    assert broken["note"].str.contains("scores are NaN").all()


def test_a_single_class_leaves_auc_undefined(run):
    rewritten(run, lambda f: f[~(f["cohort"].eq("AIBL") & f["label"].eq(1))])
    analysis = analysed(run)
    rows = analysis.sections[0].summary.query("cohort == 'AIBL'")
    assert rows.query("metric in ('auc', 'bac', 'sen')")["mean"].isna().all()
    assert rows.query("metric == 'spe'")["mean"].notna().all()
    assert any("AIBL: no AD subject" in line for line in cautions(analysis))


def test_identical_networks_are_pointed_out(run):
    def same(frame):
        first = frame["run"].eq("cnn5-w1") & frame["cohort"].eq("AIBL")
        key = ["stage", "subject_id"]
        value = frame[first].groupby(key)["logit_1"].transform("first")
        other = frame[first].groupby(key)["logit_0"].transform("first")
        frame.loc[first, "logit_1"], frame.loc[first, "logit_0"] = value, other
        return frame

    analysis = analysed(rewritten(run, same))
    assert any("give identical scores" in line for line in cautions(analysis))
    row = (
        analysis.sections[0]
        .summary.query("cohort == 'AIBL' and metric == 'auc' and method == 'cnn5-w1'")
        .iloc[0]
    )
    assert row["sd"] == pytest.approx(0.0, abs=1e-15)
    assert row["b_low"] <= row["a_low"] < row["mean"] < row["a_high"] <= row["b_high"]


def test_perfect_separation_has_no_interval_and_a_warning(run):
    rewritten(
        run, lambda f: f.assign(logit_1=np.where(f["label"] == 1, 3.0, -3.0) - f["logit_0"] * 0)
    )
    analysis = analysed(run)
    rows = analysis.sections[0].summary.query("split == 'test' and metric == 'auc'")
    assert any("separates the classes perfectly" in line for line in cautions(analysis)) == (
        rows["mean"].eq(1.0).any()
    )
    assert rows.loc[rows["mean"].eq(1.0), "a_low"].isna().all()


def test_several_scans_of_a_subject_are_refused_by_the_intervals(run):
    def doubled(frame):
        extra = frame[frame["cohort"].eq("AIBL")].assign(session_id="m12")
        return pd.concat([frame, extra])

    lines = cautions(analysed(rewritten(run, doubled)))
    assert any("a subject has several scans" in line for line in lines)


def test_small_classes_are_pointed_out(analysis):
    assert any("AIBL: only 11 AD subjects" in line for line in cautions(analysis))


def test_operating_points_of_tuned_networks_need_inner_scores(tmp_path, analysis):
    points = analysis.sections[0].points
    inner = points[points["point"].eq("cross-validated in the adaptation part")]
    assert inner["mean"].isna().all()
    assert inner["note"].str.contains("inner scores").all()
    refitted = points[
        points["point"].eq("refitted on the adaptation part") & points["method"].eq("cnn5-w1")
    ]
    assert refitted["mean"].notna().all()
    assert set(refitted["cohort"]) == {"ADNI2"}
    given = synthetic_run.write_run(tmp_path / "inner", stages=("tuned-high",), inner=True)
    section = analysed(given).sections[0]
    inner = section.points[section.points["point"].eq("cross-validated in the adaptation part")]
    assert inner["mean"].notna().all()
    assert section.calibration.query("method == 'cnn5-w1 tuned-high'")["ece_scaled"].notna().all()


def test_repeats_of_fine_tuning_are_averaged_over_their_own_test_sets():
    predictions, _ = synthetic_run.make_predictions(
        stages=("tuned-high",), repeats=5, cohorts=TWO, baselines=("baseline-voxels",)
    )
    family = families.declare(predictions)[0]
    rows = summary.summarise(predictions, family, 0)
    tuned = rows.query("stage == 'tuned-high' and cohort == 'ADNI2' and metric == 'auc'").iloc[0]
    table = metrics_table(predictions).query(
        "stage == 'tuned-high' and cohort == 'ADNI2' and split == 'test'"
    )
    assert (tuned["networks"], tuned["n_positive"], tuned["n_negative"]) == (25, 32, 41)
    assert tuned["mean"] == pytest.approx(table["auc"].mean())
    pair = differences.compare(predictions, family, 0).query(
        "cohort == 'ADNI2' and metric == 'auc' and first == 'cnn5-w1 tuned-high'"
    )
    assert pair["p"].notna().all()


def test_tuned_networks_meet_their_source_with_a_refitted_threshold(analysis):
    section = analysis.sections[0]
    pairs = section.differences.query("point == 'refitted on the adaptation part'")
    assert set(pairs["metric"]) == {"acc", "bac", "sen", "spe"}
    assert set(pairs["cohort"]) == {"ADNI2"}
    means = section.points.query("cohort == 'ADNI2'").set_index(["method", "point", "metric"])
    for row in pairs.to_dict("records"):
        tuned = means.loc[("cnn5-w1 tuned-high", "argmax", row["metric"]), "mean"]
        source = means.loc[("cnn5-w1", "refitted on the adaptation part", row["metric"]), "mean"]
        assert row["difference"] == pytest.approx(tuned - source)
        assert row["low"] < row["difference"] < row["high"]
    # One pair a metric: Holm leaves p as it is, whatever the other rows of the table.
    assert pairs["p_holm"].tolist() == pytest.approx(pairs["p"].tolist())


def test_a_fifth_of_one_class_has_no_refitted_threshold_and_says_so(run):
    def without(frame):
        inside = frame["split"].eq("adaptation") & frame["label"].eq(1)
        return frame[~inside]

    section = analysed(rewritten(run, without)).sections[0]
    rows = section.points.query(
        "point == 'refitted on the adaptation part' and method == 'cnn5-w1'"
    )
    assert rows["mean"].isna().all()
    assert set(rows["note"]) == {"not shown: the adaptation part holds one class only"}
    assert section.differences["point"].eq("argmax").all()


def test_a_missing_interval_says_why(run):
    def perfect(frame):
        margin = np.where(frame["label"] == 1, 3.0, -3.0)
        here = frame["cohort"].eq("AIBL") & frame["run"].eq("cnn5-w1")
        return frame.assign(
            logit_1=np.where(here, margin, frame["logit_1"]),
            logit_0=np.where(here, 0.0, frame["logit_0"]),
        )

    summary = analysed(rewritten(run, perfect)).sections[0].summary
    rows = summary.query("cohort == 'AIBL' and method == 'cnn5-w1'").set_index("metric")
    assert rows.loc["auc", "a_note"] == rows.loc["auc", "b_note"] == "perfect separation"
    assert rows.loc["auc", "ensemble_note"] == "perfect separation"
    assert rows.loc["sen", "a_note"] == "all decided right"
    assert rows.loc["acc", "ensemble_low"] < 1.0, "Wilson's interval exists for the ensemble"
    assert rows.loc["acc", "ensemble_note"] == ""
    other = summary.query("cohort == 'ADNI2' and method == 'cnn5-w1'")
    assert other[["a_note", "b_note"]].eq("").all(axis=None)
