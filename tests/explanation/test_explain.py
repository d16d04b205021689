"""From a finished run to a folder: who explains whom, what is written, what a check changes."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from etils import epath

from mri_jax import cli, files
from mri_jax.errors import UserError
from mri_jax.evaluation.families import Method
from mri_jax.evaluation.learning import HARDLY
from mri_jax.explanation.gradients import gradient_times_input
from mri_jax.explanation.methods import METHODS
from mri_jax.explanation.selection import ScanChoice, classes_of, select_scans
from mri_jax.models import CNN, choice
from mri_jax.runs.trained import open_run
from mri_jax.study import permuted
from mri_jax.study.permuted import permuted_network
from mri_jax.training.wave import Wave
from tests.compiling import quickly
from tests.tiny import GRID

STAGES = ("source", "tuned-high")
SHOWN = METHODS[:-1]  # without gates there is no attention to show


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    """A program takes 8 volumes: as many voxels as usual are a thousand volumes of this grid."""
    monkeypatch.setattr("mri_jax.explanation.methods._VOXELS", 8 * np.prod(GRID.shape))


@pytest.fixture(scope="module")
def opened(small_run):
    return open_run(small_run)


@pytest.fixture(scope="module")
def inputs(small_run, tmp_path_factory):
    """A label image, and the store with maps of the truth beside it."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(small_run.parent / "data" / "store", folder / "store")
    effect = np.zeros(GRID.shape, np.float32)
    effect[2:6, 3:7, 2:6] = 1.0
    labels = (effect > 0).astype(np.int16)
    labels[6:8, 3:7, 2:6] = 2
    (folder / "truth").mkdir()
    for name, values in (
        ("truth/effect_union", effect),
        ("truth/effect_strength", 0.2 * effect),
        ("truth/labels", effect.astype(np.int16)),
        ("regions", labels),
    ):
        nib.save(nib.Nifti1Image(values, GRID.affine), folder / f"{name}.nii.gz")
    (folder / "names.csv").write_text("1,corner\n2,beside\n", encoding="utf-8")
    return folder


def explain(small_run, inputs, out, *more):
    arguments = ["explain", str(small_run), "--cohort", "ADNI2", "--out", str(out), "--steps", "4"]
    arguments += ["--regions", str(inputs / "regions.nii.gz"), "--store", str(inputs / "store")]
    arguments += ["--region-names", str(inputs / "names.csv"), *more]
    with quickly():
        return cli.main(arguments)


def test_scans_of_a_target_are_explained_by_all_that_never_saw_them(opened):
    scans = select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", (), 0, 0))
    tuned = opened.ensemble("cnn2-w1", "tuned-high")
    adapted = {key for member in tuned for key in opened.trained_on(member)}
    assert len(scans) == 16
    assert not adapted & {scan.key for scan in scans}
    assert all([m.fold for m in scan.members[s]] == [0, 1, 2] for scan in scans for s in STAGES)
    # What was fine-tuned on is new to the source networks.
    alone = select_scans(opened, "cnn2-w1", ("source",), ScanChoice("ADNI2", (), 0, 0))
    assert len(alone) == 20


def test_scans_of_the_source_are_explained_by_the_fold_that_left_them_out(opened):
    scans = select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI1", (), 0, 0))
    assert len(scans) == 20
    for scan in scans:
        for stage in STAGES:
            (member,) = scan.members[stage]
            assert scan.key in opened.held_out(member)
            assert scan.key not in opened.trained_on(member)


def test_so_many_of_each_class_are_drawn(opened):
    one = select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", (), 3, 0))
    assert sorted(scan.label for scan in one) == [0, 0, 0, 1, 1, 1]
    assert one == select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", (), 3, 0))
    other = select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", (), 3, 1))
    assert {s.key for s in one} != {s.key for s in other}


def test_groups_carry_the_scans_own_diagnoses(opened):
    """Networks of a related task are asked about scans of other diagnoses than they learned."""
    assert classes_of(opened, "cnn2-w1", "ADNI2") == ("CN", "AD")
    cohort = opened.results.cohort
    there = cohort["cohort"] == "ADNI2"
    renamed = cohort["diagnosis"].where(
        ~there, cohort["diagnosis"].map({"AD": "pMCI", "CN": "sMCI"})
    )
    other = replace(
        opened, results=replace(opened.results, cohort=cohort.assign(diagnosis=renamed))
    )
    assert classes_of(other, "cnn2-w1", "ADNI2") == ("sMCI", "pMCI")
    assert other.diagnoses("cnn2-w1") == ("CN", "AD")


