"""The report of a study that leaves every site out once."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mri_jax.cli import main
from mri_jax.evaluation.families import Method
from mri_jax.evaluation.left_out import Gain
from mri_jax.reporting import left_out, methods
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.figures import score_figures
from mri_jax.reporting.figures_layers import layer_figures
from mri_jax.reporting.findings import findings
from mri_jax.reporting.overview import runs_table
from mri_jax.runs import results
from tests import studies, synthetic_run

SITES = {"NYU": (20, 24), "UM_1": (12, 15), "KKI": (9, 14), "SDSU": (8, 6)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sites"
    tables = synthetic_run.left_out_predictions(SITES)
    synthetic_run.write_run(folder, tables=tables, arrays=True)
    studies.study("leave_one_site_out").write(folder / results.CONFIG)
    rng = np.random.default_rng(0)
    arrays = {}
    cohort = tables[1]["cohort"].to_numpy(str)
    for site in SITES:
        run = f"cnn5-w1-without-{site}"
        values = rng.normal(size=(len(cohort), 4))
        values[cohort == "KKI", 0] += 4
        arrays[f"{run}/source/fold0/features"] = values
        arrays[f"{run}/fold0/cohort"] = cohort
        arrays[f"{run}/fold0/target"] = cohort == site
    np.savez(folder / results.FEATURES, **arrays)
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def analysis(folder):
    return analyse(load_runs([str(folder)]))


def test_a_row_a_site_then_means_of_networks_and_of_baselines(folder):
    table = pd.read_csv(folder / "tables" / "sites-left-out.csv")
    networks, baseline = (table[table["method"].eq(m)] for m in ("cnn5-w1", "baseline-hippocampus"))
    summed = [left_out.MEAN, left_out.NEW]
    assert sorted(networks["site"][:4]) == sorted(SITES)
    assert networks["site"].tolist()[4:] == baseline["site"].tolist()[4:] == summed
    mean, new = networks.iloc[4], networks.iloc[5]
    assert new["low"] <= mean["low"] < mean["auc"] < mean["high"] <= new["high"]
    printed = (folder / "tables" / "sites-left-out.md").read_text()
    assert len(re.findall(r"^\| (NYU|UM_1|KKI|SDSU) ", printed, re.M)) == 4


def test_the_page_says_mean_new_site_baselines_and_whether_sites_are_learnt(analysis):
    (found,) = findings(analysis)
    (ran,) = runs_table(analysis).rows
    assert [cell.text for cell in ran][3:5] == ["all sites but the one left out", "each site"]
    claims = {claim.about: claim.text for claim in found.claims}
    assert list(claims) == ["AUC", "New site", "Baselines", "Site"]
    assert "over 4 sites" in claims["AUC"]
    assert "hippocampal volume" in claims["Baselines"]
    assert re.search(r"tell it from the others .* to 100%, clearly at", claims["Site"])
    assert claims["Site"].endswith("nothing that was looked at (age).")
    rows = [row.label for row in found.forest.rows]
    assert sorted(rows[:4]) == sorted(SITES)
    assert rows[4:] == [left_out.MEAN, left_out.NEW, f"{left_out.MEAN}, hippocampal volume"]


def test_what_tuning_changes_and_where_sites_were_not_alone_is_said(analysis):
    method = Method("cnn5-w1", "tuned-high")
    gain = Gain(("A", "B"), ("C+D",), 0.76, -0.002, -0.013, 0.009)
    told = left_out.gain_sentence(method, gain)
    assert "minus source at the same 2 sites: −0.2 points of AUC [−1.3, 0.9]" in told
    assert told.endswith(
        "there the source has 76.0%. Not adapted to: C+D, small sites left out together."
    )
    found = analysis.sections[0].left_out
    assert left_out.unlike_sites(found) == ""
    pooled = replace(found, sites=(replace(found.sites[0], left_out="C+D"),), untested=("KUL_3",))
    assert left_out.unlike_sites(pooled) == (
        "C, D have too few scans of a class each (config.sites.minimum) and are left out together, "
        "as one site; trained on and never tested, with one class alone or too few scans: KUL_3."
    )


def test_figures_are_one_forest_and_the_first_layer_of_one_site(analysis, folder):
    assert score_figures(analysis) == []
    assert (folder / "figures" / "sites-forest.png").stat().st_size > 5000
    assert len(layer_figures(analysis, share=False)) == 2


def test_methods_name_no_site_twice_and_say_how_sites_were_summed_up(analysis):
    told = " ".join(methods.methods_paragraphs(analysis))
    assert "scans of all sites but one" in told
    assert "restricted maximum likelihood" in told
    assert told.count("CNN-5") == 1
