import numpy as np
import pandas as pd
import pytest
import synthetic_run

from mri_jax import files
from mri_jax.reporting import confusions
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.cautions import cautions
from mri_jax.reporting.report import write_report
from mri_jax.runs import results
from tests.reporting.recorded import recorded


def test_a_study_without_a_search_for_near_duplicates_says_so(tmp_path):
    said = "no search for near-duplicate scans is recorded"
    given = {"data": {"cohort": "cohort.csv", "store": "store"}}
    assert said in recorded(tmp_path / "none", {}, given)[1]
    compared = {"near_duplicates": {"compared": 40}}
    assert said not in recorded(tmp_path / "done", compared, given)[1]
    own = {"simulated": True}
    assert said not in recorded(tmp_path / "own", own, {"data": {"cohort": "", "store": ""}})[1]


def test_a_preset_of_other_millimetres_than_the_volumes_is_named(tmp_path):
    made = {"shape": [48, 56, 48], "spacing": 4.0, "dtype": "float16", "settings": {}, "scans": {}}
    said = "run: preset paper is meant for volumes at 1 mm, and these are at 4 mm."
    for preset, told in (("paper", True), ("demo", False), ("smoke", False)):
        folder = tmp_path / preset
        assert (said in recorded(folder, {"preprocessing": made}, {"preset": preset})[1]) is told


def test_scans_analysed_although_quality_control_left_them_out_are_counted(tmp_path):
    said = "2 of its scans were analysed although quality control excludes them"
    assert said in recorded(tmp_path / "some", {"despite_exclusion": 2})[1]
    assert "quality control" not in recorded(tmp_path / "none", {"despite_exclusion": 0})[1]


@pytest.mark.usefixtures("unrendered")
def test_a_network_that_decides_one_class_on_a_target_is_named(tmp_path):
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(tmp_path / "run", cohorts=cohorts, baselines=())
    table = pd.read_csv(folder / results.PREDICTIONS)
    chosen = table["split"].eq("test") & table["run"].eq("cnn5-w1") & table["fold"].eq(3)
    flat = table.assign(
        logit_0=table["logit_0"].mask(chosen, 2.0),
        logit_1=table["logit_1"].mask(chosen, table["logit_1"] / 100),
    )
    probability = 1 / (1 + np.exp(flat["logit_0"] - flat["logit_1"]))
    files.write_csv(folder / results.PREDICTIONS, flat.assign(probability=probability))
    said = "AIBL: fold 3 of CNN-5, source decides every subject negative at argmax"
    analysis = analyse(load_runs([str(folder)]))
    assert any(line.startswith(said) for line in cautions(analysis))
    (section,) = analysis.sections
    drawn = {d.label: d for d in confusions.of_section(section, analysis.predictions)}
    assert [c.alike for c in drawn["CNN-5, source"].argmax] == [k == 3 for k in range(5)]
    assert drawn["CNN-5, source"].argmax[3].shares == ((0.0, 1.0), (0.0, 1.0))
    shown = write_report([str(folder)]).page.read_text(encoding="utf-8")
    assert shown.count('class="confusion alike"') == 1
    assert "fold 3: 0.0% of AD right, 100.0% of CN right; decides every subject alike" in shown


def test_many_networks_that_decide_one_class_are_one_line(tmp_path):
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(
        tmp_path / "run", runs=("cnn5-w1", "cnn10-w1"), cohorts=cohorts, baselines=()
    )
    table = pd.read_csv(folder / results.PREDICTIONS)
    chosen = table["split"].eq("test") & table["fold"].isin((1, 3))
    flat = table.assign(logit_0=table["logit_0"].mask(chosen, -50.0))
    probability = 1 / (1 + np.exp(flat["logit_0"] - flat["logit_1"]))
    files.write_csv(folder / results.PREDICTIONS, flat.assign(probability=probability))
    told = [
        line for line in cautions(analyse(load_runs([str(folder)]))) if "subjects alike" in line
    ]
    assert len(told) == 1
    # A fold of CNN-10 decides so by itself.
    named = "folds 1, 3 of CNN-5, source; folds 0, 1, 3 of CNN-10, source"
    assert told[0].endswith(f"includes. All positive: {named}.")


@pytest.mark.parametrize(("counts", "warned"), [((15, 45), True), ((30, 30), False)])
def test_methods_that_align_sites_are_warned_of_unequal_shares_of_patients(
    tmp_path, counts, warned
):
    cohorts = {"ADNI1": (40, 40), "ADNI2": counts}
    folder = synthetic_run.write_run(
        tmp_path / "run", cohorts=cohorts, stages=("tuned-all", "adapted-adabn"), baselines=()
    )
    lines = cautions(analyse(load_runs([str(folder)])))
    said = "Adaptation of CNN-5: 25% of ADNI2 and 50% of the source are AD. What aligns the sites"
    told = [line for line in lines if "What aligns the sites" in line]
    assert [line.startswith(said) for line in told] == [True] * warned
    assert all("AdaBN" in line and "all layers" not in line for line in told)
    tuned = synthetic_run.write_run(
        tmp_path / "tuned", cohorts=cohorts, stages=("tuned-all",), baselines=()
    )
    assert not any("aligns" in line for line in cautions(analyse(load_runs([str(tuned)]))))


def test_a_method_that_depends_on_the_share_of_patients_is_named(tmp_path):
    stages = tuple(f"adapted-adabn-patients{share}" for share in (20, 50, 80))
    folder = synthetic_run.write_run(
        tmp_path / "run", cohorts={"ADNI1": (40, 40), "ADNI2": (60, 60)}, stages=stages,
        baselines=(),
    )  # fmt: skip
    path = folder / results.PREDICTIONS
    table = pd.read_csv(path)
    # With 80% patients it scores as with 50%; with 20% it decides nearly everyone healthy.
    same, middle = (table["stage"].eq(f"adapted-adabn-patients{share}") for share in (80, 50))
    logits = ["logit_0", "logit_1"]
    table.loc[same, logits] = table.loc[middle, logits].to_numpy()
    chosen = table["stage"].eq("adapted-adabn-patients20") & table["split"].eq("test")
    moved = table.assign(logit_0=table["logit_0"] + 2.0 * chosen)
    probability = 1 / (1 + np.exp(moved["logit_0"] - moved["logit_1"]))
    files.write_csv(path, moved.assign(probability=probability))
    analysis = analyse(load_runs([str(folder)]))
    (section,) = analysis.sections
    assert section.family.key == "prevalence"
    assert [(a.stage, b.stage) for a, b in section.family.pairs] == [
        (stages[0], stages[1]), (stages[2], stages[1]),
    ]  # fmt: skip
    told = [line for line in cautions(analysis) if "its scores change with the share" in line]
    assert len(told) == 1
    assert told[0].startswith("ADNI2: CNN-5, target's statistics (AdaBN), 20% patients: its scores")
    assert "SEN -" in told[0]