def test_what_may_not_be_explained_is_named(opened):
    tuned = opened.ensemble("cnn2-w1", "tuned-high")[0]
    adapted = next(s for s, _ in opened.trained_on(tuned) if s.startswith("ADNI2"))
    with pytest.raises(UserError, match=f"subject: {adapted} was fine-tuned on"):
        select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", (adapted,), 0, 0))
    with pytest.raises(UserError, match="subject: nobody is not among the scans of ADNI2"):
        select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", ("nobody",), 0, 0))
    with pytest.raises(UserError, match=r"cohort: 'AIBL' is not one.*ADNI1, ADNI2"):
        select_scans(opened, "cnn2-w1", STAGES, ScanChoice("AIBL", (), 0, 0))


@pytest.fixture
def flat(small_run):
    """The run as if the source network of fold 1 alone had hardly learnt."""
    plan = files.read_json(small_run / "plan.json")
    rows = [
        row | {"not_learnt": "flat" * (row["stage"] == "source" and row["fold"] == 1)}
        for row in plan["stages"]
    ]
    files.write_json(small_run / "plan.json", {"stages": rows})
    yield f"Fold 1 of {Method('cnn2-w1', 'source').name}: {HARDLY}: flat; it counts in every mean"
    files.write_json(small_run / "plan.json", plan)


def test_the_folder_of_an_explanation(small_run, opened, inputs, tmp_path, flat, capsys):
    subject = select_scans(opened, "cnn2-w1", STAGES, ScanChoice("ADNI2", (), 1, 0))[0].key[0]
    chosen = ("--method", "gradient-input", "--subject", subject)
    assert explain(small_run, inputs, tmp_path, *chosen) == 0
    table = pd.read_csv(tmp_path / "tables/scans.csv")
    assert table[["stage", "networks"]].to_numpy().tolist() == [[s, 3] for s in STAGES]
    image = nib.load(tmp_path / table["file"][1])
    np.testing.assert_allclose(image.affine, GRID.affine)
    assert image.header["sform_code"] == 4
    # The map is the mean of the networks' maps, each in the plain form's own words.
    volume = opened.reader(((subject, "bl"),)).read(0)[None]
    members = [m.load() for m in opened.ensemble("cnn2-w1", "tuned-high")]
    networks = [(CNN(m.spec, forms="reference"), m.variables) for m in members]
    maps = [gradient_times_input(*network, volume, np.float32(0)) for network in networks]
    wanted = np.mean(maps, axis=0)[0, ..., 0]
    np.testing.assert_allclose(image.get_fdata(), wanted, atol=1e-5 * np.abs(wanted).max())
    regions = pd.read_csv(tmp_path / "tables/regions.csv")
    corner = regions[(regions["region"] == "corner") & (regions["stage"] == "tuned-high")]
    assert corner["signed"].item() == pytest.approx(wanted[2:6, 3:7, 2:6].sum(), rel=1e-3)
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "SIMULATED SCANS" in page
    assert subject in page
    assert "Not made" in page
    assert f"<p>Warning: {flat}" in page
    assert f"warning: {flat}" in capsys.readouterr().out
    (warning,) = files.read_json(tmp_path / "explain.json")["warnings"]
    assert warning.startswith(flat)
    rates = files.read_json(tmp_path / "explain.json")["cost"]
    assert rates["gradient-input"]["volumes_per_second"] > 0
    assert (tmp_path / "views").glob(f"*{subject}*.html")


