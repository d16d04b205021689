import numpy as np
import pandas as pd
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
