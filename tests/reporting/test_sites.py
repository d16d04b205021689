"""How far apart two sites are, from features that are known."""

import numpy as np
import pytest
import synthetic_run

from mri_jax.arrays import write_npz
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.report import write_report
from mri_jax.reporting.sites import components, sites_figure, sites_table
from mri_jax.runs import results


def study(folder, scans=40):
    """The source network's features tell the sites apart, those of the adapted one do not."""
    run = synthetic_run.write_run(
        folder, cohorts={"ADNI1": (40, 40), "ADNI2": (40, 40)}, stages=("adapted-adabn",),
        baselines=(),
    )  # fmt: skip
    arrays, rng = {}, np.random.default_rng(2)
    target = np.arange(2 * scans) >= scans
    for fold in range(5):
        own = f"cnn5-w1/fold{fold}"
        arrays[f"{own}/cohort"] = np.where(target, "ADNI2", "ADNI1")
        arrays[f"{own}/target"] = target
        arrays[f"{own}/label"] = np.arange(2 * scans) % 2
        for stage, apart in (("source", 4.0), ("adapted-adabn", 0.0)):
            features = rng.normal(size=(2 * scans, 8))
            features[:, 1] += apart * target
            arrays[f"cnn5-w1/{stage}/fold{fold}/features"] = features.astype(np.float32)
    write_npz(run / results.FEATURES, arrays)
    return run


def test_the_table_tells_the_source_networks_features_from_the_adapted_ones(tmp_path):
    analysis = analyse(load_runs([str(study(tmp_path / "run"))]))
    (section,) = analysis.sections
    data = sites_table(section, analysis).data.set_index("method")
    assert data.loc["cnn5-w1", "low"] > 0.9
    adapted = data.loc["cnn5-w1 adapted-adabn"]
    assert adapted["low"] < 0.5 < adapted["high"]
    few = analyse(load_runs([str(study(tmp_path / "few", scans=4))]))
    assert {row[1].text for row in sites_table(few.sections[0], few).rows} == {"too few scans"}


@pytest.mark.usefixtures("unrendered")
def test_the_figure_has_a_panel_a_method_and_stays_out_of_shared_pages(tmp_path):
    run = study(tmp_path / "run")
    analysis = analyse(load_runs([str(run)]))
    (picture,) = sites_figure(analysis.sections[0], analysis)
    titles = [axes.get_title("left") for axes in picture.figure.axes]
    assert titles == ["Source", "Target's statistics\n(AdaBN)"]
    whole = write_report([str(run)]).page.read_text(encoding="utf-8")
    shared = write_report([str(run)], out=tmp_path / "out", share=True).page
    said = "along the two principal components"
    assert said in whole
    assert said not in shared.read_text(encoding="utf-8")


def test_components_are_those_of_standardised_features():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(50, 5)) * [1, 10, 1, 1, 0]
    places = components(features)
    standard = (features - features.mean(0))[:, :4] / features.std(0)[:4]
    sizes = np.linalg.eigvalsh(standard.T @ standard)[::-1]
    np.testing.assert_allclose((places**2).sum(0), sizes[:2])
    assert abs(places[:, 0] @ places[:, 1]) < 1e-8