def test_checks_judge_and_a_failure_shows(small_run, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("mri_jax.explanation.sanity.ABSOLUTE_LIMIT", -1.0)
    more = ("--method", "gradient-input", "--per-class", "2", "--stage", "source", "--sanity")
    assert explain(small_run, inputs, tmp_path, *more) == 0
    found = files.read_json(tmp_path / "explain.json")["checks"]["source"]
    outcomes = {verdict["check"]: verdict["outcome"] for verdict in found}
    assert list(outcomes) == ["cascade", "permuted labels", "agreement", "truth"]
    assert outcomes["cascade"] == outcomes["permuted labels"] == "FAILED"
    failed = "gradient-input, source · FAILED: cascade, permuted labels"
    assert failed in (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert failed in (tmp_path / "summary.md").read_text(encoding="utf-8")
    header = nib.load(tmp_path / "maps/source/gradient-input/mean-AD.nii.gz").header
    assert b"FAILED" in bytes(header["descrip"])


def test_labels_are_permuted_and_the_network_is_trained_once(small_run, opened):
    one = permuted_network(opened, "cnn2-w1", fold=1)
    stages = sorted((small_run.parent / "stages").glob("source-*/network"))
    times = [stage.stat().st_mtime_ns for stage in stages]
    again = permuted_network(opened, "cnn2-w1", fold=1)
    assert [stage.stat().st_mtime_ns for stage in stages] == times
    kernel = one.network.variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, again.network.variables["params"]["conv1"]["kernel"])
    trained = opened.ensemble("cnn2-w1", "source")[1].load()
    assert np.abs(kernel - trained.params["conv1"]["kernel"]).max() > 1e-3
    assert "4 epochs" in one.note
    gated = replace(trained.spec, attention="spatial", attention_blocks=(1,))
    other = permuted_network(opened, "cnn2-w1", fold=1, spec=gated)
    assert other.network.network.spec == gated
    assert "att1" in other.network.variables["params"]


def test_the_network_of_permuted_labels_is_found_without_the_table_of_then(
    small_run, opened, tmp_path
):
    def trained():
        return {p: p.stat().st_mtime_ns for p in (small_run.parent / "stages").glob("*/network")}

    one, before = permuted_network(opened, "cnn2-w1", fold=1), trained()
    absent = str(tmp_path / "cohort.csv")
    data = replace(opened.study.data, cohort=absent)
    moved = replace(opened, study=replace(opened.study, data=data))
    table = small_run.parent / "data" / "cohort.csv"
    for again in (
        permuted_network(moved, "cnn2-w1", fold=1),
        permuted_network(moved, "cnn2-w1", fold=1, table=table),
    ):
        assert again.note == one.note
    assert trained() == before
    empty = replace(moved, results=replace(opened.results, path=epath.Path(tmp_path)))
    with pytest.raises(UserError, match=rf"is neither {absent} nor .*; name it with --table"):
        permuted_network(empty, "cnn2-w1", fold=1)
    with pytest.raises(UserError, match=r"other\.csv"):
        permuted_network(moved, "cnn2-w1", fold=1, table=tmp_path / "other.csv")


def test_every_network_is_computed_by_the_form_that_is_asked_for(
    small_run, inputs, tmp_path, monkeypatch
):
    """Those of all methods, with random layers, and of permuted labels, which is trained so."""
    asked, resolved, trained = [], choice.resolved, []
    monkeypatch.setattr(choice, "resolved", lambda forms: asked.append(forms) or resolved(forms))

    def kept(wave):
        trained.append(wave)
        return wave

    monkeypatch.setattr(permuted, "Wave", lambda *of, **how: kept(Wave(*of, **how)))
    more = ("--per-class", "1", "--stage", "source", "--sanity", "--forms", "volume")
    assert explain(small_run, inputs, tmp_path, *more) == 0
    assert set(asked) == {"volume"}
    assert [wave.forms for wave in trained] == ["volume"]


@pytest.mark.slow
def test_every_method(small_run, inputs, tmp_path):
    assert explain(small_run, inputs, tmp_path, "--per-class", "2", "--sanity") == 0
    found = files.read_json(tmp_path / "explain.json")
    assert list(found["methods"]) == list(SHOWN)
    assert set(found["checks"]) == set(STAGES)
    for method in SHOWN:
        image = nib.load(tmp_path / f"maps/source/{method}/difference.nii.gz")
        assert np.abs(image.get_fdata()).max() > 0
    assert found["completeness"]["median_error"] > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--stage", "tuned-low"), "stage: 'tuned-low'"),
        (("--network", "cnn9"), "network: 'cnn9'"),
        (("--block", "7"), "block: 7 must lie between 1 and 2"),
        (("--steps", "0"), "steps: 0 must be at least 1"),
        (("--per-class", "-1"), "per-class: -1 must be at least 0"),
    ],
)
def test_a_mistake_is_one_line(small_run, inputs, tmp_path, capsys, more, words):
    assert explain(small_run, inputs, tmp_path / "out", *more) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(said) == 1
    assert words in said[0]
